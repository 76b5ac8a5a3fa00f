use std::{env, sync::Arc, time::Duration};

use clap::Args;
use clustering_core::{Namespace, Operator, store::CoordinationStore};
use futures_util::future::BoxFuture;

use crate::{
    connect::{Connect, Purpose},
    failure::Failure,
    times::duration,
};

/// The namespace that is used if none is given.
const NAMESPACE: &str = "cluster";

/// Arguments of all commands, whatever the store is.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Common {
    /// Namespace of the cluster [env: CLUSTERING_NAMESPACE]
    #[arg(
        long,
        short,
        global = true,
        value_name = "NAME",
        env = "CLUSTERING_NAMESPACE",
        hide_env = true,
        default_value = NAMESPACE
    )]
    namespace: String,
    /// Time limit for calls to the store, not counting the time that a command waits for a change of the cluster
    #[arg(long, global = true, value_name = "TIME", value_parser = duration, default_value = "5s")]
    command_timeout: Duration,
}

/// The surroundings of a command: the store that it works on, and the cluster in it.
pub(crate) struct Context {
    common: Common,
    connect: Box<dyn Fn(Purpose) -> Connecting + Send + Sync>,
    /// The store's name in messages.
    pub(crate) store_name: &'static str,
    /// Environment variable with the default TTL of nodes.
    pub(crate) ttl_variable: Option<&'static str>,
    /// Environment variables that child processes must not inherit.
    pub(crate) secrets: Vec<&'static str>,
}

type Connecting = BoxFuture<'static, Result<Arc<dyn CoordinationStore>, Failure>>;

impl Context {
    pub(crate) fn new<C: Connect>(common: Common, connection: C) -> Self {
        let connect = move |purpose| -> Connecting {
            let connection = connection.clone();
            Box::pin(async move { connection.connect(purpose).await })
        };
        Context {
            common,
            connect: Box::new(connect),
            store_name: C::STORE,
            ttl_variable: C::TTL_VARIABLE,
            secrets: C::secrets(),
        }
    }

    pub(crate) fn namespace(&self) -> Result<Namespace, Failure> {
        // A variable that is set but empty counts as unset: templates produce such variables.
        let given = if self.common.namespace.is_empty() { NAMESPACE } else { &self.common.namespace };
        Ok(Namespace::parse(given)?)
    }

    /// Connects to the store. Commands that do not need a store never call this.
    pub(crate) async fn store(&self, purpose: Purpose) -> Result<Arc<dyn CoordinationStore>, Failure> {
        (self.connect)(purpose).await
    }

    /// Connects to the store as an operator of the given cluster.
    pub(crate) async fn operator(&self) -> Result<Operator, Failure> {
        self.operator_named(requester()).await
    }

    /// Connects as [`operator`](Self::operator) does, under the name that the user gave.
    pub(crate) async fn operator_named(&self, by: String) -> Result<Operator, Failure> {
        Ok(Operator::new(self.store(Purpose::Operator).await?, self.namespace()?, by))
    }

    /// Limits a call that should be quick to `--command-timeout`.
    pub(crate) async fn quick<T, E: Into<Failure>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let limit = self.common.command_timeout;
        match tokio::time::timeout(limit, call).await {
            Ok(done) => done.map_err(Into::into),
            Err(_) => Err(Failure::unknown(format!("no answer within {limit:?}"))
                .hint(format!("is {} overloaded? See --command-timeout", self.store_name))),
        }
    }
}

/// Returns the user and host that the causes of versions name as the requester of an operation.
fn requester() -> String {
    let user = env::var("USER").or_else(|_| env::var("LOGNAME")).unwrap_or_else(|_| "operator".to_owned());
    match rustix::system::uname().nodename().to_str() {
        Ok(host) if !host.is_empty() => format!("{user}@{host}"),
        _ => user,
    }
}
