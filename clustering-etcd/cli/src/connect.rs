use std::{ffi::OsString, fmt::Debug, future::Future, path::Path, sync::Arc};

use clap::Args;
use clustering_core::store::{CoordinationStore, ErrorKind};

use crate::failure::Failure;

/// Command-line arguments that connect the commands to a coordination store.
///
/// Declare each argument as `global`, so that it may also follow the subcommand.
pub trait Connect: Args + Clone + Debug + Send + Sync + 'static {
    /// The store's name in messages, such as `etcd`.
    const STORE: &'static str;

    /// Environment variable with the default for `run --ttl`, if the store has one.
    const TTL_VARIABLE: Option<&'static str> = None;

    /// Creates the store.
    ///
    /// Should not wait for the store's servers, since `run` starts its program even while the store is away. Invalid
    /// arguments are failures.
    fn connect(
        &self,
        purpose: Purpose,
    ) -> impl Future<Output = Result<Arc<dyn CoordinationStore>, Failure>> + Send;

    /// Returns advice for an error of the store, such as the option that sets its address.
    fn hint(error: &ErrorKind) -> Option<&'static str> {
        let _ = error;
        None
    }

    /// Returns the names of the environment variables that contain credentials. `run` does not pass them on to its
    /// program and hooks.
    fn secrets() -> Vec<&'static str> {
        Vec::new()
    }

    /// Returns a server for `demo` to start, with its data in `folder`, or `None` if the arguments or the environment
    /// name a store that is already running.
    ///
    /// The nodes of `demo` are separate processes, so the default, for stores within one process, is a failure.
    fn server(&self, folder: &Path) -> Result<Option<Server>, Failure> {
        let _ = folder;
        let text = format!("demo needs a store that several processes can reach, unlike {}", Self::STORE);
        Err(Failure::unknown(text))
    }
}

/// The use that a command makes of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run a node, which waits patiently while the store is away.
    Node,
    /// To look at clusters and operate them. Someone is watching and wants to know soon when the store is away.
    Operator,
}

/// A server that `demo` starts.
#[derive(Debug)]
pub struct Server {
    /// The program with its arguments.
    pub command: std::process::Command,
    /// Arguments of `clustering` that connect to the server.
    pub arguments: Vec<OsString>,
    /// Advice for a program that cannot be started.
    pub hint: String,
}
