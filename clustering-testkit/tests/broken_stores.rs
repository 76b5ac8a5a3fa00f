//! The suite bites: each of these stores breaks one rule, and that rule's check says so.
//!
//! Every line names a store, and words from what the check of its rule must say of it: so it is seen to fail for the
//! reason that it was made for.

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
        ignores_the_last_guard: IgnoresTheLastGuard, "GuardFailed for Absent of a key that is there";
        created_at_means_modified_at: CreatedAtMeansModifiedAt, "CreatedAt(\"";
        modified_at_means_created_at: ModifiedAtMeansCreatedAt, "ModifiedAt(\"";
        absent_keys_match_anything: AbsentKeysMatchAnything, "GuardFailed for ModifiedAt of an absent key";
        applies_one_by_one: AppliesOneByOne, "16 operations shows as a whole";
        checks_then_acts: ChecksThenActs, "exactly one of 8 commits";
        compares_then_swaps: ComparesThenSwaps, "compare-and-swap loses no step";
        deletes_in_spite_of_guards: DeletesInSpiteOfGuards, "failed guards change nothing";
        revisions_go_back: RevisionsGoBack, "a revision after";
        answers_with_the_latest_revision: AnswersWithTheLatestRevision, "has a revision of its own";
        forgets_when_guards_failed: ForgetsWhenGuardsFailed, "the guards judged at revision";
        moves_for_nothing: MovesForNothing, "leaves the revision where it is";
        saves_equal_puts: SavesEqualPuts, "a put of the same value is a change";
        hears_of_revocations_late: HearsOfRevocationsLate, "a revocation is a commit among the others";
    }

    reads by rule_02_reads_see_one_revision {
        reads_a_replica: ReadsAReplica, "every field";
        caches_reads: CachesReads, "whose commit had finished";
        tears_reads: TearsReads, "both keys with the same number";
        tears_pages: TearsPages, "with 2,100 others between them";
        reads_one_page: ReadsOnePage, "2102 entries";
        drops_the_slash: DropsTheSlash, "shows keys that start with it";
        thinks_in_directories: ThinksInDirectories, "a read of";
        has_no_next_character: HasNoNextCharacter, "a/\\u{10ffff}\": 2 entries";
        sorts_by_letters: SortsByLetters, "in the order of their keys' bytes";
        guesses_the_revision: GuessesTheRevision, "whose commit had finished";
        hides_leases: HidesLeases, "every field";
        keeps_text: KeepsText, "every field";
    }

    watches by rule_03_watches_yield_every_change {
        skips_batches: SkipsBatches, "what followed";
        repeats_batches: RepeatsBatches, "which was asked for or sent already";
        splits_revisions: SplitsRevisions, "what followed";
        splits_large_revisions: SplitsLargeRevisions, "a hundred keys vanish with their lease";
        reorders: Reorders, "what followed";
        coalesces: Coalesces, "what followed";
        sends_the_latest_only: SendsTheLatestOnly, "what followed";
        hides_deletions: HidesDeletions, "what followed";
        sends_empty_batches: SendsEmptyBatches, "at least one change";
        sends_the_whole_revision: SendsTheWholeRevision, "keys that start with it";
        drops_the_slash: DropsTheSlash, "keys that start with it";
        begins_too_early: BeginsTooEarly, "which was asked for or sent already";
        has_no_past: HasNoPast, "delivers within";
        has_no_future: HasNoFuture, "delivers within";
        has_a_small_buffer: HasASmallBuffer, "1,100 changes";
        loses_what_is_not_awaited: LosesWhatIsNotAwaited, "what followed";
        tires_of_polls: TiresOfPolls, "a watch polled in a select loop";
        loses_the_seam: LosesTheSeam, "beside several writers";
        numbers_reads_late: NumbersReadsLate, "a snapshot and a watch from its revision give the state";
        ends_without_a_word: EndsWithoutAWord, "without a word";
        disconnects: Disconnects, "Disconnected";
        is_late: IsLate, "delivers within";
        forgets_creation: ForgetsCreation, "what followed";
        hides_leases: HidesLeases, "what followed";
        skips_over_compaction: SkipsOverCompaction, "ends with Compacted";
        skips_the_last_compacted_revision: SkipsTheLastCompactedRevision, "ends with Compacted";
        waits_over_compaction: WaitsOverCompaction, "ends with Compacted";
        names_the_revision_asked_for: NamesTheRevisionAskedFor, "names a revision after";
        has_no_end: HasNoEnd, "nothing after the end of a watch";
        waits_for_the_future: WaitsForTheFuture, "Rewound from a watch after";
        takes_the_future_for_now: TakesTheFutureForNow, "Rewound from a watch after";
        disconnects_from_the_future: DisconnectsFromTheFuture, "Rewound from a watch after";
        compacts_idle_watches: CompactsIdleWatches, "goes on over a compaction";
    }

    leases by rule_04_lease_keys_vanish_together {
        resurrects: Resurrects, "LeaseNotFound for a renewal of a lease that was revoked";
        keeps_a_key: KeepsAKey, "its 1 keys are gone";
        revokes_in_two: RevokesInTwo, "in one revision";
        revokes_later: RevokesLater, "are gone and the others stay";
        revokes_its_own_only: RevokesItsOwnOnly, "the revocation of a live lease succeeds";
        leases_die_with_their_handle: LeasesDieWithTheirHandle, "when everyone who knew it is gone";
        expires_early: ExpiresEarly, "early";
        expires_late: ExpiresLate, "expired without keys";
        puts_renew: PutsRenew, "within the stated slack";
        renews_nothing: RenewsNothing, "since the last grant or renewal was sent";
        renews_its_own_only: RenewsItsOwnOnly, "renewals keep a lease";
        grants_less: GrantsLess, "a lease of at least";
        expires_in_two: ExpiresInTwo, "together";
        expires_when_asked: ExpiresWhenAsked, "though nobody asks";
        reuses_ids: ReusesIds, "lease id that none";
        keeps_empty_leases: KeepsEmptyLeases, "expired without keys";
        leaves_orphans: LeavesOrphans, "nothing of a revoked lease, whoever put";
    }

    live_leases by rule_05_puts_need_a_live_lease {
        accepts_any_lease: AcceptsAnyLease, "LeaseNotFound for";
        takes_zero_for_none: TakesZeroForNone, "never was (0)";
        writes_the_rest: WritesTheRest, "nothing written by";
        writes_up_to_the_dead_lease: WritesUpToTheDeadLease, "nothing written by a commit whose operation 1 of 5";
        judges_the_first_lease: JudgesTheFirstLease, "LeaseNotFound for a commit whose operation 1 of 5";
        judges_leases_first: JudgesLeasesFirst, "GuardFailed where";
        accepts_expired_leases: AcceptsExpiredLeases, "expired without keys";
        refuses_late_puts: RefusesLatePuts, "LeaseNotFound only once the lease's keys have vanished";
        calls_dead_leases_invalid: CallsDeadLeasesInvalid, "failed with Invalid";
    }

    creation by rule_06_creation_revisions {
        creates_anew: CreatesAnew, "after overwrite 1";
        shows_the_last_put: ShowsTheLastPut, "after overwrite 1";
        remembers_the_first: RemembersTheFirst, "after it was created for time 1";
        judges_by_the_first: JudgesByTheFirst, "deleted and created again";
        remembers_through_leases: RemembersThroughLeases, "after its lease ended is a new key";
    }

    moves by rule_07_puts_move_and_detach {
        keeps_the_old_lease: KeepsTheOldLease, "under no lease";
        never_moves: NeverMoves, "put 1 of";
        goes_with_the_old_lease_too: GoesWithTheOldLeaseToo, "whose last put named another, or none";
        expires_with_the_old_lease_too: ExpiresWithTheOldLeaseToo, "when the leases expire";
        detaches_on_failure: DetachesOnFailure, "a failed commit moves nothing";
    }

    errors by rule_08_errors_tell_what_happened {
        calls_guards_busy: CallsGuardsBusy, "failed with Busy";
        is_never_sure: IsNeverSure, "failed with OutcomeUnknown";
        revokes_nothing: RevokesNothing, "the revocation of no lease";
        grants_zero: GrantsZero, "a lease with a TTL of zero";
        judges_sizes_last: JudgesSizesLast, "and a guard that fails";
        quotes_values: QuotesValues, "an error that shows no value";
        hangs_with_nobody_there: HangsWithNobodyThere, "was silent";
        sees_an_empty_store: SeesAnEmptyStore, "a read with nobody there";
        watches_nobody: WatchesNobody, "a watch with nobody there";
    }

    dropping by rule_09_dropping_frees {
        leaks_watches: LeaksWatches, "open watches, as before";
        never_forgets_a_watch: NeverForgetsAWatch, "a watch succeeds";
        drops_one_for_all: DropsOneForAll, "without a word";
        keeps_its_lock: KeepsItsLock, "an answer to a commit";
        stops_midway: StopsMidway, "both keys of dropped commit";
        applies_twice: AppliesTwice, "commit";
        breaks_with_a_read: BreaksWithARead, "a read succeeds";
    }

    sizes by rule_10_sizes {
        truncates_values: TruncatesValues, "65535 bytes";
        truncates_large_values: TruncatesLargeValues, "Invalid for a value of 64 KiB and a byte";
        refuses_large_values: RefusesLargeValues, "succeeds";
        drops_empty_values: DropsEmptyValues, "values and keys at the limits";
        refuses_long_keys: RefusesLongKeys, "succeeds";
        counts_characters: CountsCharacters, "in fewer characters";
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
        /// Random steps find these too, whichever rule they break.
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
    thinks_in_directories: reads::ThinksInDirectories;
    skips_batches: watches::SkipsBatches;
    splits_revisions: watches::SplitsRevisions;
    reorders: watches::Reorders;
    skips_over_compaction: watches::SkipsOverCompaction;
    waits_for_the_future: watches::WaitsForTheFuture;
    revokes_in_two: leases::RevokesInTwo;
    expires_in_two: leases::ExpiresInTwo;
    expires_early: leases::ExpiresEarly;
    expires_late: leases::ExpiresLate;
    resurrects: leases::Resurrects;
    reuses_ids: leases::ReusesIds;
    writes_the_rest: live_leases::WritesTheRest;
    judges_leases_first: live_leases::JudgesLeasesFirst;
    creates_anew: creation::CreatesAnew;
    remembers_the_first: creation::RemembersTheFirst;
    keeps_the_old_lease: moves::KeepsTheOldLease;
    never_moves: moves::NeverMoves;
    judges_sizes_last: errors::JudgesSizesLast;
    accepts_a_key_twice: sizes::AcceptsAKeyTwice;
}

/// A check that hangs, although the store answers, is ended and says so: no test of the suite runs for ever.
#[test]
fn a_check_that_hangs_is_ended() {
    let found = verdict::<right::Straight>("a_check", async |_| std::future::pending().await);
    let text = found.expect_err("a check that hangs does not pass");
    assert!(text.contains("a_check did not finish within"), "{text}");
}

/// The same wrapper without a fault passes, with all hooks: what rejects the others is what they do. So do stores that
/// are right in their own way.
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
        late_replies: LateReplies;
        busy: Busy;
        sweeps_now_and_then: SweepsNowAndThen;
    }
}
