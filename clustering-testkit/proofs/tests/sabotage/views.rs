//! Faults that make views differ from the log, or versions go back.

use clustering_core::{
    Version,
    machine::{Input, Output, Purpose},
    store::Change,
    version::IdGenerator,
};
use clustering_proofs::sim::{Seat, Tamper};
use serde_json::{Value, json};

use crate::{
    found,
    tampers::{MomentaryList, commits},
    version,
};

#[test]
fn p1_the_local_node_list_as_the_view_is_found() {
    found(|| MomentaryList, &["P1"]);
}

/// Occasionally misses a change of a node's record, like a watch that skips changes.
#[derive(Default)]
struct Skips(u32);

impl Tamper for Skips {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        let Input::Batch { token, batch } = input else { return vec![input] };
        let of_a_node = |change: &Change| change.key().starts_with("c/view/nodes/");
        self.0 += u32::from(batch.changes.iter().any(of_a_node));
        if self.0 < 40 || !batch.changes.iter().any(of_a_node) {
            return vec![Input::Batch { token, batch }];
        }
        self.0 = 0;
        let heard = batch.filtered(|change| !of_a_node(change));
        heard.map(|batch| Input::Batch { token, batch }).into_iter().collect()
    }
}

#[test]
fn p1_a_watch_that_skips_changes_is_found() {
    found(Skips::default, &["P1"]);
}

/// Generates versions from the wall clock alone, which differs from node to node, and ignores versions that seem older
/// than the last one.
#[derive(Default)]
struct ByWallClock {
    seen: std::collections::BTreeMap<(usize, u32), Version>,
}

impl Tamper for ByWallClock {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        let Output::Commit { purpose: purpose @ (Purpose::Elect | Purpose::Publish), .. } = output else {
            return vec![output];
        };
        let wall = 1_700_000_000_000 + seat.node as u64 * 3_600_000;
        let seed = u128::from(seat.now.as_nanos());
        let minted =
            IdGenerator::new(wall, clustering_core::time::Timestamp::ZERO, seed).version(seat.now, None);
        commits::change(output, purpose, |txn| {
            commits::rewrite(txn, |key, value| {
                let mut record: Value = serde_json::from_slice(value).ok()?;
                let is_version = key.as_str() == "c/view/version";
                record["version"] = json!(minted.to_string());
                is_version.then(|| record.to_string().into_bytes())
            })
        })
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        let Input::Batch { token, batch } = input else { return vec![input] };
        let seen = self.seen.entry((seat.node, seat.life)).or_insert(Version::from_u128(0));
        let heard = batch.filtered(|change| match change {
            Change::Put(entry) if entry.key.as_str() == "c/view/version" => {
                let newer = version(&entry.value).is_some_and(|version| version > *seen);
                *seen = version(&entry.value).unwrap_or(*seen).max(*seen);
                newer
            }
            _ => true,
        });
        heard.map(|batch| Input::Batch { token, batch }).into_iter().collect()
    }
}

/// Reports all nodes whose session ended as nodes that left gracefully.
struct ReportsEndedSessionsAsLeft;

impl Tamper for ReportsEndedSessionsAsLeft {
    fn output(&mut self, _: &Seat<'_>, output: Output) -> Vec<Output> {
        let Output::Commit { purpose: purpose @ (Purpose::Elect | Purpose::Publish), .. } = output else {
            return vec![output];
        };
        commits::change(output, purpose, |txn| {
            commits::rewrite(txn, |key, value| {
                let text = std::str::from_utf8(value).ok()?;
                let is_version = key.as_str() == "c/view/version";
                is_version.then(|| text.replace("\"ended\"", "\"left\"").into_bytes())
            })
        })
    }
}

#[test]
fn a_false_cause_of_a_version_is_found() {
    found(|| ReportsEndedSessionsAsLeft, &["false cause"]);
}

#[test]
fn p2_versions_from_the_wall_clock_are_found() {
    found(ByWallClock::default, &["P2"]);
}
