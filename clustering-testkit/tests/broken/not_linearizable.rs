//! Stores that are not linearizable. The judge of random histories must find each of them within a few seeds.

use clustering_testkit::{
    conformance::Harness,
    linearizability::{Plan, play},
};

use super::broken::{Bend, BentHarness, commits, reads};

/// Number of seeds to try.
const SEEDS: u64 = 20;

/// Returns the error for the first history that the judge rejects.
fn found<B: Bend>() -> String {
    for seed in 0..SEEDS {
        let judged = async {
            let harness = BentHarness::<B>::default();
            play(&Plan { seed, ..Plan::default() }, async |_| harness.open().await).await.judge()
        };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        if let Err(why) = runtime.block_on(judged) {
            return why.to_string();
        }
    }
    panic!("not rejected within {SEEDS} seeds");
}

macro_rules! not_linearizable {
    ($($test:ident: $store:ty, $says:literal;)*) => {$(
        #[test]
        fn $test() {
            let why = found::<$store>();
            assert!(why.starts_with(concat!("not linearizable: ", $says)), "{why}");
        }
    )*};
}

not_linearizable! {
    ignores_the_last_guard: commits::IgnoresTheLastGuard, "CreatedAt(";
    checks_then_acts: commits::ChecksThenActs, "CreatedAt(";
    compares_then_swaps: commits::ComparesThenSwaps, "ModifiedAt(";
    applies_one_by_one: commits::AppliesOneByOne, "the entries at that revision were";
    reads_a_replica: reads::ReadsAReplica, "it was answered before the start of";
    caches_reads: reads::CachesReads, "it was answered before the start of";
    tears_reads: reads::TearsReads, "the entries at that revision were";
    created_at_means_modified_at: commits::CreatedAtMeansModifiedAt, "its guards held";
    revisions_go_back: commits::RevisionsGoBack, "it changed something without a revision above";
    answers_with_the_latest_revision: commits::AnswersWithTheLatestRevision, "its guards held";
}
