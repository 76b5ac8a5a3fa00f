use std::process::ExitCode;

use clustering_etcd::{
    ConfigError, InvalidInput, Namespace, OperatorError,
    store::{ErrorKind, StoreError},
};

/// The command did not do what it was asked: the exit code says of what kind, the text what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
    hints: Vec<String>,
}

/// The answer is no: the cluster is not stable, the key has no owner, the time ran out.
pub(crate) const NO: u8 = 1;
/// There is no answer: wrong usage, no store, no right, no cluster.
pub(crate) const UNKNOWN: u8 = 2;

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Failure { code, text: text.into(), hints: Vec::new() }
    }

    /// Adds a line of advice.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        self.hints([hint.into()])
    }

    /// Adds lines of advice.
    pub(crate) fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// Formats the failure as lines: the error first, then the advice.
    pub(crate) fn lines(&self) -> Vec<String> {
        let first = format!("clustering: {}", self.text);
        [first].into_iter().chain(self.hints.iter().map(|hint| format!("  {hint}"))).collect()
    }

    pub(crate) fn no_cluster(namespace: &Namespace) -> Self {
        let text = format!("there is no cluster in the namespace {namespace}");
        let hint =
            "give its namespace with --namespace or CLUSTERING_NAMESPACE; `clustering services` lists all";
        Failure::new(UNKNOWN, text).hint(hint)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Failure::new(UNKNOWN, error.to_string());
        match error.kind() {
            ErrorKind::Unreachable => failure
                .hint("is etcd running, and are these its endpoints? See --endpoints or ETCD_ENDPOINTS"),
            ErrorKind::OutcomeUnknown => failure.hint(
                "it may have happened all the same: look with `clustering status` before you repeat it",
            ),
            ErrorKind::Busy => {
                failure.hint("see `etcdctl endpoint status`, `etcdctl alarm list` and etcd's log")
            }
            _ => failure,
        }
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        let text = error.to_string();
        match error {
            OperatorError::Store(error) => error.into(),
            OperatorError::NoCluster(namespace) => Failure::no_cluster(&namespace),
            OperatorError::NodesPresent(_) => Failure::new(NO, text).hint(
                "stop them first; with --force their keys are deleted too, and those that live join again",
            ),
            OperatorError::Alone => {
                Failure::new(NO, text).hint("start another node first; or stop this one, if it is to end")
            }
            _ => Failure::new(NO, text),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::new(UNKNOWN, error.to_string())
    }
}

impl From<InvalidInput> for Failure {
    fn from(error: InvalidInput) -> Self {
        Failure::new(UNKNOWN, error.to_string())
    }
}
