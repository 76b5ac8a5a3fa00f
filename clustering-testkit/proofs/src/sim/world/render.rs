use std::fmt::Write;

use clustering_core::{
    machine::{Input, Output},
    store::{Batch, Change, Guard, Operation, Revision, StoreError, Txn},
};

use super::{NAMESPACE, calls::By, process::Process};

/// Returns a key without its namespace.
fn short(key: &str) -> &str {
    key.strip_prefix(NAMESPACE).and_then(|key| key.strip_prefix('/')).unwrap_or(key)
}

fn value(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.chars().take(120).collect()
}

fn changes(changes: &[Change]) -> String {
    let one = |change: &Change| match change {
        Change::Put(entry) => {
            let lease = entry.lease.map_or_else(String::new, |lease| format!(" under {lease}"));
            format!("{}{lease} = {}", short(&entry.key), value(&entry.value))
        }
        Change::Delete(key) => format!("{} deleted", short(key)),
    };
    changes.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Describes a revision and its origin.
pub(super) fn batch(batch: &Batch, by: By, processes: &[Process]) -> String {
    let by = match by {
        By::Node { process, purpose: Some(purpose), .. } => {
            format!("{} by {}", purpose, processes[process].name)
        }
        By::Node { process, .. } => format!("revoke by {}", processes[process].name),
        By::Time => "expiry".to_owned(),
        By::Hand => "by hand".to_owned(),
    };
    format!("@{} {by}: {}", batch.revision, changes(&batch.changes))
}

fn result<T>(result: &Result<T, StoreError>, good: impl FnOnce(&T) -> String) -> String {
    match result {
        Ok(value) => good(value),
        Err(error) => error.to_string(),
    }
}

/// Describes an input of a machine.
pub(crate) fn input(input: &Input) -> String {
    match input {
        Input::Tick => "◀ tick".to_owned(),
        Input::Granted { result: granted, .. } => {
            format!("◀ granted: {}", result(granted, |lease| format!("lease {}", lease.id)))
        }
        Input::Renewed { result: renewed, .. } => {
            format!("◀ renewed: {}", result(renewed, |left| format!("{left:?} left")))
        }
        Input::Revoked { result: revoked, .. } => {
            format!("◀ revoked: {}", result(revoked, |()| "done".to_owned()))
        }
        Input::Read { result: read, .. } => {
            let keys = |snapshot: &clustering_core::store::Snapshot| {
                let keys: Vec<_> = snapshot.entries.iter().map(|entry| short(&entry.key)).collect();
                format!("@{} {}", snapshot.revision, keys.join(", "))
            };
            format!("◀ read: {}", result(read, keys))
        }
        Input::WatchOpened { token, result: opened } => {
            format!("◀ watch {token}: {}", result(opened, |()| "open".to_owned()))
        }
        Input::Batch { token, batch } => {
            format!("◀ watch {token} @{}: {}", batch.revision, changes(&batch.changes))
        }
        Input::Batches { token, batches } => {
            let batches =
                batches.iter().map(|batch| format!("@{}: {}", batch.revision, changes(&batch.changes)));
            format!("◀ watch {token} {}", batches.collect::<Vec<_>>().join(" "))
        }
        Input::WatchEnded { token, end } => format!("◀ watch {token} ended: {end}"),
        Input::Committed { token, result: committed } => {
            format!("◀ commit {token}: {}", result(committed, |revision| format!("done @{revision}")))
        }
        Input::Stabilized { outcome, .. } => format!("◀ stabilize ended: {outcome:?}"),
        Input::Announced { result, .. } => format!("◀ on_stable ended: {result:?}"),
        other => format!("◀ {other:?}"),
    }
}

fn txn(txn: &Txn) -> String {
    let mut line = String::new();
    for guard in txn.guards() {
        // Writing to a string cannot fail.
        let _ = match guard {
            Guard::CreatedAt(key, Revision::ZERO) | Guard::ModifiedAt(key, Revision::ZERO) => {
                write!(line, " if {} absent", short(key))
            }
            Guard::CreatedAt(key, at) => write!(line, " if {} created @{at}", short(key)),
            Guard::ModifiedAt(key, at) => write!(line, " if {} @{at}", short(key)),
        };
    }
    for operation in txn.operations() {
        let _ = match operation {
            Operation::Put { key, lease, .. } => {
                let lease = lease.map_or_else(String::new, |lease| format!(" under {lease}"));
                write!(line, " put {}{lease}", short(key))
            }
            Operation::Delete { key } => write!(line, " delete {}", short(key)),
        };
    }
    line
}

/// Describes an output of a machine.
pub(crate) fn output(output: &Output) -> Option<String> {
    Some(match output {
        Output::Grant { ttl, .. } => format!("▶ grant {ttl:?}"),
        Output::Renew { lease, .. } => format!("▶ renew lease {lease}"),
        Output::Revoke { lease, .. } => format!("▶ revoke lease {lease}"),
        Output::Read { prefix, .. } => format!("▶ read {}", short(prefix)),
        Output::Watch { token, prefix, after, .. } => {
            format!("▶ watch {token} {} after {after}", short(prefix))
        }
        Output::Unwatch { token } => format!("▶ drop watch {token}"),
        Output::Commit { token, txn: what, purpose, .. } => {
            format!("▶ commit {token} {purpose}:{}", txn(what))
        }
        Output::Stabilize { view, attempt, .. } => format!("▶ stabilize {view:?}, attempt {attempt}"),
        Output::Retract { token, slots } => format!("▶ retract {token} {slots}"),
        Output::Release { slots, attempt, .. } => format!("▶ release {slots}, attempt {attempt}"),
        Output::Announce { view, term, .. } => format!("▶ on_stable {}, term {term}", view.version()),
        Output::CheckHealth { token } => format!("▶ check health {token}"),
        Output::Supersede { token } => format!("▶ supersede {token}"),
        Output::Abort { token, reason } => format!("▶ abort {token}: {reason}"),
        Output::WatchProcesses { endpoints } => {
            let addresses: Vec<&str> = endpoints.iter().map(|endpoint| &*endpoint.address).collect();
            format!("▶ watch processes at {}", addresses.join(" "))
        }
        Output::Event(event) => format!("• {event}"),
        Output::Reply { id, reply } => format!("▶ answer {}: {reply:?}", id.0),
        Output::Stopped { reason } => format!("▶ stopped: {reason}"),
    })
}
