use std::{env, ops::Range};

use super::{Failure, unreported};

/// Environment variable that selects a single seed.
const ONE: &str = "CLUSTERING_SEED";

/// Environment variable that sets the number of seeds.
const MANY: &str = "CLUSTERING_SEEDS";

/// Runs a scenario with one seed after another, each on a new runtime with a paused clock. Panics on the first seed
/// that fails, with the failure and a command that reproduces it. If the test needs features, add them to that command.
/// The value that the scenario returns is ignored.
///
/// For longer or selective runs, set environment variables: `CLUSTERING_SEED=17` runs only that seed, and
/// `CLUSTERING_SEEDS=10000` runs that many seeds from the start of the range.
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
///         cluster.settle().await
///     });
/// }
/// # it_comes_to_rest_after_any_storm();
/// ```
///
/// # Panics
///
/// Panics on the first seed that fails.
#[track_caller]
pub fn seeds<T>(range: Range<u64>, scenario: impl AsyncFn(u64) -> Result<T, Failure>) {
    if let Some((seed, failure)) = Seeds::of_env(range).first_failure(scenario) {
        panic!("seed {seed}: {failure}\nreproduce: {}", command(seed));
    }
}

/// Seeds to run a scenario with, for tests that expect a failure. Other tests use [`seeds`].
#[derive(Clone, Debug)]
pub struct Seeds(Range<u64>);

impl Seeds {
    /// Creates the seeds of the given range.
    pub fn new(range: Range<u64>) -> Self {
        Seeds(range)
    }

    /// Creates the seeds of the given range, unless the environment selects others (see [`seeds`]).
    ///
    /// # Panics
    ///
    /// Panics if one of the environment variables is not a number.
    pub fn of_env(range: Range<u64>) -> Self {
        if let Some(seed) = number(ONE) {
            return Seeds(seed..seed + 1);
        }
        match number(MANY) {
            Some(many) => Seeds(range.start..range.start + many),
            None => Seeds(range),
        }
    }

    /// Returns the first seed with which the scenario fails, with the failure.
    pub fn first_failure<T>(
        self,
        scenario: impl AsyncFn(u64) -> Result<T, Failure>,
    ) -> Option<(u64, Failure)> {
        let mut seeds = self.0;
        unreported::together(|| {
            seeds.find_map(|seed| run(seed, &scenario).err().map(|failure| (seed, failure)))
        })
    }
}

/// Prints the seed if the scenario panics, for example because of a failed assertion.
struct Running(u64);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} panicked\nreproduce: {}", self.0, command(self.0));
        }
    }
}

fn run<T>(seed: u64, scenario: &impl AsyncFn(u64) -> Result<T, Failure>) -> Result<T, Failure> {
    let _running = Running(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O can be built").block_on(scenario(seed))
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {value:?}")))
}

/// Returns the command that runs the current test with only this seed. Cargo and nextest provide the package's name,
/// but not the features with which the test was built.
fn command(seed: u64) -> String {
    let package = env::var("CARGO_PKG_NAME").map(|name| format!(" -p {name}")).unwrap_or_default();
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
    format!("{ONE}={seed} cargo test{package} -- --exact {test}").trim_end().to_owned()
}
