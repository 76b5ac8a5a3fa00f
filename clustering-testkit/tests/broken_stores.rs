//! Tests of the conformance suite: each of these stores breaks one rule, and that rule's check must reject it.
//!
//! Every line names a store and a part of the expected message, which shows that the check fails for the intended
//! reason.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[path = "broken/mod.rs"]
mod broken;
#[path = "broken/not_linearizable.rs"]
mod not_linearizable;

use broken::{BentHarness, number, right, verdict};
use clustering_testkit::conformance;

macro_rules! rejected {
    ($($module:ident by $check:ident { $($test:ident: $store:ident, $says:literal;)* })*) => {$(
        mod $module {
            use super::*;

            $(#[test]
            fn $test() {
                let check = stringify!($check);
                let found = verdict::<broken::$module::$store>(check, conformance::$check);
                let text = found.expect_err("the suite rejects a store that breaks a rule");
                let rule = format!("contract rule {} is broken", number(check));
                assert!(text.starts_with(&rule), "{check} found something else:\n{text}");
                assert!(text.contains($says), "{check} says nothing of {:?}:\n{text}", $says);
            })*
        }
    )*};
}

rejected! {
    commits by rule_01_commits_are_atomic {
        ignores_the_last_guard: IgnoresTheLastGuard, "GuardFailed for Absent of an existing key";
        created_at_means_modified_at: CreatedAtMeansModifiedAt, "CreatedAt(\"";
        modified_at_means_created_at: ModifiedAtMeansCreatedAt, "ModifiedAt(\"";
        absent_keys_match_anything: AbsentKeysMatchAnything, "GuardFailed for ModifiedAt of an absent key";
        applies_one_by_one: AppliesOneByOne, "16 operations becomes visible as a whole";
        checks_then_acts: ChecksThenActs, "exactly one of 8 commits";
        compares_then_swaps: ComparesThenSwaps, "compare-and-swap loses no update";
        deletes_despite_guards: DeletesDespiteGuards, "no change from commits with failed guards";
        revisions_go_back: RevisionsGoBack, "a revision after";
        answers_with_the_latest_revision: AnswersWithTheLatestRevision, "has its own revision";
        reports_guards_at_revision_zero: ReportsGuardsAtRevisionZero, "the guards judged at revision";
        advances_without_change: AdvancesWithoutChange, "does not advance the revision";
        skips_equal_puts: SkipsEqualPuts, "a put of the same value is a change";
        holds_a_guard_after_revocation: HoldsAGuardAfterRevocation, "a revocation is ordered like a commit";
    }

    reads by rule_02_reads_see_one_revision {
        reads_a_replica: ReadsAReplica, "every field";
        caches_reads: CachesReads, "whose commit had finished";
        tears_reads: TearsReads, "both keys with the same number";
        tears_pages: TearsPages, "with 2,100 others between them";
        reads_one_page: ReadsOnePage, "2102 entries";
        drops_the_slash: DropsTheSlash, "only keys with that prefix";
        treats_prefixes_as_directories: TreatsPrefixesAsDirectories, "a read of";
        has_no_next_character: HasNoNextCharacter, "a/\\u{10ffff}\": 2 entries";
        sorts_by_letters: SortsByLetters, "sorted by the bytes of their keys";
        guesses_the_revision: GuessesTheRevision, "whose commit had finished";
        hides_leases: HidesLeases, "every field";
        treats_values_as_text: TreatsValuesAsText, "every field";
    }

    watches by rule_03_watches_yield_every_change {
        skips_batches: SkipsBatches, "the changes that followed";
        repeats_batches: RepeatsBatches, "excluded or already sent";
        splits_revisions: SplitsRevisions, "the changes that followed";
        splits_large_revisions: SplitsLargeRevisions, "a hundred keys vanish with their lease";
        reorders: Reorders, "the changes that followed";
        coalesces: Coalesces, "the changes that followed";
        sends_the_latest_only: SendsTheLatestOnly, "the changes that followed";
        hides_deletions: HidesDeletions, "the changes that followed";
        sends_empty_batches: SendsEmptyBatches, "at least one change";
        sends_the_whole_revision: SendsTheWholeRevision, "keys with that prefix";
        drops_the_slash: DropsTheSlash, "keys with that prefix";
        begins_too_early: BeginsTooEarly, "excluded or already sent";
        has_no_past: HasNoPast, "delivers within";
        has_no_future: HasNoFuture, "delivers within";
        has_a_small_buffer: HasASmallBuffer, "1,100 changes";
        loses_batches_during_polls: LosesBatchesDuringPolls, "the changes that followed";
        loses_a_batch_after_idle_polls: LosesABatchAfterIdlePolls, "a watch polled in a select loop";
        loses_changes_after_the_replay: LosesChangesAfterTheReplay, "with concurrent writers";
        numbers_reads_late: NumbersReadsLate, "a snapshot and a watch from its revision give the state";
        ends_silently: EndsSilently, "without a final item";
        disconnects: Disconnects, "Disconnected";
        is_late: IsLate, "delivers within";
        forgets_creation: ForgetsCreation, "the changes that followed";
        hides_leases: HidesLeases, "the changes that followed";
        skips_over_compaction: SkipsOverCompaction, "ends with Compacted";
        skips_the_last_compacted_revision: SkipsTheLastCompactedRevision, "ends with Compacted";
        forgets_lagging_watches: ForgetsLaggingWatches, "that is behind a compaction skips no change";
        waits_over_compaction: WaitsOverCompaction, "ends with Compacted";
        names_the_revision_asked_for: NamesTheRevisionAskedFor, "names a revision after";
        sends_items_after_its_end: SendsItemsAfterItsEnd, "nothing after the end of a watch";
        waits_for_the_future: WaitsForTheFuture, "Rewound from a watch after";
        starts_now_instead_of_later: StartsNowInsteadOfLater, "Rewound from a watch after";
        disconnects_from_the_future: DisconnectsFromTheFuture, "Rewound from a watch after";
        compacts_idle_watches: CompactsIdleWatches, "continues after a compaction";
        compacts_quiet_watches: CompactsQuietWatches, "after the compaction, while its prefix is quiet";
    }

    leases by rule_04_lease_keys_vanish_together {
        renews_ended_leases: RenewsEndedLeases, "LeaseNotFound for a renewal of a lease that was revoked";
        keeps_a_key: KeepsAKey, "its 1 keys are gone";
        revokes_in_two: RevokesInTwo, "in one revision";
        revokes_later: RevokesLater, "are gone and the others stay";
        revokes_its_own_only: RevokesItsOwnOnly, "the revocation of a live lease succeeds";
        leases_die_with_their_handle: LeasesDieWithTheirHandle, "after every handle that used it was dropped";
        expires_early: ExpiresEarly, "early";
        expires_late: ExpiresLate, "expired without keys";
        puts_renew: PutsRenew, "no later than the TTL and the stated slack";
        renews_nothing: RenewsNothing, "since the last grant or renewal was sent";
        renews_its_own_only: RenewsItsOwnOnly, "a lease lives while it is renewed";
        grants_less: GrantsLess, "a lease of at least";
        expires_in_two: ExpiresInTwo, "together";
        expires_only_during_calls: ExpiresOnlyDuringCalls, "without any other call";
        reuses_ids: ReusesIds, "a lease id that differs";
        keeps_empty_leases: KeepsEmptyLeases, "expired without keys";
        refuses_long_ttls: RefusesLongTtls, "a grant succeeds";
        leaves_orphans: LeavesOrphans, "no key of a revoked lease after concurrent puts";
    }

    live_leases by rule_05_puts_need_a_live_lease {
        accepts_any_lease: AcceptsAnyLease, "LeaseNotFound for";
        treats_lease_zero_as_none: TreatsLeaseZeroAsNone, "never existed (0)";
        writes_the_rest: WritesTheRest, "nothing written by";
        writes_up_to_the_dead_lease: WritesUpToTheDeadLease, "nothing written by a commit whose operation 1 of 5";
        judges_the_first_lease: JudgesTheFirstLease, "LeaseNotFound for a commit whose operation 1 of 5";
        judges_leases_first: JudgesLeasesFirst, "GuardFailed for a commit whose guard";
        accepts_expired_leases: AcceptsExpiredLeases, "expired without keys";
        refuses_late_puts: RefusesLatePuts, "LeaseNotFound only once the lease's keys have vanished";
        reports_dead_leases_as_invalid: ReportsDeadLeasesAsInvalid, "failed with Invalid";
    }

    creation by rule_06_creation_revisions {
        recreates_overwritten_keys: RecreatesOverwrittenKeys, "after overwrite 1";
        shows_the_last_put: ShowsTheLastPut, "after overwrite 1";
        remembers_the_first: RemembersTheFirst, "after creation 1";
        judges_by_the_first: JudgesByTheFirst, "deleted and created again";
        remembers_through_leases: RemembersThroughLeases, "after its lease ended is a new key";
    }

    moves by rule_07_puts_move_and_detach {
        keeps_the_old_lease: KeepsTheOldLease, "under no lease";
        never_moves: NeverMoves, "as in its last put";
        deletes_with_the_old_lease_too: DeletesWithTheOldLeaseToo, "whose last put named no ended lease";
        expires_with_the_old_lease_too: ExpiresWithTheOldLeaseToo, "when the leases expire";
        detaches_on_failure: DetachesOnFailure, "a failed commit moves nothing";
    }

    errors by rule_08_errors_tell_what_happened {
        reports_failed_guards_as_busy: ReportsFailedGuardsAsBusy, "failed with Busy";
        reports_invalid_as_unknown: ReportsInvalidAsUnknown, "failed with OutcomeUnknown";
        revokes_missing_leases: RevokesMissingLeases, "the revocation of a lease that does not exist";
        grants_zero: GrantsZero, "a lease with a TTL of zero";
        judges_sizes_last: JudgesSizesLast, "and a guard that fails";
        quotes_values: QuotesValues, "an error that shows no value";
        hangs_when_unreachable: HangsWhenUnreachable, "did not answer within";
        sees_an_empty_store: SeesAnEmptyStore, "a read on an unreachable store";
        watches_when_unreachable: WatchesWhenUnreachable, "a watch on an unreachable store";
    }

    dropping by rule_09_dropping_frees {
        leaks_watches: LeaksWatches, "open watches, the count before";
        never_forgets_a_watch: NeverForgetsAWatch, "a watch succeeds";
        ends_all_watches_with_one: EndsAllWatchesWithOne, "without a final item";
        keeps_its_lock: KeepsItsLock, "an answer to a commit";
        stops_midway: StopsMidway, "both keys of dropped commit";
        applies_twice: AppliesTwice, "commit";
        leaves_transactions_open: LeavesTransactionsOpen, "an answer to a commit after another handle dropped a commit";
        ends_watches_with_their_handle: EndsWatchesWithTheirHandle, "after the handle of the watch was dropped";
        keeps_silent_connections: KeepsSilentConnections, "after connections went silent, to callers that wait for";
        leaves_watches_silent: LeavesWatchesSilent, "a change made after the watch's connection went silent";
        breaks_with_a_read: BreaksWithARead, "a read succeeds";
    }

    sizes by rule_10_sizes {
        truncates_values: TruncatesValues, "65535 bytes";
        truncates_large_values: TruncatesLargeValues, "Invalid for a value of 64 KiB + 1 byte";
        refuses_large_values: RefusesLargeValues, "succeeds";
        drops_empty_values: DropsEmptyValues, "values and keys at the limits";
        refuses_long_keys: RefusesLongKeys, "succeeds";
        counts_characters: CountsCharacters, "with fewer characters";
        refuses_many_guards: RefusesManyGuards, "succeeds";
        accepts_many_guards: AcceptsManyGuards, "Invalid for 17 guards";
        accepts_many_operations: AcceptsManyOperations, "Invalid for 17 puts";
        accepts_a_key_twice: AcceptsAKeyTwice, "Invalid for two puts of one key";
        writes_what_is_valid: WritesWhatIsValid, "nothing written by";
        refuses_large_reads: RefusesLargeReads, "a read succeeds";
    }

}

