//! Members of the etcd cluster: the configured ones and at most one learned member. Chooses the member for each call.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use etcd_client::{Channel, Client, ConnectOptions, KvClient, LeaseClient, WatchClient};
use rustls::pki_types::ServerName;
use tokio::{
    sync::{Notify, OnceCell, watch},
    task::AbortHandle,
};

use crate::{
    ConfigError, Endpoint, EtcdConfig,
    circuit_breaker::CircuitBreaker,
    connector::Connector,
    endpoint::Scheme,
    failure::{Failure, FailureKind},
    follow,
    login::Login,
    tls::{Security, Tls},
};

/// Effectively no limit on the size of replies. A page of large values, or the backlog of a resumed watch, can exceed
/// the client's default of 4 MiB. Etcd's own client does not limit replies either.
const LARGEST_REPLY: usize = i32::MAX as usize;

/// The clients of one member. Cheap to clone: all clones share one connection.
#[derive(Clone)]
pub(crate) struct Clients {
    /// The member's number.
    pub(crate) member: usize,
    pub(crate) kv: KvClient,
    pub(crate) lease: LeaseClient,
    pub(crate) watch: WatchClient,
    /// The client for all other services.
    pub(crate) client: Client,
}

/// One member of the etcd cluster.
pub(crate) struct Member {
    /// Index among the configured members. A learned member gets a number that was never used before.
    pub(crate) number: usize,
    /// The endpoint, including its scheme.
    pub(crate) endpoint: Endpoint,
    /// Limits the attempts to connect while no connection can be made.
    pub(crate) breaker: CircuitBreaker,
    /// Number of calls that failed at this member.
    failures: watch::Sender<u64>,
    /// The name that the server's certificate must be for, with TLS.
    name: Option<ServerName<'static>>,
    clients: OnceCell<Clients>,
}

/// All members, and the current one, to which calls go.
pub(crate) struct Members {
    config: EtcdConfig,
    tls: Option<(Tls, Arc<Security>)>,
    /// `None` without credentials.
    pub(crate) login: Option<Login>,
    configured: Vec<Arc<Member>>,
    /// The learned member, used while no configured member can be connected to; see [`follow`].
    learned: Mutex<Option<Arc<Member>>>,
    /// Number of the next learned member.
    next: AtomicUsize,
    current: AtomicUsize,
    /// The last member that answered, kept for the log.
    answered: Mutex<(usize, Endpoint)>,
    /// Notifies the follower that no configured member can be connected to.
    pub(crate) alarm: Arc<Notify>,
    follower: Mutex<Option<AbortHandle>>,
}

