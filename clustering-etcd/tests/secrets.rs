//! No log of this crate or its dependencies contains a password, token or key, at any level.

#[allow(dead_code)]
#[path = "common/pki.rs"]
mod pki;
#[allow(dead_code)]
#[path = "common/users.rs"]
mod users;

use std::{
    fmt::{self, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clustering_etcd::{
    Credentials, EtcdStore,
    store::{CoordinationStore, CoordinationStoreExt},
};
use pki::Pki;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use users::PASSWORD;

/// All events of `tracing` and `log` in this process.
static LOGGED: Mutex<String> = Mutex::new(String::new());

fn add_line(target: &str, line: &str) {
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(logged, "{target}: {line}").expect("writing to a string succeeds");
}

/// Records all spans and events. Contains the ID of the next span.
struct Recorder(AtomicU64);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("writing to a string succeeds");
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut line = Line(span.metadata().name().to_owned());
        span.record(&mut line);
        add_line(span.metadata().target(), &line.0);
        span::Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        add_line("span", &line.0);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        add_line(event.metadata().target(), &line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        add_line(record.target(), &record.args().to_string());
    }

    fn flush(&self) {}
}

/// Returns the forms in which a secret could be printed: as text, and as the numbers of its bytes.
fn printed(secret: &str) -> [String; 3] {
    let numbers = |print: fn(&u8) -> String, between: &str| {
        secret.as_bytes().iter().map(print).collect::<Vec<_>>().join(between)
    };
    [secret.to_owned(), numbers(u8::to_string, ", "), numbers(|byte| format!("{byte:02x}"), "")]
}

fn shows(output: &str, secret: &str) -> bool {
    printed(secret).iter().any(|form| output.contains(form))
}

#[tokio::test]
async fn no_log_contains_a_password_token_or_key() {
    tracing::subscriber::set_global_default(Recorder(AtomicU64::new(1))).expect("nothing else has set it");
    log::set_logger(Box::leak(Box::new(Recorder(AtomicU64::new(1))))).expect("nothing else has set it");
    log::set_max_level(log::LevelFilter::Trace);

    let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
    // All JSON Web Tokens start with this text.
    let token = "eyJ";
    let server = pki.server();
    let builder = users::short_tokens(&folder).tls(server.cert, server.key).client_ca(pki.ca());
    let etcd = users::server(builder).await;
    let client = pki.client("ingest");
    let key = std::fs::read_to_string(&client.key).unwrap();
    let key = key.lines().nth(1).expect("the second line of a PEM file is data");

    // Ignore the events of the fixture's own client.
    LOGGED.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let mut config = users::config(&etcd);
    config.tls = Some(pki.mutual(&client));
    let store = EtcdStore::connect(config.clone()).await.unwrap();
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let at = store.put("k", "v".into(), Some(lease.id)).await.unwrap();
    store.renew_lease(lease.id).await.unwrap();
    let mut shown = format!("{store:?} {config:?}\n");
    let watch = store.watch("", at).await.unwrap();
    users::tokens_expire(&etcd).await;
    store.put("k", "v".into(), None).await.unwrap();
    drop(watch);
    // Calls that fail must not log secrets either.
    let wrong = "a-wrong-password";
    config.credentials = Some(Credentials::new("ingest", wrong));
    let error = EtcdStore::new(config.clone()).unwrap().check().await.unwrap_err();
    write!(shown, "{error} {error:?} {config:?}").unwrap();
    config.tls = Some(pki.tls());
    let error = EtcdStore::new(config.clone()).unwrap().check().await.unwrap_err();
    write!(shown, "{error} {error:?} {config:?}").unwrap();

    let output = format!("{}{shown}", LOGGED.lock().unwrap_or_else(PoisonError::into_inner));
    // The recorder receives the events of the dependencies: calls, frames, handshakes, and logins.
    for part in ["h2::", "send frame=Headers", "tonic::", "rustls::", "logged in to etcd again"] {
        assert!(output.contains(part), "no event contains {part}");
    }
    for secret in [PASSWORD, wrong, token, key] {
        let line = output.lines().find(|line| shows(line, secret));
        assert_eq!(line, None, "a log line contains {secret}");
    }
    for secret in [PASSWORD, key] {
        for form in printed(secret) {
            assert!(shows(&format!("a line with {form} in it"), secret), "the search does not find {form}");
        }
    }
}
