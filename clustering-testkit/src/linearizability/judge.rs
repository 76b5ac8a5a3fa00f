use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use clustering_core::store::{Guard, Key, Operation as Write, Revision, Txn};

use super::{Answer, Call, History, Operation};

/// Why no order of the calls explains the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinearizable {
    what: String,
    /// The calls that led there, in the order that their revisions say.
    calls: Vec<String>,
}

impl NotLinearizable {
    /// What no order could explain.
    pub(super) fn of(what: String) -> Self {
        NotLinearizable { what, calls: Vec::new() }
    }
}

impl fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not linearizable: {}", self.what)?;
        if self.calls.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "the calls up to there, in the order of their revisions, with the moments of call and answer:"
        )?;
        self.calls.iter().try_for_each(|call| writeln!(f, "  {call}"))
    }
}

impl std::error::Error for NotLinearizable {}

/// How many calls are shown.
const SHOWN: usize = 12;

impl History {
    /// Whether one order of the calls explains all answers.
    ///
    /// # Errors
    ///
    /// The first call that cannot be explained, and those before it.
    pub fn judge(&self) -> Result<(), NotLinearizable> {
        let mut order: Vec<_> = self.operations.iter().collect();
        // What changed something at a revision comes before what saw it.
        order.sort_by_key(|operation| (rank(operation), operation.invoked));
        let mut map = Map::default();
        // The latest moment at which a call began that has to come before those looked at now, and of those beside it.
        let (mut begun_before, mut begun_beside) = (0, 0);
        for (place, operation) in order.iter().enumerate() {
            if place > 0 && rank(order[place - 1]) != rank(operation) {
                begun_before = begun_before.max(begun_beside);
            }
            let explained =
                match operation.returned < begun_before {
                    true => Err("it had its answer before another began that its revision says was earlier"
                        .to_owned()),
                    false => map.apply(operation),
                };
            begun_beside = begun_beside.max(operation.invoked);
            if let Err(why) = explained {
                let first = (place + 1).saturating_sub(SHOWN);
                let calls = order[first..=place].iter().map(ToString::to_string).collect();
                return Err(NotLinearizable { what: format!("{why}: {operation}"), calls });
            }
        }
        Ok(())
    }
}

/// What revisions say of the order: puts, deletes (which may have had nothing to delete), and what only looked.
fn rank(operation: &Operation) -> (Revision, u8) {
    let is_put = |write: &Write| matches!(write, Write::Put { .. });
    let rank = match (&operation.call, &operation.answer) {
        (Call::Commit(txn), Answer::Committed(_)) if txn.operations().iter().any(is_put) => 0,
        (Call::Commit(txn), Answer::Committed(_)) if !txn.operations().is_empty() => 1,
        _ => 2,
    };
    (operation.answer.revision(), rank)
}

/// What a single process with a map would do.
#[derive(Default)]
struct Map {
    entries: BTreeMap<Key, (Bytes, Revision, Revision)>,
    /// The revision of the last change.
    changed: Revision,
}

impl Map {
    fn apply(&mut self, operation: &Operation) -> Result<(), String> {
        match (&operation.call, &operation.answer) {
            (Call::Commit(txn), Answer::Committed(revision)) => {
                if let Some(guard) = txn.guards().iter().find(|guard| !self.holds(guard)) {
                    return Err(format!("{guard:?} did not hold"));
                }
                self.write(txn, *revision)
            }
            (Call::Commit(txn), Answer::GuardFailed(_)) => {
                match txn.guards().iter().all(|guard| self.holds(guard)) {
                    true => Err("its guards held".to_owned()),
                    false => Ok(()),
                }
            }
            (Call::Read(prefix), Answer::Shown(snapshot)) => {
                let shown = snapshot.entries.iter();
                let shown = shown.map(|entry| (&entry.key, (&entry.value, entry.created, entry.modified)));
                let stand = self.entries.range(Key::from(prefix.as_str())..);
                let stand = stand.take_while(|(key, _)| key.starts_with(prefix.as_str()));
                let stand =
                    stand.map(|(key, (value, created, modified))| (key, (value, *created, *modified)));
                match shown.eq(stand) {
                    true => Ok(()),
                    false => Err(format!("at that revision these stood: {:?}", self.entries)),
                }
            }
            _ => Err("the answer is to another question".to_owned()),
        }
    }

    fn holds(&self, guard: &Guard) -> bool {
        let entry = self.entries.get(guard.key());
        match guard {
            Guard::CreatedAt(_, at) => entry.map_or(Revision::ZERO, |(_, created, _)| *created) == *at,
            Guard::ModifiedAt(_, at) => entry.map_or(Revision::ZERO, |(_, _, modified)| *modified) == *at,
        }
    }

    fn write(&mut self, txn: &Txn, revision: Revision) -> Result<(), String> {
        let mut changes = false;
        for write in txn.operations() {
            match write {
                Write::Put { key, value, .. } => {
                    let created = self.entries.get(key).map_or(revision, |(_, created, _)| *created);
                    self.entries.insert(key.clone(), (value.clone(), created, revision));
                    changes = true;
                }
                Write::Delete { key } => changes |= self.entries.remove(key).is_some(),
            }
        }
        if !changes {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.changed, revision);
        match revision > before {
            true => Ok(()),
            false => Err(format!("it changed something and yet has no revision above {before}")),
        }
    }
}
