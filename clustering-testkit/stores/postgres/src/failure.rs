use clustering_core::store::{Stage, StoreError};
use tokio_postgres::{Error, error::SqlState};

use crate::settings::error_text;

/// Description of a call to PostgreSQL, for error messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// False if the call only reads.
    pub(crate) changes: bool,
}

impl Operation {
    pub(crate) const fn change(name: &'static str) -> Self {
        Operation { name, changes: true }
    }

    pub(crate) const fn read(name: &'static str) -> Self {
        Operation { name, changes: false }
    }

    /// Returns the error of a call that failed at this stage.
    pub(crate) fn failed(self, stage: Stage, reason: &str) -> StoreError {
        stage.failed(self.changes, format!("{}: {reason}", self.name))
    }

    /// Classifies the failure of a statement that was sent.
    pub(crate) fn failure(self, error: &Error) -> StoreError {
        let Some(answer) = error.as_db_error() else {
            return self.failed(Stage::InFlight, &error_text(error));
        };
        // The details of an error may contain data.
        let reason = format!("{} (SQLSTATE {})", answer.message(), answer.code().code());
        // The server closes the connection, and may be shutting down. The statement may have been committed before
        // that.
        if matches!(answer.severity(), "FATAL" | "PANIC") {
            return self.failed(Stage::InFlight, &reason);
        }
        match advice(answer.code()) {
            Some(advice) => StoreError::refused(format!("{}: {reason}: {advice}", self.name)),
            None => self.failed(Stage::Answered, &reason),
        }
    }
}

/// Classifies the failure of an attempt to connect to these hosts. No statement was sent yet, so nothing can have
/// taken effect.
pub(crate) fn no_connection(hosts: &str, error: &Error) -> StoreError {
    let Some(answer) = error.as_db_error() else {
        let reason = error_text(error);
        let text = format!("no connection to PostgreSQL at {hosts}: {reason}");
        return match is_about_tls(error) || reason.contains("does not support TLS") {
            true => StoreError::refused(format!("{text}: check sslmode and sslrootcert")),
            false => StoreError::unreachable(text),
        };
    };
    let (code, message) = (answer.code(), answer.message());
    let text =
        format!("PostgreSQL at {hosts} does not accept the connection: {message} (SQLSTATE {})", code.code());
    match advice(code) {
        Some(advice) => StoreError::refused(format!("{text}: {advice}")),
        None if code.code().starts_with("53") => StoreError::busy(text),
        None => StoreError::unreachable(text),
    }
}

fn is_about_tls(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if cause.is::<rustls::Error>() || wrapped.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// Returns advice for errors that need operator action.
fn advice(code: &SqlState) -> Option<&'static str> {
    match code {
        code if code.code().starts_with("28") => {
            Some("check user and password, and the server's pg_hba.conf")
        }
        &SqlState::INSUFFICIENT_PRIVILEGE => {
            Some("grant the user the rights that the README of clustering-postgres lists")
        }
        &SqlState::INVALID_CATALOG_NAME => Some("create the database, or correct its name"),
        &SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_FUNCTION | &SqlState::INVALID_SCHEMA_NAME => Some(
            "create the tables once with PostgresStore::install or `clustering-postgres --install status`",
        ),
        _ => None,
    }
}
