use std::{fs, path::PathBuf};

use clustering_testkit::history::{Entry, Ledger, Moment, Page};

use crate::world::{Failed, NAMESPACE, World};

/// Saves the timeline of the run, the journals, and the logs of the nodes and of the servers. Returns the folder.
pub(crate) fn keep(
    world: &World,
    broken: &str,
    pages: &[Page],
    journals: &[Vec<Entry>],
) -> Result<String, Failed> {
    let seed = world.settings.seed;
    let folder = world.settings.keep.clone().unwrap_or_else(|| {
        let name = format!("clustering-torture-{seed}-{}", std::process::id());
        std::env::temp_dir().join(name)
    });
    fs::create_dir_all(&folder)?;
    let mut lines: Vec<(Moment, String)> = Vec::new();
    let mut ledger = Ledger::new(NAMESPACE);
    for page in pages {
        if let Some(commit) = ledger.turn(page) {
            lines.push((page.at.unwrap_or_default(), commit.to_string()));
        }
    }
    lines.extend(journals.iter().flatten().map(|entry| (entry.at, entry.to_string())));
    let told = world.told().into_iter();
    lines.extend(told.map(|(at, what)| (at, format!("{at:>14}  {:<16} {what}", "torture"))));
    lines.sort_by_key(|(at, _)| *at);
    let story: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    let head = format!("{broken}\n\nreproduce: {}\n\ntimeline:\n", world.settings.command());
    fs::write(folder.join("story.txt"), head + &story.join("\n") + "\n")?;
    for node in world.lives() {
        copy(&node.spec().journal, folder.join(format!("{}.jsonl", node.spec().life)))?;
        if let Some(work) = &node.spec().work {
            copy(&work.log, folder.join(format!("{}.work", node.spec().life)))?;
        }
        if let Some(process) = node.process() {
            copy(process.log_path(), folder.join(format!("{}.log", node.spec().life)))?;
        }
    }
    for (member, log) in world.servers.logs() {
        fs::write(folder.join(format!("{member}.log")), log)?;
    }
    Ok(folder.display().to_string())
}

/// Copies a file if it exists: a node that was killed right after its start has neither a journal nor a log.
fn copy(from: &std::path::Path, to: PathBuf) -> std::io::Result<()> {
    if from.exists() {
        fs::copy(from, to)?;
    }
    Ok(())
}
