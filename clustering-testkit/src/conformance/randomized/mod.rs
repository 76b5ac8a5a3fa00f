mod game;
mod steps;

use std::{
    collections::hash_map::RandomState,
    env,
    hash::{BuildHasher, Hasher},
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngSeed, TestRunner},
};
use proptest_state_machine::ReferenceStateMachine;

use self::{
    game::Game,
    steps::{Made, Paused, Real, Step},
};
use super::{Clock, Harness};

/// How many random cases are run: 256 under a paused clock and 8 on a real one unless this variable says another number.
pub const CASES: &str = "CLUSTERING_CONFORMANCE_CASES";

/// The seed of the random cases. A failure names its own; setting this variable to it runs the same cases again.
pub const SEED: &str = "CLUSTERING_CONFORMANCE_SEED";

/// How many smaller cases are tried once one has failed, and for how long, whatever tokio's clock says.
const SHRINKING: (usize, Duration) = (500, Duration::from_secs(30));

/// Random steps on the store and on a model of the contract, side by side. After each step reply, state and what the
/// watches yielded must be the same in both.
///
/// Steps are grants, renewals and revocations, commits with guards that hold or fail and operations under live, dead
/// and unknown leases, reads, and watches that are opened from any point of the past, drained or dropped. Under
/// [`Clock::Paused`] time goes on between them, so that leases expire, and the history is compacted. A failing case is
/// made as small as possible before it is shown.
///
/// The variables [`CASES`] and [`SEED`] set how many cases there are, and which.
///
/// # Panics
///
/// If store and model differ; also if one of the variables is no number.
pub async fn randomized_against_the_model<H: Harness>(harness: &H) {
    let paused = harness.bounds().clock == Clock::Paused;
    let cases = number(CASES).unwrap_or(if paused { 256 } else { 8 });
    // The standard library's only source of entropy.
    let entropy = || RandomState::new().build_hasher().finish();
    let seed = number(SEED).unwrap_or_else(entropy);
    let config = Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    for case in 0..cases {
        let tree = match paused {
            true => Paused::sequential_strategy(5..60).new_tree(&mut runner),
            false => Real::sequential_strategy(5..60).new_tree(&mut runner),
        };
        let mut tree = tree.expect("a next step is always possible");
        let Err((mut violation, mut smallest)) = play(harness, tree.current()).await else { continue };
        let began = Instant::now();
        for _ in 0..SHRINKING.0 {
            if began.elapsed() > SHRINKING.1 || !tree.simplify() {
                break;
            }
            loop {
                match play(harness, tree.current()).await {
                    Err(smaller) => {
                        (violation, smallest) = smaller;
                        break;
                    }
                    Ok(()) if !tree.complicate() => break,
                    Ok(()) => {}
                }
            }
        }
        let steps: String = smallest.iter().map(|step| format!("    {step:?}\n")).collect();
        panic!(
            "{violation}  after the last of these steps (case {case} of {cases}; {SEED}={seed} runs it again):\n{steps}"
        );
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => panic!("{variable} must be a number, and is {text:?}: {error}"),
    }
}

/// Plays one case. The text of the violation, if there is one, and the case.
async fn play<H: Harness>(
    harness: &H,
    (_, steps, seen): (Made, Vec<Step>, Option<Arc<AtomicUsize>>),
) -> Result<(), (String, Vec<Step>)> {
    let playing = async {
        let mut game = Game::begin(harness).await;
        for step in &steps {
            if let Some(seen) = &seen {
                seen.fetch_add(1, Ordering::SeqCst);
            }
            game.step(step).await;
        }
        game.finish().await;
    };
    let Err(panic) = AssertUnwindSafe(playing).catch_unwind().await else { return Ok(()) };
    match panic.downcast::<String>() {
        Ok(text) => Err((*text, steps)),
        Err(panic) => resume_unwind(panic),
    }
}