macro_rules! rejected_by_the_model {
    ($($test:ident: $module:ident::$store:ident;)*) => {
        /// Random steps must also find these stores, regardless of the rule that they break.
        mod random_steps {
            use super::*;

            $(#[test]
            fn $test() {
                let check = conformance::randomized_against_the_model;
                let found = verdict::<broken::$module::$store>("randomized_against_the_model", check);
                let text = found.expect_err("random steps find a store that breaks a rule");
                assert!(text.contains("is broken ("), "something else was found:\n{text}");
                assert!(text.contains(conformance::SEED), "the seed is missing:\n{text}");
            })*
        }
    };
}

rejected_by_the_model! {
    ignores_the_last_guard: commits::IgnoresTheLastGuard;
    created_at_means_modified_at: commits::CreatedAtMeansModifiedAt;
    absent_keys_match_anything: commits::AbsentKeysMatchAnything;
    applies_one_by_one: commits::AppliesOneByOne;
    reads_a_replica: reads::ReadsAReplica;
    treats_prefixes_as_directories: reads::TreatsPrefixesAsDirectories;
    skips_batches: watches::SkipsBatches;
    splits_revisions: watches::SplitsRevisions;
    reorders: watches::Reorders;
    skips_over_compaction: watches::SkipsOverCompaction;
    waits_for_the_future: watches::WaitsForTheFuture;
    revokes_in_two: leases::RevokesInTwo;
    expires_in_two: leases::ExpiresInTwo;
    expires_early: leases::ExpiresEarly;
    expires_late: leases::ExpiresLate;
    renews_ended_leases: leases::RenewsEndedLeases;
    reuses_ids: leases::ReusesIds;
    writes_the_rest: live_leases::WritesTheRest;
    judges_leases_first: live_leases::JudgesLeasesFirst;
    recreates_overwritten_keys: creation::RecreatesOverwrittenKeys;
    remembers_the_first: creation::RemembersTheFirst;
    keeps_the_old_lease: moves::KeepsTheOldLease;
    never_moves: moves::NeverMoves;
    judges_sizes_last: errors::JudgesSizesLast;
    accepts_a_key_twice: sizes::AcceptsAKeyTwice;
}

/// A check that hangs while the store still answers is ended and reported, so no test of the suite runs forever.
#[test]
fn a_check_that_hangs_is_ended() {
    let found = verdict::<right::Straight>("a_check", async |_| std::future::pending().await);
    let text = found.expect_err("a check that hangs does not pass");
    assert!(text.contains("a_check did not finish within"), "{text}");
}

/// The same wrapper without a fault must pass with all hooks, which shows that the others are rejected for their
/// faults. Correct stores with unusual behaviour must pass too.
mod accepted {
    use super::*;

    macro_rules! accepted {
        ($($module:ident: $store:ident;)*) => {$(
            mod $module {
                use super::*;
                clustering_testkit::conformance_tests!(BentHarness::<right::$store>::default());
            }
        )*};
    }

    accepted! {
        straight: Straight;
        late_watches: LateWatches;
        slow_watches: SlowWatches;
        late_replies: LateReplies;
        replaces_silent_connections: ReplacesSilentConnections;
        busy: Busy;
        sweeps_twice_a_second: SweepsTwiceASecond;
    }
}
