use std::{future::poll_fn, time::Duration};

use clustering_core::store::{Liveness, Stage, StoreError};
use tokio::{sync::watch, time::timeout};
use tokio_postgres::{AsyncMessage, Client, Connection, Row, Statement, tls::TlsStream, types::ToSql};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    PostgresConfig,
    failure::{Operation, no_connection},
    tls::Tls,
};

/// Extra time for the network round trip: a call is given up this long after the server's own time limit.
const ON_THE_WAY: Duration = Duration::from_millis(500);

/// One connection, on which statements are pipelined. Each statement is its own transaction, so that a dropped call
/// leaves no transaction open. Dropping the session closes the connection.
pub(crate) struct Session {
    client: Client,
    liveness: Liveness,
    limit: Duration,
    /// Reaches its end when the connection ends.
    open: watch::Receiver<()>,
    _driver: AbortOnDropHandle<()>,
}

impl Session {
    /// Connects, and passes the payloads of all notifications to `notified`.
    pub(crate) async fn connect(
        config: &PostgresConfig,
        tls: Tls,
        notified: impl Fn(&str) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let hosts = config.hosts();
        let server = config.connection();
        let Ok(connected) = timeout(config.connect_timeout, server.connect(tls.0)).await else {
            let limit = config.connect_timeout;
            let text = format!("no connection to PostgreSQL at {hosts} within {limit:?}");
            return Err(StoreError::unreachable(text));
        };
        let (client, connection) = connected.map_err(|error| no_connection(&hosts, &error))?;
        let limit = config.request_timeout + ON_THE_WAY;
        let (is_open, open) = watch::channel(());
        let driver = tokio::spawn(async move {
            drive(connection, notified).await;
            drop(is_open);
        });
        let driver = AbortOnDropHandle::new(driver);
        Ok(Session { client, liveness: Liveness::new(limit), limit, open, _driver: driver })
    }

    /// True if calls can be sent.
    pub(crate) fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.liveness.is_silent()
    }

    pub(crate) async fn prepare(&self, text: &str) -> Result<Statement, StoreError> {
        self.answered(Operation::read("prepare"), self.client.prepare(text)).await
    }

    /// Executes statements without parameters.
    pub(crate) async fn execute_all(&self, operation: Operation, text: &str) -> Result<(), StoreError> {
        self.answered(operation, self.client.batch_execute(text)).await
    }

    pub(crate) async fn query(
        &self,
        operation: Operation,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.answered(operation, self.client.query(statement, parameters)).await
    }

    /// Executes a statement that returns one row.
    pub(crate) async fn query_row(
        &self,
        operation: Operation,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, StoreError> {
        let mut rows = self.query(operation, statement, parameters).await?;
        rows.pop().ok_or_else(|| {
            let reason = "the table `counter` is empty: create its row with PostgresStore::install";
            StoreError::refused(format!("{}: {reason}", operation.name))
        })
    }

    async fn answered<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        if self.client.is_closed() {
            return Err(operation.failed(Stage::Before, "the connection was closed"));
        }
        match timeout(self.limit, self.liveness.answered(call)).await {
            Ok(Ok(answer)) => answer.map_err(|error| operation.failure(&error)),
            Ok(Err(silent)) => Err(operation.failed(Stage::InFlight, &silent.to_string())),
            Err(_) => {
                let reason = format!("no answer within {:?}", self.limit);
                Err(operation.failed(Stage::InFlight, &reason))
            }
        }
    }

    /// Waits until the connection has ended.
    pub(crate) async fn closed(&self) {
        // The sender never sends.
        let _ = self.open.clone().changed().await;
    }
}

/// Moves data between the client and the socket until the connection ends.
async fn drive<S, T>(mut connection: Connection<S, T>, notified: impl Fn(&str))
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: TlsStream + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notification(notification)) => notified(notification.payload()),
            Ok(_) => {}
            // All calls fail with this reason, so it is not logged here.
            Err(error) => {
                tracing::debug!(%error, "the connection to PostgreSQL has ended");
                return;
            }
        }
    }
}
