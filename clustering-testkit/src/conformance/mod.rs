//! The conformance suite: does a store keep the contract of
//! [`CoordinationStore`](clustering_core::store::CoordinationStore)?
//!
//! The contract has ten rules, and everything above the store rests on them and on nothing else. The suite has one
//! check for each rule, under the name that the trait's documentation gives it, and one that plays random steps on the
//! store and on a [model](randomized_against_the_model) of the contract side by side.
//!
//! # For the author of a store
//!
//! Implement [`Harness`] and call [`conformance_tests!`](crate::conformance_tests) in an integration test. That makes
//! eleven named tests:
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! use clustering_core::store::{CoordinationStore, Revision};
//! use clustering_memory::MemoryStore;
//! use clustering_testkit::conformance::{Bounds, Clock, Harness};
//!
//! struct Memory(MemoryStore);
//!
//! impl Harness for Memory {
//!     fn bounds(&self) -> Bounds {
//!         Bounds {
//!             clock: Clock::Paused,
//!             smallest_ttl: Duration::from_secs(1),
//!             expiry_slack: Duration::from_millis(1),
//!             watch_lag: Duration::from_millis(1),
//!             call_timeout: Duration::from_secs(1),
//!         }
//!     }
//!     async fn open(&self) -> Arc<dyn CoordinationStore> {
//!         Arc::new(self.0.clone())
//!     }
//!     async fn compact(&self, revision: Revision) {
//!         self.0.compact(revision);
//!     }
//! }
//!
//! clustering_testkit::conformance_tests!(Memory(MemoryStore::new()));
//! # use clustering_testkit::conformance;
//! # conformance::run("rule_01_commits_are_atomic", || Memory(MemoryStore::new()), conformance::rule_01_commits_are_atomic);
//! ```
//!
//! The checks are plain functions too, which panic where the store breaks the rule, so that they can run under any
//! other circumstances: `conformance::rule_01_commits_are_atomic(&harness).await`.
//!
//! # What the author states
//!
//! The contract leaves some times to the store and demands that it says them. [`Bounds`] takes them from its
//! documentation, and the suite holds the store to them:
//!
//! - `expiry_slack`: rule 4 lets no lease end before its TTL, and none stand longer than TTL and slack.
//! - `watch_lag`: rule 3 lets a watch lag behind replies and reads, and no longer than this.
//! - `smallest_ttl` makes the checks of expiry as short as the store allows; `call_timeout` turns a hang into a
//!   failure.
//! - `clock`: whether time can be made to pass at once ([`Clock::Paused`]) or passes by itself.
//!
//! Two hooks are optional: a handle that leads nowhere, and a count of open watches. What the suite cannot judge
//! without them it names on standard error, past the capture of the test runner, beginning with `NOT JUDGED`. How to
//! make the store forget its history is not optional: a store that skips over the gap passes everything else.
//!
//! # Stores that are shared
//!
//! Every check works under a prefix that no other has, and takes no revision for its own, so all checks, also those of
//! other programs, can run at the same time against one server. One exception: rule 3 compacts, for everybody. Within
//! the process it therefore runs alone among the checks; keep other tests that read the past out of that integration
//! test. Where each test is a process, as under `cargo nextest`, have the runner do the same:
//!
//! ```toml
//! [[profile.default.overrides]]
//! filter = "test(rule_03_watches_yield_every_change)"
//! threads-required = "num-test-threads"
//! ```
//!
//! A check that passes deletes its keys; its leases end by themselves within minutes.
//!
//! # What the checks check
//!
//! | check | in short |
//! |---|---|
//! | [`rule_01_commits_are_atomic`] | all or nothing; what guards mean; revisions that grow; one winner |
//! | [`rule_02_reads_see_one_revision`] | finished commits show; lockstep keys stay together over 2,000 others; prefixes and order |
//! | [`rule_03_watches_yield_every_change`] | replay from every revision, whole revisions, prefixes, backlog, `Rewound`, `Compacted` |
//! | [`rule_04_lease_keys_vanish_together`] | revocation and expiry in one batch, not early, not late; renewals; ids |
//! | [`rule_05_puts_need_a_live_lease`] | nothing is written under a dead lease; guards come first |
//! | [`rule_06_creation_revisions`] | overwritten, deleted and created again, ended with its lease |
//! | [`rule_07_puts_move_and_detach`] | from every lease to every other, to the end of both |
//! | [`rule_08_errors_tell_what_happened`] | kinds, their order, no values in texts, nobody there |
//! | [`rule_09_dropping_frees`] | calls, commits, watches and tasks dropped midway |
//! | [`rule_10_sizes`] | at the limits, beyond them, and much at once |
//! | [`randomized_against_the_model`] | all of it, in random order ([`CASES`], [`SEED`]) |
//!
//! That the checks find what they look for is tested too: the testkit's own tests have more than a hundred stores that
//! break one rule each, which that rule's check must reject, and some that are right in unusual ways, which all must
//! accept.
//!
//! # What the suite cannot show
//!
//! - That the store keeps the rules through faults: lost replies, crashes, partitions, failover. It runs against a
//!   store in good health. [`ErrorKind::OutcomeUnknown`](clustering_core::store::ErrorKind::OutcomeUnknown) in
//!   particular is never provoked.
//! - That commits are linearizable under every interleaving. It provokes the usual races and judges what it sees.
//! - That lease ids are never used again, and revisions never decrease, over restarts and years.
//! - What the store holds on to unseen, and how fast it is.
mod harness;
mod model;
mod randomized;
mod report;
mod rule_01;
mod rule_02;
mod rule_03;
mod rule_04;
mod rule_05;
mod rule_06;
mod rule_07;
mod rule_08;
mod rule_09;
mod rule_10;
mod run;
mod scene;
mod site;
mod tasks;
mod watch;

pub use self::{
    harness::{Bounds, Clock, Harness, Hook},
    randomized::{CASES, SEED, randomized_against_the_model},
    rule_01::rule_01_commits_are_atomic,
    rule_02::rule_02_reads_see_one_revision,
    rule_03::rule_03_watches_yield_every_change,
    rule_04::rule_04_lease_keys_vanish_together,
    rule_05::rule_05_puts_need_a_live_lease,
    rule_06::rule_06_creation_revisions,
    rule_07::rule_07_puts_move_and_detach,
    rule_08::rule_08_errors_tell_what_happened,
    rule_09::rule_09_dropping_frees,
    rule_10::rule_10_sizes,
    run::run,
};

/// Makes a test of each check, under the check's own name, for the store that the expression's [`Harness`] leads to.
///
/// The expression is evaluated anew for each test, on that test's runtime ([`run`](crate::conformance::run) says how
/// often). See [`conformance`](crate::conformance).
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr $(,)?) => {
        $crate::conformance_tests! {
            @each $harness;
            rule_01_commits_are_atomic
            rule_02_reads_see_one_revision
            rule_03_watches_yield_every_change
            rule_04_lease_keys_vanish_together
            rule_05_puts_need_a_live_lease
            rule_06_creation_revisions
            rule_07_puts_move_and_detach
            rule_08_errors_tell_what_happened
            rule_09_dropping_frees
            rule_10_sizes
            randomized_against_the_model
        }
    };
    (@each $harness:expr; $($check:ident)*) => {$(
        #[test]
        fn $check() {
            $crate::conformance::run(stringify!($check), || $harness, $crate::conformance::$check);
        }
    )*};
}
