use std::sync::{Arc, OnceLock, Weak};

use clustering_core::store::{Signals, StoreError};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    PostgresConfig,
    failure::Operation,
    keeper,
    link::Link,
    notifications::Notifications,
    session::Session,
    statements::{Calls, Leases},
    tls::Tls,
};

/// State that all clones of a store and its watches share: two connections, and the task that maintains them.
pub(crate) struct Shared {
    pub(crate) config: PostgresConfig,
    pub(crate) signals: Arc<Signals>,
    pub(crate) calls: Link<Calls>,
    pub(crate) leases: Link<Leases>,
    /// Each open watch has a clone.
    pub(crate) open_watches: Arc<()>,
    keeper: OnceLock<AbortOnDropHandle<()>>,
}

impl Shared {
    /// Starts the task that listens, ends overdue leases and compacts.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub(crate) fn start(config: PostgresConfig) -> Result<Arc<Self>, StoreError> {
        config.validate()?;
        let tls = Tls::load(&config)?;
        let signals = Arc::<Signals>::default();
        let (granted, grants) = mpsc::unbounded_channel();
        let notifications = Notifications { signals: signals.clone(), granted };
        let calls = calls(config.clone(), tls.clone());
        let leases = leases(config.clone(), tls, notifications);
        let (open_watches, keeper) = (Arc::default(), OnceLock::new());
        let shared = Arc::new(Shared { config, signals, calls, leases, open_watches, keeper });
        let task = tokio::spawn(keeper::keep(Weak::clone(&Arc::downgrade(&shared)), grants));
        let _ = shared.keeper.set(AbortOnDropHandle::new(task));
        Ok(shared)
    }
}

fn calls(config: PostgresConfig, tls: Tls) -> Link<Calls> {
    Link::new(
        |calls| calls.session.is_usable(),
        move || {
            let (config, tls) = (config.clone(), tls.clone());
            async move {
                let session = Session::connect(&config, tls, |_| {}).await?;
                Calls::prepare(session, &config.schema).await
            }
        },
    )
}

fn leases(config: PostgresConfig, tls: Tls, notifications: Notifications) -> Link<Leases> {
    Link::new(
        |leases| leases.session.is_usable(),
        move || {
            let (config, tls, notifications) = (config.clone(), tls.clone(), notifications.clone());
            async move {
                let session = Session::connect(&config, tls, move |text| notifications.handle(text)).await?;
                let listen = format!("LISTEN \"{}\"", config.schema);
                session.execute_all(Operation::read("listen"), &listen).await?;
                Leases::prepare(session, &config.schema).await
            }
        },
    )
}
