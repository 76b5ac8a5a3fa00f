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

/// Environment variable with the number of random cases. The default is 256 under a paused clock and 8 on a real one.
pub const CASES: &str = "CLUSTERING_CONFORMANCE_CASES";

/// Environment variable with the seed of the random cases. A failure reports its seed, and setting the variable to that
/// seed runs the same cases again.
pub const SEED: &str = "CLUSTERING_CONFORMANCE_SEED";

/// Limits on shrinking a failed case: the number of smaller cases to try, and the real time to spend on them.
const SHRINKING: (usize, Duration) = (500, Duration::from_secs(30));

/// Runs random steps against the store and a model of the contract. After each step the reply, the state and the output
/// of the watches must be equal in both.
///
/// Steps are grants, renewals and revocations; commits with guards that hold or fail and puts under live, dead and
/// unknown leases; reads; and watches, which are opened from any point of the past, drained and dropped. Under
/// [`Clock::Paused`] there are also steps that let time pass, so that leases expire, and steps that compact the
/// history. A failing case is shrunk before it is reported.
///
/// The environment variables [`CASES`] and [`SEED`] set the number of cases and the seed.
///
/// # Panics
///
/// Panics if the store and the model differ, or if one of the environment variables is not a number.
pub async fn randomized_against_the_model<H: Harness>(harness: &H) {
    let paused = harness.bounds().clock == Clock::Paused;
    let cases = number(CASES).unwrap_or(if paused { 256 } else { 8 });
    // The standard library has no other source of entropy.
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
            "{violation}  after the last of these steps (case {case} of {cases}; set {SEED}={seed} to repeat it):\n{steps}"
        );
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => panic!("{variable} must be a number, but is {text:?}: {error}"),
    }
}

/// Runs one case. An error holds the text of the violation and the steps of the case.
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
