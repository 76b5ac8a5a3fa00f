use clustering_core::{
    Keyspace, NodeName,
    machine::Purpose,
    store::{LeaseId, Operation, Revision, Txn},
};

use crate::sim::Store;

/// P5. A node ends no leadership but its own, except that taking a name over, or removing a crashed node, also ends
/// that node's leadership. An elected node is registered in the log, under the session that holds the leadership. P7.
/// A node that changes its record, or leaves, does not touch the record of another.
///
/// Checked against the store's state just before the commit. `knew` is the revision up to which the node had followed
/// the log when it sent the commit.
pub(in crate::sim) fn check(
    store: &Store,
    keys: &Keyspace,
    (name, purpose, txn): (&NodeName, Purpose, &Txn),
    knew: Revision,
    is_own: impl Fn(LeaseId) -> bool,
) -> Result<(), String> {
    let record = store.get(&keys.node_key(name));
    let stands_own = record.and_then(|entry| entry.lease).is_some_and(&is_own);
    let holds_name =
        |lease: Option<LeaseId>| lease.is_some() && record.and_then(|entry| entry.lease) == lease;
    let deletes =
        |operation: &Operation| matches!(operation, Operation::Delete { key } if key == keys.election_key());
    let ends_lead = txn.operations().iter().any(deletes);
    let leader = store.get(keys.election_key());
    match (purpose, leader) {
        (Purpose::Elect, _) if !stands_own => Err(format!(
            "P5, elected without a registration: {name} leads, but the record under its name is not its own"
        )),
        (Purpose::Rewrite, _) if !stands_own => Err(format!(
            "P7, foreign record overwritten: {name} rewrites its record, but the record is gone or belongs to another instance"
        )),
        (Purpose::Leave, _) if record.is_some() && !stands_own => Err(format!(
            "P7, foreign record deleted: {name} leaves and deletes the record of another instance"
        )),
        (Purpose::TakeOver, Some(leader))
            if !ends_lead && holds_name(leader.lease) && leader.modified <= knew =>
        {
            Err(format!(
                "P5, leadership left under a taken name: {name} is taken over, but its leadership does not end"
            ))
        }
        (_, Some(leader)) if ends_lead => {
            let may = leader.lease.is_some_and(&is_own)
                || purpose == Purpose::TakeOver && holds_name(leader.lease)
                || purpose == Purpose::RemoveCrashed && removes(store, keys, txn, leader.lease);
            match may {
                true => Ok(()),
                false => Err(format!(
                    "P5, leadership ended by another node: a commit of {name} ({purpose}) ends term {}",
                    leader.created
                )),
            }
        }
        _ => Ok(()),
    }
}

/// True if the commit deletes the record under that lease.
fn removes(store: &Store, keys: &Keyspace, txn: &Txn, lease: Option<LeaseId>) -> bool {
    let removes = |operation: &Operation| match operation {
        Operation::Delete { key } if key.starts_with(keys.nodes_prefix().as_str()) => {
            lease.is_some() && store.get(key).is_some_and(|record| record.lease == lease)
        }
        _ => false,
    };
    txn.operations().iter().any(removes)
}
