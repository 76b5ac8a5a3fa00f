//! P9. The cost of a membership change, counted in the ledger.
//!
//! From one stable version to the next and without faults, there is one revision in which a node joins or departs
//! (possibly by the expiry of its lease instead of a commit), one that publishes the version, one acknowledgement
//! per node, and one that records stability. For a view of N nodes that is N + 3, whichever change it was. The loss of
//! a leader costs no more, because one commit elects and publishes.

use clustering_core::Version;

use super::Violation;
use crate::history::Ledger;

/// Counts the revisions that took the cluster from one stable version to the next, and checks the count against the
/// promise.
///
/// # Errors
///
/// Returns a [`Violation`] if there were more revisions, or other versions between the two.
///
/// # Panics
///
/// Panics unless both versions became stable in the current era, in that order.
pub fn check_change(ledger: &Ledger, from: Version, to: Version) -> Result<usize, Violation> {
    let era = ledger.present();
    let stable = |version: Version| {
        let mut all = era.confirmed().iter();
        let confirmed = all.find(|confirmed| confirmed.version == version);
        confirmed.unwrap_or_else(|| panic!("{version} should be stable in the current era")).revision
    };
    let (begin, end) = (stable(from), stable(to));
    assert!(begin < end, "{from} should be stable before {to}");
    let between = |revision: clustering_core::store::Revision| begin < revision && revision <= end;
    let cost = era.commits().iter().filter(|revision| between(**revision)).count();
    let versions = era.versions().iter().filter(|published| between(published.revision)).count();
    let nodes = ledger.published(to).map_or(0, |published| published.cut.len());
    let violation = |expected: String, found: String| Violation {
        promise: "P9 (cost)",
        expected,
        found,
        about: vec![from.to_string(), to.to_string()],
        timeline: Vec::new(),
    };
    if versions != 1 {
        return Err(violation("one version for one change".to_owned(), format!("{versions} versions")));
    }
    match cost == nodes + 3 {
        true => Ok(cost),
        false => Err(violation(
            format!("{} commits for a change that leaves {nodes} nodes", nodes + 3),
            format!("{cost} commits from {from} to {to}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promises::scene::{Scene, version};

    fn scene() -> Scene {
        let mut scene = Scene::of(&["a"]);
        scene.acknowledge("a", "V1");
        scene.confirm("V1");
        scene.join("b", 2);
        scene.publish("V2");
        scene.acknowledge("a", "V2");
        scene
    }

    #[test]
    fn a_join_costs_n_plus_three_commits() {
        let mut scene = scene();
        scene.acknowledge("b", "V2");
        scene.confirm("V2");
        assert_eq!(check_change(&scene.ledger(), version("V1"), version("V2")).unwrap(), 5);
    }

    #[test]
    fn an_additional_commit_is_detected() {
        let mut scene = scene();
        scene.acknowledge("b", "V2");
        scene.acknowledge("b", "V2");
        scene.confirm("V2");
        let violation = check_change(&scene.ledger(), version("V1"), version("V2")).unwrap_err();
        assert_eq!(violation.expected, "5 commits for a change that leaves 2 nodes");
    }

    #[test]
    fn an_additional_version_is_detected() {
        let mut scene = scene();
        scene.publish("V3");
        scene.acknowledge("a", "V3");
        scene.acknowledge("b", "V3");
        scene.confirm("V3");
        let violation = check_change(&scene.ledger(), version("V1"), version("V3")).unwrap_err();
        assert_eq!(violation.found, "2 versions");
    }
}
