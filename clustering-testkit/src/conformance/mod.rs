//! Conformance suite for implementations of [`CoordinationStore`](clustering_core::store::CoordinationStore).
//!
//! The contract has ten rules, and everything above the store relies on those rules only. The suite has one check per
//! rule, named as in the trait's documentation, and [one check](randomized_against_the_model) that runs random steps
//! against the store and compares it with a model of the contract.
//!
//! # Testing a store
//!
//! Implement [`Harness`] and call [`conformance_tests!`](crate::conformance_tests) in an integration test. This
//! generates eleven tests:
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
//! Each check is also a plain function that panics if the store breaks the rule, so it can be run in other settings:
//! `conformance::rule_01_commits_are_atomic(&harness).await`.
//!
//! # Timing bounds
//!
//! The contract leaves some timings to the store but requires that the store document them. [`Bounds`] states these
//! documented timings, and the suite holds the store to them:
//!
//! - `expiry_slack`: under rule 4 no lease may end before its TTL has passed, and none may live longer than its TTL
//!   plus this slack.
//! - `watch_lag`: under rule 3 a watch may lag behind replies and reads, but by no more than this.
//! - `smallest_ttl` keeps the expiry checks as short as the store allows. `call_timeout` turns a hang into a failure.
//! - `clock` states if the tests can make time pass at once ([`Clock::Paused`]) or have to wait for it
//!   ([`Clock::Real`]).
//!
//! Three hooks are optional: a handle to a store that cannot be reached, a count of open watches, and a handle whose
//! connections can be made to go silent. If a hook is missing, the suite reports what it could not judge in a line
//! that starts with `NOT JUDGED`. It writes the line directly to standard error, so `cargo test` shows it even if the
//! test passes. `cargo nextest run` does with `--success-output final`. The compaction hook is mandatory, because a
//! store that silently skips compacted changes passes every other check.
//!
//! # Shared stores
//!
//! Every check works under its own unique key prefix and does not assume that it owns any revision. All checks,
//! including those of other programs, can therefore run concurrently against one server. The exception is rule 3, which
//! compacts the history for every client. Within a process it runs exclusively, so keep other tests that read past
//! revisions out of that integration test. If each test is its own process, as under `cargo nextest`, configure the
//! runner to do the same:
//!
//! ```toml
//! [[profile.default.overrides]]
//! filter = "test(rule_03_watches_yield_every_change)"
//! threads-required = "num-test-threads"
//! ```
//!
//! A check that passes deletes its keys. Its leases expire within minutes.
//!
//! # Coverage
//!
//! | check | in short |
//! |---|---|
//! | [`rule_01_commits_are_atomic`] | all-or-nothing commits; guard semantics; growing revisions; one winner per conflict |
//! | [`rule_02_reads_see_one_revision`] | finished commits are visible; keys written together stay together, with 2,100 keys between them; prefixes and order |
//! | [`rule_03_watches_yield_every_change`] | replay from every revision, whole revisions, prefixes, backlog, `Rewound`, `Compacted` |
//! | [`rule_04_lease_keys_vanish_together`] | revocation and expiry in one batch, neither early nor late; renewals; lease ids |
//! | [`rule_05_puts_need_a_live_lease`] | nothing is written under a dead lease; guards are checked first |
//! | [`rule_06_creation_revisions`] | keys overwritten, deleted and created again, or deleted with their lease |
//! | [`rule_07_puts_move_and_detach`] | moves between all combinations of leases, until both leases have ended |
//! | [`rule_08_errors_tell_what_happened`] | error kinds and their precedence, no values in error texts, an unreachable store |
//! | [`rule_09_dropping_frees`] | calls, commits, watches and tasks dropped midway; connections that went silent |
//! | [`rule_10_sizes`] | sizes at the limits, sizes beyond them, and large amounts of data |
//! | [`randomized_against_the_model`] | all of the above in random order ([`CASES`], [`SEED`]) |
//!
//! The testkit's own tests verify the suite: more than a hundred stores break one rule each and must be rejected by the
//! check of that rule, and several correct stores with unusual behaviour must pass every check.
//!
//! # Limitations
//!
//! The suite does not show:
//!
//! - that the store keeps the rules under faults: lost replies, crashes, partitions, failover. The suite runs against a
//!   healthy store, and in particular never provokes
//!   [`ErrorKind::OutcomeUnknown`](clustering_core::store::ErrorKind::OutcomeUnknown). The [fault suite](crate::faults)
//!   judges clusters on a store that fails;
//! - that commits are linearizable under every interleaving. It provokes the usual races and judges the outcomes that
//!   it observes;
//! - that lease ids are never reused and revisions never decrease over restarts and years of operation;
//! - resources that the store holds internally, and its performance.
mod harness;
mod mirrored;
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
    harness::{Bounds, Clock, Harness, Hook, Line},
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

/// Generates one test per check, named after the check, for the store behind the given [`Harness`] expression.
///
/// The expression is evaluated separately for each test, on that test's runtime (see [`run`](crate::conformance::run)
/// for how often). See [`conformance`](crate::conformance) for an example.
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
