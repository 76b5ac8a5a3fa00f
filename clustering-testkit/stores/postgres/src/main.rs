//! The command `clustering` for clusters in PostgreSQL.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clustering_cli::{Connect, Failure, Purpose, Server};
use clustering_postgres::{
    PostgresConfig, PostgresStore,
    store::{CoordinationStore, ErrorKind},
};

/// Connection to PostgreSQL. The options take precedence over the environment variables, which are those of psql.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
struct Postgres {
    /// Address, such as postgresql://user@host:port/database. Prefer PGPASSWORD for the password: options are visible
    /// in the process list [env: DATABASE_URL, or PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLMODE]
    #[arg(long, global = true, value_name = "URL", hide_env_values = true)]
    url: Option<String>,
    /// File with the CA certificates that verify the server's certificate [env: PGSSLROOTCERT]
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Schema of the tables [env: CLUSTERING_SCHEMA] [default: clustering]
    #[arg(long, global = true, value_name = "NAME")]
    schema: Option<String>,
    /// Create the schema with its tables first, if it does not exist
    #[arg(long, global = true)]
    install: bool,
}

impl Postgres {
    fn config(&self) -> Result<PostgresConfig, Failure> {
        let config = PostgresConfig::from_variables(|name| match name {
            "DATABASE_URL" => self.url.clone().map(Into::into).or_else(|| std::env::var_os(name)),
            "PGSSLROOTCERT" => self.cacert.clone().map(Into::into).or_else(|| std::env::var_os(name)),
            "CLUSTERING_SCHEMA" => self.schema.clone().map(Into::into).or_else(|| std::env::var_os(name)),
            _ => std::env::var_os(name),
        });
        config.map_err(|error| Failure::unknown(error.to_string()))
    }
}

impl Connect for Postgres {
    const STORE: &'static str = "PostgreSQL";

    async fn connect(&self, _: Purpose) -> Result<Arc<dyn CoordinationStore>, Failure> {
        let config = self.config()?;
        let failed = |error: clustering_postgres::store::StoreError| Failure::unknown(error.to_string());
        if self.install {
            PostgresStore::install(&config).await.map_err(failed)?;
        }
        Ok(Arc::new(PostgresStore::connect(config).await.map_err(failed)?))
    }

    fn hint(error: &ErrorKind) -> Option<&'static str> {
        match error {
            ErrorKind::Unreachable => Some("set the server's address with --url or PGHOST"),
            _ => None,
        }
    }

    /// `demo` uses the server that the options name, since PostgreSQL takes long to set up a new one.
    fn server(&self, _: &Path) -> Result<Option<Server>, Failure> {
        Ok(None)
    }

    fn secrets() -> Vec<&'static str> {
        vec!["PGPASSWORD", "DATABASE_URL"]
    }
}

fn main() -> ExitCode {
    clustering_cli::main::<Postgres>()
}
