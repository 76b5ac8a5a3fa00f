use std::sync::Arc;

use clustering_proofs::work::{FencedFile, Judged, Place, WorkSpec, counts};
use clustering_testkit::{
    history::{Entry, Ledger, Page},
    linearizability::History,
    promises::{self, Calm as Members},
};

use crate::{
    plan::Exclusive,
    story,
    world::{Calm, Failed, NAMESPACE, World, judge_of, logs_of},
};

/// Histories of a run, and the result of checking them.
pub(crate) struct Verdict {
    pub(crate) ledger: Ledger,
    pub(crate) pages: Vec<Page>,
    pub(crate) journals: Vec<Vec<Entry>>,
    /// Number of reads and commits that were ordered, and number of commits with an unknown outcome.
    pub(crate) calls: (usize, usize),
    pub(crate) work: Work,
    /// The broken promise, if any, and the folder with the logs.
    pub(crate) broken: Option<Broken>,
}

/// Work on keys that were held exclusively.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) holds: Judged,
    /// Number of increments in the store and in fenced files.
    pub(crate) increments: usize,
}

pub(crate) struct Broken {
    pub(crate) what: String,
    pub(crate) kept: String,
}

/// Checks the history up to the calm, makes all nodes leave, and checks the whole history again.
pub(crate) async fn judge(world: &Arc<World>, calm: &Calm) -> Result<Verdict, Failed> {
    let mut broken = None;
    // Read the journals between two reads of the store's history, so that it has everything that a node has seen.
    world.pages().await?;
    let (journals, pages) = (world.journals()?, world.pages().await?);
    let members = Members::of(world.names());
    let at_rest = calm.after.map(|_| &members);
    if let Err(violation) = promises::check(NAMESPACE, &pages, &journals, at_rest) {
        broken = Some(violation.to_string());
    }
    if calm.after.is_none() && broken.is_none() {
        broken = Some("P8 (progress) is broken: the cluster did not come to rest".to_owned());
    }
    if let (Some(unheld), None) = (&calm.unheld, &broken) {
        broken = Some(format!("P12 (one holder) is broken: after the faults, {unheld}"));
    }
    // From here on no node does anything, so the histories are complete.
    match broken {
        None => world.end().await?,
        Some(_) => world.kill().await,
    }

    let (journals, pages) = (world.journals()?, world.pages().await?);
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
    let mut work = Work::default();
    if world.settings.exclusive != Exclusive::None {
        match judge_work(world).await? {
            Ok(judged) => work = judged,
            Err(why) => add(&mut broken, why),
        }
    }
    let mut ledger = Ledger::new(NAMESPACE);
    pages.iter().for_each(|page| drop(ledger.turn(page)));
    let broken = match broken {
        None => None,
        Some(what) => Some(Broken { kept: story::keep(world, &what, &pages, &journals)?, what }),
    };
    Ok(Verdict { ledger, pages, journals, calls, work, broken })
}

/// Checks the fencing tokens and the counters of all keys.
async fn judge_work(world: &World) -> Result<Result<Work, String>, Failed> {
    let logs = logs_of(&world.lives())?;
    let judge = judge_of(&logs);
    let mut work = Work::default();
    let mut judged = judge.check_holds().map(|holds| work.holds = holds);
    for key in WorkSpec::new("", "").keys() {
        let places = [
            (Place::Store, counts(&world.store, NAMESPACE, &key).await?),
            (Place::File, FencedFile::counts(world.files().join(&key))?),
        ];
        for (place, counts) in places {
            work.increments += counts.len();
            judged = judged.and_then(|()| judge.check_counts(&key, place, &counts));
        }
    }
    Ok(judged.map(|()| work))
}

fn add(broken: &mut Option<String>, what: String) {
    *broken = Some(match broken.take() {
        None => what,
        Some(before) => format!("{before}\n{what}"),
    });
}