impl Members {
    /// Creates the members without connecting to them. Each connection is made when it is first needed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the configuration is invalid.
    pub(crate) fn new(config: EtcdConfig) -> Result<Self, ConfigError> {
        config.validate_fields()?;
        let tls = config.effective_tls();
        let tls = tls.map(|tls| Ok((tls.clone(), Arc::new(Security::new(tls)?)))).transpose()?;
        let configured = config.endpoints.iter().enumerate();
        let configured =
            configured.map(|(number, endpoint)| member(number, endpoint, tls.as_ref()).map(Arc::new));
        let configured = configured.collect::<Result<Vec<_>, ConfigError>>()?;
        // Start at a random member, so that the nodes of a cluster spread over the members.
        let chance = RandomState::new().hash_one(0) as usize % configured.len();
        Ok(Members {
            tls,
            login: config.credentials.clone().map(Login::new),
            config,
            learned: Mutex::default(),
            next: AtomicUsize::new(configured.len()),
            current: AtomicUsize::new(chance),
            answered: Mutex::new((chance, configured[chance].endpoint.clone())),
            configured,
            alarm: Arc::default(),
            follower: Mutex::default(),
        })
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    pub(crate) fn configured(&self) -> &[Arc<Member>] {
        &self.configured
    }

    /// Returns the number of members that a call may go to.
    pub(crate) fn count(&self) -> usize {
        self.configured.len() + usize::from(self.lock_learned().is_some())
    }

    pub(crate) fn learned(&self) -> Option<Arc<Member>> {
        self.lock_learned().clone()
    }

    /// True while no configured member can be connected to.
    pub(crate) fn all_are_away(&self) -> bool {
        self.configured.iter().all(|member| member.breaker.is_tripped())
    }

    /// Returns the member for the next call: the current one, or the next one that may be tried now if the
    /// current one may not.
    pub(crate) fn choose(&self) -> Arc<Member> {
        let current = self.current.load(Ordering::Relaxed);
        let count = self.configured.len();
        if current >= count {
            if let Some(learned) = self.learned().filter(|learned| learned.number == current) {
                return learned;
            }
            let _ = self.current.compare_exchange(current, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        let first = if current < count { current } else { 0 };
        let free = (0..count)
            .map(|more| (first + more) % count)
            .find(|&at| self.configured[at].breaker.admits_now());
        let Some(free) = free.filter(|&free| free != first) else { return self.configured[first].clone() };
        // Later calls stay at the new member. Otherwise a call would go back each time that the circuit breaker of the
        // old one admits an attempt.
        let _ = self.current.compare_exchange(first, free, Ordering::Relaxed, Ordering::Relaxed);
        self.configured[free].clone()
    }

    /// Returns a receiver that changes whenever a call fails at that member from now on. Long waits, such as watches,
    /// use it to check whether the member still serves them.
    pub(crate) fn failures(&self, number: usize) -> watch::Receiver<u64> {
        match self.numbered(number) {
            Some(member) => member.failures.subscribe(),
            // This learned member was already dropped, so report a failure at once.
            None => {
                let mut receiver = watch::Sender::new(0).subscribe();
                receiver.mark_changed();
                receiver
            }
        }
    }

    /// Switches to the next configured member, unless another call has already switched. A learned member is dropped,
    /// and is not used again until its identity has been verified again.
    pub(crate) fn leave(&self, number: usize, why: &str) {
        let Some(member) = self.numbered(number) else { return };
        member.failures.send_modify(|count| *count = count.wrapping_add(1));
        let next = if number < self.configured.len() { (number + 1) % self.configured.len() } else { 0 };
        if number >= self.configured.len() {
            self.lock_learned().take_if(|learned| learned.number == number);
        }
        let left = self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if left {
            tracing::debug!(member = %member.endpoint, why, "stopped using an etcd member after a failure");
        }
        if self.all_are_away() {
            self.alarm.notify_one();
        }
    }

    /// Directs calls to that configured member and drops the learned one.
    pub(crate) fn prefer(&self, member: &Member) {
        self.current.store(member.number, Ordering::Relaxed);
        *self.lock_learned() = None;
    }

    /// Directs calls to a learned member.
    pub(crate) fn adopt(&self, member: Arc<Member>) {
        let number = member.number;
        *self.lock_learned() = Some(member);
        self.current.store(number, Ordering::Relaxed);
    }

    /// Records that the member answered: logs a switch to another member, and starts the follower. Switches are logged
    /// only here, since an outage would otherwise log one line for each attempt.
    pub(crate) fn note_answer(self: &Arc<Self>, member: &Member) {
        {
            let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
            if answered.0 != member.number {
                let (from, to) = (&answered.1, &member.endpoint);
                tracing::info!(%from, %to, "switched to another etcd member");
                *answered = (member.number, member.endpoint.clone());
            }
        }
        if follow::is_on(&self.config) {
            let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
            if follower.as_ref().is_none_or(AbortHandle::is_finished) {
                *follower = Some(follow::start(self));
            }
        }
    }

    pub(crate) async fn clients(&self, member: &Member) -> Result<Clients, Failure> {
        let connect = || async {
            let channel = self.channel(member, None)?;
            self.clients_on(member.number, channel).await
        };
        member.clients.get_or_try_init(connect).await.cloned()
    }

    /// Creates a member for a learned endpoint, and a client without a token for verifying it. Both share a connection
    /// that is made only once: by the time of a second one, the address could belong to another server.
    ///
    /// # Errors
    ///
    /// [`FailureKind::Invalid`] if the endpoint cannot be used, for example since TLS does not accept its host name.
    pub(crate) async fn learn(&self, endpoint: &Endpoint) -> Result<(Arc<Member>, Client), Failure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unfit = |error: ConfigError| Failure::new(FailureKind::Invalid, error.to_string());
        let member = member(number, endpoint, self.tls.as_ref()).map_err(unfit)?;
        let channel = self.channel(&member, Some(Arc::default()))?;
        let look = Client::from_channel(Channel::Tonic(channel.clone()), None).await?;
        let clients = self.clients_on(number, channel).await?;
        let _ = member.clients.set(clients);
        Ok((Arc::new(member), look))
    }

    async fn clients_on(
        &self,
        number: usize,
        channel: tonic::transport::Channel,
    ) -> Result<Clients, Failure> {
        let options = ConnectOptions::new()
            // A member that has lost its leader then returns an error and ends its watches, instead of going silent.
            .with_require_leader(true);
        let channel = match &self.login {
            Some(login) => login.channel(channel),
            None => Channel::Tonic(channel),
        };
        let client = Client::from_channel(channel, Some(options)).await?;
        Ok(Clients {
            member: number,
            kv: client.kv_client().max_decoding_message_size(LARGEST_REPLY),
            lease: client.lease_client(),
            watch: client.watch_client().max_decoding_message_size(LARGEST_REPLY),
            client,
        })
    }

    /// Returns a channel that connects on first use and reconnects after a lost connection. With `once` it never
    /// reconnects.
    fn channel(
        &self,
        member: &Member,
        once: Option<Arc<AtomicBool>>,
    ) -> Result<tonic::transport::Channel, Failure> {
        let config = &self.config;
        let unfit = |error: tonic::transport::Error| Failure::new(FailureKind::Invalid, error.to_string());
        let endpoint = tonic::transport::Endpoint::from_shared(member.endpoint.to_string())
            .map_err(unfit)?
            .keep_alive_while_idle(true)
            .http2_keep_alive_interval(config.keep_alive_interval)
            .keep_alive_timeout(config.keep_alive_timeout);
        let security = self.tls.as_ref().map(|(_, security)| security.clone());
        let connector = Connector::new(security.zip(member.name.clone()), config.connect_timeout, once);
        Ok(tonic::transport::Channel::new(connector, endpoint))
    }

    fn numbered(&self, number: usize) -> Option<Arc<Member>> {
        let configured = self.configured.get(number).cloned();
        configured.or_else(|| self.learned().filter(|learned| learned.number == number))
    }

    fn lock_learned(&self) -> MutexGuard<'_, Option<Arc<Member>>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the follower.
impl Drop for Members {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.lock().unwrap_or_else(PoisonError::into_inner).take() {
            follower.abort();
        }
    }
}

fn member(
    number: usize,
    endpoint: &Endpoint,
    tls: Option<&(Tls, Arc<Security>)>,
) -> Result<Member, ConfigError> {
    let (scheme, name) = match tls {
        Some((tls, _)) => (Scheme::Https, Some(tls.name_of(endpoint.host())?)),
        None => (Scheme::Http, None),
    };
    Ok(Member {
        number,
        endpoint: endpoint.with_scheme(scheme),
        breaker: CircuitBreaker::default(),
        failures: watch::Sender::new(0),
        name,
        clients: OnceCell::new(),
    })
}
