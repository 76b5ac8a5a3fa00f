//! Passwords, tokens and keys are in no log, of this crate or of those below it, at any level.

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

/// All that anybody in the process has told `tracing` or `log`.
static TOLD: Mutex<String> = Mutex::new(String::new());

fn tell(target: &str, line: &str) {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(told, "{target}: {line}").expect("a string takes everything");
}

struct Everything(AtomicU64);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("a string takes everything");
    }
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut line = Line(span.metadata().name().to_owned());
        span.record(&mut line);
        tell(span.metadata().target(), &line.0);
        span::Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        tell("span", &line.0);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        tell(event.metadata().target(), &line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tell(record.target(), &record.args().to_string());
    }

    fn flush(&self) {}
}

/// The ways in which a secret could be printed: as text, and as the numbers of its bytes.
fn printed(secret: &str) -> [String; 3] {
    let numbers = |print: fn(&u8) -> String, between: &str| {
        secret.as_bytes().iter().map(print).collect::<Vec<_>>().join(between)
    };
    [secret.to_owned(), numbers(u8::to_string, ", "), numbers(|byte| format!("{byte:02x}"), "")]
}

fn shows(told: &str, secret: &str) -> bool {
    printed(secret).iter().any(|print| told.contains(print))
}

#[tokio::test]
async fn no_log_shows_a_password_a_token_or_a_key() {
    tracing::subscriber::set_global_default(Everything(AtomicU64::new(1))).expect("there is no other");
    log::set_logger(Box::leak(Box::new(Everything(AtomicU64::new(1))))).expect("there is no other");
    log::set_max_level(log::LevelFilter::Trace);

    let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
    // All tokens of this kind begin alike, so they can be looked for.
    let token = "eyJ";
    let server = pki.server();
    let builder = users::short_tokens(&folder).tls(server.cert, server.key).client_ca(pki.ca());
    let etcd = users::server(builder).await;
    let client = pki.client("ingest");
    let key = std::fs::read_to_string(&client.key).unwrap();
    let key = key.lines().nth(1).expect("the second line of a PEM file is content");

    // The fixture's own client is not what is looked at.
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
    // And what fails.
    let wrong = "a-wrong-password";
    config.credentials = Some(Credentials::new("ingest", wrong));
    let error = EtcdStore::new(config.clone()).unwrap().check().await.unwrap_err();
    write!(shown, "{error} {error:?} {config:?}").unwrap();
    config.tls = Some(pki.tls());
    let error = EtcdStore::new(config.clone()).unwrap().check().await.unwrap_err();
    write!(shown, "{error} {error:?} {config:?}").unwrap();

    let told = format!("{}{shown}", TOLD.lock().unwrap_or_else(PoisonError::into_inner));
    // The crates below do talk at this level, and they are heard: the calls, the frames, the handshake, the login.
    for heard in ["h2::", "send frame=Headers", "tonic::", "rustls::", "logged in to etcd again"] {
        assert!(told.contains(heard), "{heard} is not heard of");
    }
    for secret in [PASSWORD, wrong, token, key] {
        let line = told.lines().find(|line| shows(line, secret));
        assert_eq!(line, None, "shows {secret}");
    }
    for secret in [PASSWORD, key] {
        for way in printed(secret) {
            assert!(shows(&format!("somewhere {way} stands"), secret), "the test would not find it");
        }
    }
}
