use std::{env, ops::Range};

use super::Failure;

/// The variable that has one seed run alone.
const ONE: &str = "CLUSTERING_SEED";

/// The variable that has so many seeds run.
const MANY: &str = "CLUSTERING_SEEDS";

/// Runs a scenario for one seed after the other, each on a runtime of its own with a paused clock, and fails with the
/// first that fails: what went wrong, and the command that does it again.
///
/// `CLUSTERING_SEED=17` in the environment has that seed run alone, `CLUSTERING_SEEDS=10000` so many from the first of the
/// range on: for a longer run than the test usually is.
///
/// ```
/// use std::time::Duration;
///
/// use clustering_testkit::cluster::{Storm, TestCluster, seeds};
///
/// // #[test]
/// fn it_comes_to_rest_after_any_storm() {
///     seeds(0..3, async |seed| {
///         let builder = TestCluster::builder().seed(seed);
///         let cluster = builder.start(3, |process| process.builder().start()).await?;
///         cluster.storm(&Storm::new(seed).lasting(Duration::from_secs(20))).await?;
///         cluster.settle().await?;
///         Ok(())
///     });
/// }
/// # it_comes_to_rest_after_any_storm();
/// ```
///
/// # Panics
///
/// With the first seed that fails.
#[track_caller]
pub fn seeds(range: Range<u64>, scenario: impl AsyncFn(u64) -> Result<(), Failure>) {
    if let Some((seed, failure)) = Seeds::of_env(range).first_failure(scenario) {
        panic!("seed {seed}: {failure}\nagain: {}", command(seed));
    }
}

/// Seeds to run a scenario with: for tests that expect one to fail. Others take [`seeds`].
#[derive(Clone, Debug)]
pub struct Seeds(Range<u64>);

impl Seeds {
    /// These.
    pub fn new(range: Range<u64>) -> Self {
        Seeds(range)
    }

    /// These, unless the environment says otherwise: see [`seeds`].
    ///
    /// # Panics
    ///
    /// If the environment has something else than a number there.
    pub fn of_env(range: Range<u64>) -> Self {
        if let Some(seed) = number(ONE) {
            return Seeds(seed..seed + 1);
        }
        match number(MANY) {
            Some(many) => Seeds(range.start..range.start + many),
            None => Seeds(range),
        }
    }

    /// The first seed under which the scenario fails, and how.
    pub fn first_failure(self, scenario: impl AsyncFn(u64) -> Result<(), Failure>) -> Option<(u64, Failure)> {
        self.0.into_iter().find_map(|seed| run(seed, &scenario).err().map(|failure| (seed, failure)))
    }
}

fn run(seed: u64, scenario: &impl AsyncFn(u64) -> Result<(), Failure>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O can be made").block_on(scenario(seed))
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {value:?}")))
}

/// What runs the present test with that seed alone.
fn command(seed: u64) -> String {
    let package = env::var("CARGO_PKG_NAME").map(|name| format!(" -p {name}")).unwrap_or_default();
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
    format!("{ONE}={seed} cargo test{package} --all-features -- --exact {test}").trim_end().to_owned()
}
