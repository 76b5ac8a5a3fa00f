//! The order of the concerns: no file names one above it.

use std::collections::BTreeSet;

/// A file of the machine.
struct Layer {
    module: &'static str,
    source: &'static str,
}

macro_rules! layers {
    ($($module:literal)*) => {
        [$(Layer { module: $module, source: include_str!(concat!("../", $module, ".rs")) }),*]
    };
}

/// The files from the bottom up, as the module's page draws them. `mod.rs` and `status.rs` are on top.
const LAYERS: [Layer; 34] = layers! {
    "token" "timers" "facts" "contact" "failing" "in_flight" "output" "input" "outbox" "follow"
    "health" "session" "log" "version_requests" "formation" "keeping" "assignment" "versions" "membership" "ownership" "election" "acknowledgements" "consistency"
    "reclaim" "eviction" "crashes" "publication"
    "stabilization" "acknowledgement" "announcement" "requests" "owner_commits" "departure"
    "status"
};

impl Layer {
    /// Returns the modules in `use super::{…}` and in paths that begin with `super::`.
    fn imports(&self) -> BTreeSet<&'static str> {
        let block = self.source.split_once("use super::{").and_then(|(_, rest)| rest.split_once("};"));
        let listed = block.map_or("", |(block, _)| block);
        let words = listed.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let paths = self.source.split("super::").skip(1);
        words
            .chain(paths.filter_map(|path| path.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()))
            .collect()
    }

    /// Returns the types that the file declares for others.
    fn types(&self) -> impl Iterator<Item = &'static str> {
        let declared = self.source.lines().filter(|line| line.starts_with("pub"));
        declared.filter_map(|line| {
            let (_, rest) = line.split_once(" struct ").or_else(|| line.split_once(" enum "))?;
            rest.split(|c: char| !c.is_alphanumeric()).next()
        })
    }

    /// True if a comment refers to that module or type.
    fn refers_to(&self, name: &str) -> bool {
        self.source.contains(&format!("`{name}`"))
    }
}

#[test]
fn no_file_names_a_concern_above_it() {
    for (place, layer) in LAYERS.iter().enumerate() {
        for above in &LAYERS[place + 1..] {
            let (file, module) = (layer.module, above.module);
            assert!(!layer.imports().contains(module), "{file} imports {module}, which is above it");
            assert!(!layer.refers_to(module), "{file} refers to {module}, which is above it");
            for name in above.types() {
                assert!(!layer.refers_to(name), "{file} refers to {name} of {module}, which is above it");
            }
        }
    }
}

#[test]
fn the_machine_has_methods_in_two_files_only() {
    let machine = |layer: &&Layer| layer.source.contains("impl Machine");
    let files: Vec<_> = LAYERS.iter().filter(machine).map(|layer| layer.module).collect();
    assert_eq!(files, ["status"], "besides `mod.rs`");
}

#[test]
fn the_order_is_drawn_and_complete() {
    let page = include_str!("../mod.rs");
    let declared: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .filter(|module| *module != "tests")
        .collect();
    assert_eq!(declared, LAYERS.iter().map(|layer| layer.module).collect());
    let concerns = LAYERS.iter().skip_while(|layer| layer.module != "health");
    let concerns = concerns.map(|layer| layer.module).filter(|module| *module != "status");
    let drawn: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("//!             "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| declared.contains(word))
        .collect();
    let drawn: Vec<_> = drawn.into_iter().rev().skip_while(|word| *word != "health").collect();
    assert_eq!(drawn, concerns.collect::<Vec<_>>(), "the drawing in `mod.rs`");
}
