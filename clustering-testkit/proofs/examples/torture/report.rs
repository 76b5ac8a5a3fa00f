use std::{collections::BTreeMap, time::Duration};

use clustering_core::store::Change;
use clustering_testkit::history::{
    Ledger, Observation, WriteOutcome,
    ledger::{Act, Content},
};
use serde_json::{Map, Value, json};

use crate::{
    arguments::Settings,
    faults::Struck,
    judge::{Broken, Verdict},
    plan::{Exclusive, Kind},
    world::{Calm, NAMESPACE, World},
};

/// Report of a run: the injected faults, the observed events and the result of the checks.
pub(crate) struct Report {
    settings: Settings,
    /// Name and version of the store.
    store: String,
    took: Duration,
    struck: Struck,
    calm: Calm,
    numbers: BTreeMap<&'static str, u64>,
    /// Longest time without a leader, including the time after the faults.
    without_leader: Duration,
    broken: Option<Broken>,
}

/// Checks that a run without a broken promise has passed. P12 is only checked if there were exclusive nodes.
const HELD: [&str; 11] =
    ["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P12", "increments", "linearizability"];

impl Report {
    pub(crate) fn of(
        settings: &Settings,
        world: &World,
        struck: Struck,
        calm: Calm,
        verdict: Verdict,
    ) -> Self {
        let without_leader = without_leader(&verdict);
        let mut numbers = count(&verdict);
        numbers.insert("lives", world.lives_of_each().values().sum::<usize>() as u64);
        Report {
            settings: settings.clone(),
            store: world.servers.version(),
            took: world.clock.now().since(world.began),
            struck,
            calm,
            numbers,
            without_leader,
            broken: verdict.broken,
        }
    }

    pub(crate) fn held(&self) -> bool {
        self.broken.is_none()
    }

    /// Returns the checks that this run has passed.
    fn passed(&self) -> Vec<&'static str> {
        let has_p12 = self.settings.exclusive != Exclusive::None;
        HELD.into_iter().filter(|check| self.held() && (has_p12 || *check != "P12")).collect()
    }

    pub(crate) fn print(&self, json: bool) {
        if json {
            return println!("{}", self.as_json());
        }
        println!("{}, {:.1} s\n\ndone:", self.store, self.took.as_secs_f64());
        for (kind, times) in &self.struck.faults {
            println!("{times:>8}  {}", kind.name());
        }
        println!("{:>8}  had no target, or a target with another fault in progress", self.struck.missed);
        println!("\nseen:");
        for (what, times) in &self.numbers {
            println!("{times:>8}  {what}");
        }
        println!("{:>7.1}s  longest time without a leader", self.without_leader.as_secs_f64());
        if let Some(after) = self.calm.after {
            println!("{:>7.1}s  from the last fault to a stable version of all nodes", after.as_secs_f64());
        }
        match &self.broken {
            None => println!("\nheld: {}", self.passed().join(", ")),
            Some(Broken { what, kept }) => {
                println!("\n{what}\n\nthe logs are kept in {kept}\nreproduce: {}", self.settings.command());
            }
        }
    }

    fn as_json(&self) -> Value {
        let faults = Kind::ALL.iter().map(|kind| {
            let times = self.struck.faults.get(kind).copied().unwrap_or_default();
            (kind.name().to_owned(), json!(times))
        });
        let numbers = self.numbers.iter().map(|(what, times)| ((*what).to_owned(), json!(times)));
        json!({
            "seed": self.settings.seed,
            "nodes": self.settings.nodes,
            "members": self.settings.members,
            "ttl_s": self.settings.ttl.as_secs(),
            "exclusive": self.settings.exclusive_name(),
            "seconds": self.settings.time.as_secs(),
            "store": self.store,
            "took_s": self.took.as_secs_f64(),
            "faults": faults.collect::<Map<_, _>>(),
            "missed": self.struck.missed,
            "seen": numbers.collect::<Map<_, _>>(),
            "longest_without_leader_s": self.without_leader.as_secs_f64(),
            "calm_after_s": self.calm.after.map(|after| after.as_secs_f64()),
            "held": self.passed(),
            "broken": self.broken.as_ref().map(|broken| {
                json!({ "what": broken.what, "kept": broken.kept, "again": self.settings.command() })
            }),
        })
    }
}

fn count(verdict: &Verdict) -> BTreeMap<&'static str, u64> {
    let era = verdict.ledger.present();
    let counted = |act: &Act| matches!(act, Act::Wrote(write) if write.key == format!("{}{}", Ledger::LEADER_COMMITS, Ledger::COUNTER));
    let mut ledger = Ledger::new(NAMESPACE);
    let commits = verdict.pages.iter().filter_map(|page| ledger.turn(page));
    let steps = commits.filter(|commit| commit.acts.iter().any(counted)).count();
    let mut numbers = BTreeMap::from([
        ("terms", era.reigns().len() as u64),
        ("versions", era.versions().len() as u64),
        ("stable versions", era.confirmed().len() as u64),
        ("leaders' steps", steps as u64),
        ("reads and commits in one order", verdict.calls.0 as u64),
        ("commits with a lost reply", verdict.calls.1 as u64),
        ("holds of keys", verdict.work.holds.holds as u64),
        ("moves of keys", verdict.work.holds.moves as u64),
        ("owners' increments", verdict.work.increments as u64),
    ]);
    if let crashes @ 1.. = crashes(verdict) {
        numbers.insert("removals of nodes that seemed to have crashed", crashes);
    }
    for entry in verdict.journals.iter().flatten() {
        let what = match &entry.observation {
            Observation::SessionLost { .. } => "sessions lost",
            Observation::Rejoined { .. } => "rejoins",
            Observation::LeadershipSuspended { .. } => "leaders suspended",
            Observation::LeadershipResumed { .. } => "leaders resumed",
            Observation::Resynced { .. } => "resyncs",
            Observation::OnStableBegan { .. } => "on_stable calls",
            Observation::RenewalFailed { .. } => "renewals failed",
            Observation::LeaderCommit { outcome: WriteOutcome::Refused(_), .. } => "leaders' writes refused",
            Observation::LeaderCommit { outcome: WriteOutcome::Unknown(_), .. } => "leaders' writes unknown",
            _ => continue,
        };
        *numbers.entry(what).or_default() += 1;
    }
    numbers
}

/// Returns the number of commits that removed nodes because others reported their crash.
fn crashes(verdict: &Verdict) -> u64 {
    let removed = format!("{NAMESPACE}/view/gone");
    let says_so = |change: &Change| match change {
        Change::Put(entry) if entry.key.as_str() == removed => {
            serde_json::from_slice::<Value>(&entry.value).is_ok_and(|record| record["how"] == "crashed")
        }
        _ => false,
    };
    let batches = verdict.pages.iter().filter_map(|page| match &page.content {
        Content::Batch(batch) => Some(batch),
        _ => None,
    });
    batches.filter(|batch| batch.changes.iter().any(says_so)).count() as u64
}

fn without_leader(verdict: &Verdict) -> Duration {
    let (mut longest, mut since) = (Duration::ZERO, None);
    let mut ledger = Ledger::new(NAMESPACE);
    for page in &verdict.pages {
        let (Some(commit), Some(at)) = (ledger.turn(page), page.at) else { continue };
        if !matches!(page.content, Content::Batch(_)) {
            continue;
        }
        for act in &commit.acts {
            match act {
                Act::Vacated(_) => since = Some(at),
                Act::Led(_) => {
                    longest = since.take().map_or(longest, |since| longest.max(at.since(since)));
                }
                _ => {}
            }
        }
    }
    longest
}
