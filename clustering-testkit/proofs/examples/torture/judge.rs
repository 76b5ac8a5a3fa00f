use std::sync::Arc;

use clustering_testkit::{
    history::{Entry, Ledger, Page},
    linearizability::History,
    promises::{self, Calm as Members},
};

use crate::{
    story,
    world::{Calm, Failed, NAMESPACE, World},
};

/// Histories of a run, and the result of checking them.
pub(crate) struct Verdict {
    pub(crate) ledger: Ledger,
    pub(crate) pages: Vec<Page>,
    pub(crate) journals: Vec<Vec<Entry>>,
    /// Number of reads and commits that were ordered, and number of commits with an unknown outcome.
    pub(crate) calls: (usize, usize),
    /// The broken promise, if any, and the folder with the logs.
    pub(crate) broken: Option<Broken>,
}

pub(crate) struct Broken {
    pub(crate) what: String,
    pub(crate) kept: String,
}

/// Checks the history up to the calm, makes all nodes leave, and checks the whole history again.
pub(crate) async fn judge(world: &Arc<World>, calm: Calm) -> Result<Verdict, Failed> {
    let mut broken = None;
    // Read the journals between two reads of the store's history, so that it has everything that a node has seen.
    world.pages().await?;
    let (journals, pages) = (world.journals(), world.pages().await?);
    let members = Members::of(world.names());
    let at_rest = calm.after.map(|_| &members);
    if let Err(violation) = promises::check(NAMESPACE, &pages, &journals, at_rest) {
        broken = Some(violation.to_string());
    }
    if calm.after.is_none() && broken.is_none() {
        broken = Some("P8 (progress) is broken: the cluster did not come to rest".to_owned());
    }
    // From here on no node does anything, so the histories are complete.
    match broken {
        None => world.end().await?,
        Some(_) => world.kill().await,
    }

    let (journals, pages) = (world.journals(), world.pages().await?);
    let mut calls = (0, 0);
    if broken.is_none() {
        let nobody = Members::of::<&str>([]);
        broken = promises::check(NAMESPACE, &pages, &journals, Some(&nobody)).err().map(|it| it.to_string());
    }
    // Check linearizability even if a promise is broken, since a faulty store may be the cause.
    match History::of_journals(&pages, &journals, World::is_strangers) {
        Err(why) => add(&mut broken, why.to_string()),
        Ok(history) => {
            calls = (history.operations.len(), history.unknown);
            if let Err(why) = history.judge() {
                add(&mut broken, why.to_string());
            }
        }
    }
    let mut ledger = Ledger::new(NAMESPACE);
    pages.iter().for_each(|page| drop(ledger.turn(page)));
    let broken = match broken {
        None => None,
        Some(what) => Some(Broken { kept: story::keep(world, &what, &pages, &journals)?, what }),
    };
    Ok(Verdict { ledger, pages, journals, calls, broken })
}

fn add(broken: &mut Option<String>, what: String) {
    *broken = Some(match broken.take() {
        None => what,
        Some(before) => format!("{before}\n{what}"),
    });
}
