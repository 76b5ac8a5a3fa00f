use clustering_core::{
    machine::Machine,
    slots::SlotSet,
    store::{Operation, Txn},
};
use clustering_testkit::history::Life;
use serde::Deserialize;

#[derive(Deserialize)]
struct Acknowledgement {
    outcome: Option<String>,
    phase: Option<String>,
}

/// The slots that the user of a process has not let go of.
pub(in crate::sim) struct Kept<'a> {
    /// Lost slots for which no `release` has succeeded.
    pub(in crate::sim) unreleased: &'a SlotSet,
    /// Slots of valid outstanding holds.
    pub(in crate::sim) in_use: SlotSet,
    /// Slots of valid outstanding holds that were retracted.
    pub(in crate::sim) retracted: SlotSet,
}

/// P12. A node acknowledges a version, as ready or as released, only when `release` has succeeded for all slots that it
/// lost, and no hold of such a slot is outstanding.
pub(in crate::sim) fn check(who: &Life, machine: &Machine, txn: &Txn, kept: &Kept<'_>) -> Result<(), String> {
    let ready = machine.keyspace().ready_prefix();
    let written = txn.operations().iter().find_map(|operation| match operation {
        Operation::Put { key, value, .. } if key.starts_with(ready.as_str()) => Some(value),
        _ => None,
    });
    let record = written.and_then(|value| serde_json::from_slice::<Acknowledgement>(value).ok());
    let says = |record: &Acknowledgement| {
        record.outcome.as_deref() == Some("ready") || record.phase.as_deref() == Some("released")
    };
    let Some(view) = machine.newest().filter(|_| record.as_ref().is_some_and(says)) else { return Ok(()) };
    let not_its_own = match (view.me(), view.has_handover()) {
        (Some(name), true) => kept.in_use.difference(&view.slots_of(name)),
        _ => SlotSet::default(),
    };
    for (what, slots) in [
        ("whose release has not succeeded", kept.unreleased),
        ("whose holds were retracted but not dropped", &kept.retracted),
        ("that it does not own and is still working on", &not_its_own),
    ] {
        if !slots.is_empty() {
            return Err(format!(
                "P12, released too early: {who} acknowledges {} in spite of slots {slots} {what}",
                view.version()
            ));
        }
    }
    Ok(())
}
