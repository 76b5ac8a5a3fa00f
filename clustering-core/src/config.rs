//! Times and policies of a node.

use std::{
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

use crate::slots::{Assignor, SlotCount};

/// Longest time for which joins wait for a hand-over to finish.
pub(crate) const JOINS_WAIT: Duration = Duration::from_secs(30);

/// Time after a failed renewal until the next attempt; at most a sixth of the TTL.
pub(crate) const RENEW_RETRY: Duration = Duration::from_millis(500);

/// Time between the campaigns of two candidates when the leader is lost. Twice the measured round trip to the store if
/// that is longer.
pub(crate) const STAGGER: Duration = Duration::from_millis(50);

/// Priority of a candidate that has none configured.
pub(crate) const DEFAULT_PRIORITY: u32 = 100;

/// Delay before a store call is retried.
pub(crate) const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Time without changes after which the next change is published at once again.
pub(crate) const CALM: Duration = Duration::from_secs(1);

/// Times and policies of a node. The defaults suit most services.
///
/// Start from [`Config::default`] and change fields, or use [`Builder::configure`](crate::Builder::configure). The
/// nodes of a cluster may have different configurations.
///
/// All durations are measured by the node's own clock, which on Linux also counts the time during which the machine is
/// suspended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    /// Lifetime of the node's lease without a renewal, from 1 s to 1 day. 15 s by default.
    ///
    /// Other nodes notice a crash after this time. With a short TTL, an ordinary pause of the process or of the store
    /// ends sessions; with a long one, the keys of a crashed node stay unserved for longer. All other deadlines follow
    /// from the TTL that the store granted, which may be longer than the requested one.
    pub ttl: Duration,
    /// Time from sending one renewal to sending the next. `None`, the default, is a third of the granted TTL. At most
    /// half of the TTL, so that one lost renewal does not cost the session.
    ///
    /// Set it to reduce the load of very many nodes on the store without making the TTL longer.
    pub renew_every: Option<Duration>,
    /// Time after sending the last successful renewal for which a leader may act. `None`, the default, is two thirds of
    /// the granted TTL. More than [`renew_every`](Self::renew_every), and less than the TTL.
    ///
    /// The rest of the TTL is left for stopping the leader's work before another node can lead. Shorten it if the work
    /// takes longer than that to stop; a leader that is close to the limit is suspended more often.
    pub leadership: Option<Duration>,
    /// Time limit for a call to the store. `None`, the default, is a sixth of the granted TTL. Less than a third of the
    /// TTL, so that a renewal that hangs leaves time for another attempt.
    ///
    /// Raise it if the TTL is short and round trips to the store are long. With a limit below the round trip, no call
    /// succeeds.
    pub call_timeout: Option<Duration>,
    /// Delay before a [`stabilize`](crate::Builder::stabilize) callback that refused is called again. 100 ms doubling
    /// to 5 s by default.
    ///
    /// Raise it if a failed attempt is expensive for the systems that the callback uses. A version becomes stable by up
    /// to `max` later than its last obstacle is gone.
    pub stabilize_retry: Backoff,
    /// Time limit for one call of the `stabilize` callback. A call that exceeds it is cancelled (its future is dropped)
    /// and counts as refused. `None`, the default, sets no limit. A future can only be dropped where it awaits: a
    /// callback that blocks its thread runs on, and no other call is started beside it.
    pub stabilize_timeout: Option<Duration>,
    /// Time limit for an `on_stable` call. A call that exceeds it is cancelled (its future is dropped) and counts as
    /// failed. `None`, the default, sets no limit. No later version is announced while the call runs. A future can only
    /// be dropped where it awaits: a callback that blocks its thread runs on, and no other call is started beside it.
    pub on_stable_timeout: Option<Duration>,
    /// Time after which the node reports a version that is not stable yet, a `stabilize` or `on_stable` call that still
    /// runs, or a store call that keeps failing. 30 s by default. Raise it if `stabilize` normally takes longer.
    pub warn_after: Duration,
    /// Treatment of nodes that keep a version from becoming stable.
    pub laggards: Laggards,
    /// Percentage of the nodes above which simultaneous failures count as a mass failure. The leader then assumes a
    /// common cause (a bad release, a database that every node needs, an outage of the store) and reports a
    /// [`MassFailure`](crate::Event::MassFailure). If the nodes are late, it evicts none. If they are owners of slots
    /// whose sessions have ended within one TTL, their slots wait for them for one more TTL. 50 by default; 0 disables
    /// evictions and makes the slots of nodes that are lost together wait; 100 disables both protections.
    pub mass_failure_percent: u8,
    /// Policy for the case that another process holds the node's name.
    pub name_conflict: NameConflict,
    /// Pause between two publications while changes follow each other closely. 100 ms doubling to 5 s by default. A
    /// change after a second without changes is published at once.
    ///
    /// Raise it in clusters of a thousand nodes or more, where the acknowledgements of one version take longer than
    /// the pause: no version would become stable while nodes keep joining.
    pub publish_gap: Backoff,
    /// Interval and limits of the [health check](crate::Builder::health) (P11). `None`, the default, means that there
    /// is no check and the node counts as healthy. Setting the callback sets [`HealthChecks::default`].
    pub health: Option<HealthChecks>,
    /// Time limit for [`stop`](crate::Clustering::stop): for the commit by which the node leaves (at most half of the
    /// limit), for releasing all keys on an exclusive node, for revoking the lease while the store does not answer,
    /// and for running callbacks to return. `None`, the default, is 5 s, and 30 s on an exclusive node. After that
    /// the lease expires by its TTL, and callbacks are dropped.
    pub stop_timeout: Option<Duration>,
    /// Number of slots into which the keys of an exclusive cluster are divided (P12). `None`, the default, means that
    /// the node is not exclusive. Set by [`Builder::exclusive`](crate::Builder::exclusive).
    ///
    /// All nodes of a namespace need the same number, for as long as the namespace exists. A node with another number
    /// is refused.
    pub exclusive: Option<SlotCount>,
    /// True if the service has a [`release`](crate::Builder::release) callback. The builder sets this field together
    /// with the callback.
    pub has_release: bool,
    /// Time after which a node that has not let go of its lost slots gives up its session, so that it does not block
    /// the others. 2 min by default; `None` waits forever. The node rejoins after a pause, which doubles from 1 s to 10
    /// min until the node is ready at a version.
    ///
    /// Choose a longer time if a flush can take longer. Has no effect on nodes that are not exclusive.
    pub release_timeout: Option<Duration>,
    /// Assignor of slots to nodes, used while this node leads. `None`, the default, is
    /// [`Balanced`](crate::slots::Balanced).
    pub assignor: Option<SharedAssignor>,
    /// Priority of the node as a candidate for the lead. 100 by default. Candidates with a higher priority campaign
    /// first; at equal priority, nodes of the newest stable version before others, and the youngest first, since it has
    /// just been restarted. A node with the priority 0 does not lead while there is another candidate.
    ///
    /// A leader with a priority above 0 stays leader if a candidate with a higher priority joins.
    pub priority: u32,
    /// Time for which the slots of the node wait for it if its session ends, because it is expected to be restarted
    /// under the same name. Zero, the default, if its slots are to move at once. At most 1 day.
    ///
    /// Needs a [fixed name](crate::Builder::name). A node that stops by
    /// [`stop_for_restart`](crate::Clustering::stop_for_restart) says for how long its slots wait; after
    /// [`stop`](crate::Clustering::stop) they never wait.
    pub restart_grace: Duration,
    /// Number of nodes that the cluster needs before it begins to work. Until a version with so many nodes has been
    /// stable, no version with fewer nodes becomes stable, and no slots are assigned. `None`, the default, is the same
    /// as 1. At least 1.
    ///
    /// It only delays the start of a new cluster. If nodes depart later, the others continue.
    pub min_nodes: Option<u32>,
    /// Detection of crashes by connections between the nodes. `None`, the default, detects a crash only by the end of
    /// the lease.
    pub crash_detection: Option<CrashDetection>,
}

/// Detection of crashes by TCP connections between the nodes: within milliseconds instead of a TTL.
///
/// Each process listens on a TCP port, and its record names the port and the process. Three other nodes are connected
/// to it. The kernel closes these connections when the process ends. They then connect again at once, and remove the
/// node if the connection is refused, or if another process of this library answers.
///
/// ```no_run
/// # use clustering_core::{Builder, CrashDetection};
/// # fn example(builder: Builder) -> Builder {
/// builder.detect_crashes(CrashDetection::new().listen("0.0.0.0:7946".parse().expect("it is an address")))
/// # }
/// ```
///
/// # What it can see
///
/// | what happens | what others find | what follows |
/// |---|---|---|
/// | the process crashes, is killed, or runs out of memory | a refused connection | removed at once |
/// | the process is restarted on the same port | another process of this library | the predecessor is removed at once |
/// | the machine restarts | a refused connection, once the machine answers again | removed then, or after the TTL |
/// | the process hangs or is paused | an open connection, or no answer | nothing; the TTL decides |
/// | power or network fails | no answer | nothing; the TTL decides |
/// | another program takes over the port | an answer that is not from this library | nothing; the TTL decides |
/// | a proxy or service mesh accepts for the dead process | a connection that is closed without an answer | nothing; the TTL decides |
/// | a host name does not resolve | no address | nothing; the TTL decides |
///
/// # False alarms
///
/// A live process looks dead if something in the network refuses connections in its place: a firewall that answers with
/// a reset or with "port unreachable" (`REJECT`, as opposed to `DROP`), a proxy whose upstream is down, or a host name
/// or address that leads somewhere else, such as `localhost` on different machines or a load balancer. The node is then
/// removed although it is alive. It rejoins by itself, which costs a version, and an election if it led; no promise is
/// broken. It reports [`FalselyRemoved`](crate::Event::FalselyRemoved) and offers no endpoint until its process
/// restarts, so it is not removed again for that reason, and its crashes are noticed only after the TTL.
///
/// Only with [`trust_refused`](Self::trust_refused) does a false alarm endanger exclusive keys (P12).
///
/// # Networks
///
/// - Every node must reach the port of every other node, at the [advertised](Self::advertise) host and at the same port
///   number that the process listens on. A port mapping has to keep the number.
/// - In Kubernetes, use the IP address of the pod as host of the URI or as advertised host, not the name of a service.
///   Pods need no declared port for it, but a `NetworkPolicy` has to allow the connections: set
///   [`listen`](Self::listen) to a fixed port.
/// - A sidecar of a service mesh accepts connections for a dead process, so nothing is noticed. Exclude the port from
///   it, as with Istio's annotations `excludeInboundPorts` and `excludeOutboundPorts`.
/// - The connections are not encrypted. Nothing passes but the random identity of the process.
///
/// # Cost and limits
///
/// A node has three connections to other nodes, and three from others, however large the cluster is. After a line of 40
/// bytes nothing is sent but the kernel's TCP keep-alive probes, one per minute and side of a connection: measured on
/// Linux, 12 packets without data each way per node and minute (624 bytes), and no additional wake-ups of the process.
///
/// A stranger who connects sees the same line. At most 64 connections are kept: a further one closes the oldest of the
/// host that has the most. A peer that sends more than 1 KiB is disconnected. Watchers wait at most 1 s for a
/// connection and for the line, and try again after 5 ms, doubling to 30 s, if that proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CrashDetection {
    /// Address to listen on. `None`, the default, is an ephemeral port on all interfaces.
    pub listen: Option<SocketAddr>,
    /// Host that other nodes connect to, without a port. `None`, the default, is the host of the node's URI.
    pub advertise: Option<String>,
    /// If true, a refused connection is proof of death in this network: the node that notices it also revokes the lease
    /// of the crashed node, so that the keys that it held can be acquired at once. False by default: those keys wait
    /// for the end of the lease (P12).
    ///
    /// Set it only if nothing between the nodes can refuse a connection to a live process, such as a firewall that
    /// answers with a reset, or a proxy.
    pub trust_refused: bool,
}

impl CrashDetection {
    /// Creates the default: an ephemeral port on all interfaces, and the host of the node's URI.
    pub fn new() -> Self {
        CrashDetection::default()
    }

    /// Sets the address to listen on; see [`listen`](Self#structfield.listen).
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Sets the host that other nodes connect to; see [`advertise`](Self#structfield.advertise).
    #[must_use]
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertise = Some(host.into());
        self
    }

    /// Takes a refused connection as proof of death; see [`trust_refused`](Self#structfield.trust_refused).
    #[must_use]
    pub fn trust_refused(mut self) -> Self {
        self.trust_refused = true;
        self
    }
}

/// A shared [`Assignor`]. Two values are equal if they point to the same object.
#[derive(Clone, Debug)]
pub struct SharedAssignor(pub Arc<dyn Assignor>);

impl PartialEq for SharedAssignor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedAssignor {}

impl Hash for SharedAssignor {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Timing of the health check, and the number of failures that make a node unhealthy.
///
/// If every check fails from some moment on, the node counts as unhealthy, and stops acting as leader, after at most
/// `interval + failures * max(interval, deadline)`: 8 s by default. Once checks pass again, it counts as healthy after
/// at most `interval + deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HealthChecks {
    /// Time from the start of one check to the start of the next. 2 s by default. At most one check runs at a time.
    pub interval: Duration,
    /// Time limit for a check. 2 s by default. A check that exceeds it is cancelled and counts as failed. If it blocks
    /// its thread, it cannot be cancelled, and counts as failed again in each further interval.
    pub deadline: Duration,
    /// Number of failures in a row that make a healthy node unhealthy. 3 by default, at least 1. With a small number, a
    /// brief hiccup moves all keys of the node. A node that has not joined yet is unhealthy at its first failure.
    pub failures: u32,
}

impl Default for HealthChecks {
    fn default() -> Self {
        HealthChecks { interval: Duration::from_secs(2), deadline: Duration::from_secs(2), failures: 3 }
    }
}

/// A delay that doubles with each failure, up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// Delay after the first failure. More than zero.
    pub first: Duration,
    /// Longest delay. At least `first`.
    pub max: Duration,
}

impl Backoff {
    /// Creates a backoff that starts at `first` and doubles up to `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Backoff { first, max }
    }

    /// Returns the delay after `failures` failures in a row. Returns the first delay if `failures` is 0.
    pub fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }
}

/// Treatment, by the leader, of nodes that keep a version from becoming stable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Laggards {
    /// Waits for the laggards, and reports them after [`Config::warn_after`].
    #[default]
    Wait,
    /// Removes the laggards from the cluster after this time, counted from the version's publication. They rejoin by
    /// themselves as new members, after a pause that doubles from 1 s to 10 min until they are ready at a version. A
    /// leader that is itself the laggard steps down. The leader removes no nodes while the share of late or refusing
    /// nodes exceeds [`Config::mass_failure_percent`].
    Evict {
        /// Time limit for acknowledging a version. At least 1 s; more than an ordinary `stabilize` takes.
        after: Duration,
    },
}

/// Policy for the case that the node's name is held by an incarnation that this process never created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameConflict {
    /// Waits until the name is free. After a crash and a restart under the same name this takes up to one TTL.
    #[default]
    Wait,
    /// Takes over the name at start: the other process stops with [`StopReason::TakenOver`](crate::StopReason). A node
    /// that later loses its session and finds its name taken stops instead of taking it back.
    TakeOver,
    /// Stops with [`StopReason::NameTaken`](crate::StopReason).
    Fail,
}

impl Default for Config {
    fn default() -> Self {
        let secs = Duration::from_secs;
        let backoff = Backoff::new(Duration::from_millis(100), secs(5));
        Config {
            ttl: secs(15),
            renew_every: None,
            leadership: None,
            call_timeout: None,
            stabilize_retry: backoff,
            stabilize_timeout: None,
            on_stable_timeout: None,
            warn_after: secs(30),
            laggards: Laggards::Wait,
            mass_failure_percent: 50,
            name_conflict: NameConflict::Wait,
            publish_gap: backoff,
            health: None,
            stop_timeout: None,
            exclusive: None,
            has_release: false,
            release_timeout: Some(secs(120)),
            assignor: None,
            priority: DEFAULT_PRIORITY,
            restart_grace: Duration::ZERO,
            min_nodes: None,
            crash_detection: None,
        }
    }
}

/// A field of [`Config`] with a value that is invalid, alone or together with the other fields.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} of {value:?} cannot work: {rule}")]
pub struct InvalidConfig {
    /// Name of the field.
    pub field: &'static str,
    /// The value of the field. A number of failures or nodes is given as that many seconds.
    pub value: Duration,
    /// The rule that the value breaks.
    pub rule: String,
}

impl Config {
    /// Returns the time limit for stopping.
    pub(crate) fn stop_timeout(&self) -> Duration {
        let default = Duration::from_secs(if self.exclusive.is_some() { 30 } else { 5 });
        self.stop_timeout.unwrap_or(default)
    }

    /// Checks that the values are valid and fit together.
    ///
    /// # Errors
    ///
    /// Returns the first field that breaks a rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.check_lease()?;
        check_backoff("stabilize_retry", self.stabilize_retry)?;
        check_backoff("publish_gap", self.publish_gap)?;
        check_nonzero("warn_after", self.warn_after)?;
        if let Some(timeout) = self.stabilize_timeout {
            check_nonzero("stabilize_timeout", timeout)?;
        }
        if let Some(timeout) = self.on_stable_timeout {
            check_nonzero("on_stable_timeout", timeout)?;
        }
        if let Some(timeout) = self.release_timeout {
            check_nonzero("release_timeout", timeout)?;
        }
        if let Some(health) = self.health {
            check_nonzero("health.interval", health.interval)?;
            check_nonzero("health.deadline", health.deadline)?;
            let failures = Duration::from_secs(health.failures.into());
            check(health.failures > 0, "health.failures", failures, "it must be at least 1")?;
        }
        let rule =
            "it must be at most 1 day, or the slots of a node that does not come back would wait for longer";
        check(self.restart_grace <= MAX_TTL, "restart_grace", self.restart_grace, rule)?;
        let min_nodes = Duration::from_secs(self.min_nodes.unwrap_or(1).into());
        check(!min_nodes.is_zero(), "min_nodes", min_nodes, "it must be at least 1")?;
        if let Laggards::Evict { after } = self.laggards {
            let rule = "nodes need at least 1 s to stabilize before they are evicted";
            check(after >= MIN_TTL, "laggards", after, rule)?;
        }
        Ok(())
    }

    /// Checks the TTL and the times that are bounded by it.
    fn check_lease(&self) -> Result<(), InvalidConfig> {
        let ttl = self.ttl;
        let rule = "it must be at least 1 s, or an ordinary pause would end the session";
        check(ttl >= MIN_TTL, "ttl", ttl, rule)?;
        let rule = "it must be at most 1 day, or a crashed node would stay in the cluster for longer";
        check(ttl <= MAX_TTL, "ttl", ttl, rule)?;

        let renew_every = self.renew_every.unwrap_or(ttl / 3);
        check_nonzero("renew_every", renew_every)?;
        let rule = "it must be at most half of ttl, so that a lost renewal does not cost the session";
        check(renew_every <= ttl / 2, "renew_every", renew_every, rule)?;

        let leadership = self.leadership.unwrap_or(ttl * 2 / 3);
        let rule = "it must be more than renew_every, or a leader would be suspended between renewals";
        check(leadership > renew_every, "leadership", leadership, rule)?;
        let rule = "it must be less than ttl, or two nodes could act as leader at once";
        check(leadership < ttl, "leadership", leadership, rule)?;

        let call_timeout = self.call_timeout.unwrap_or(ttl / 6);
        check_nonzero("call_timeout", call_timeout)?;
        let rule =
            "it must be less than a third of ttl, so that a renewal that hangs leaves time for another";
        check(call_timeout < ttl / 3, "call_timeout", call_timeout, rule)
    }
}

const MIN_TTL: Duration = Duration::from_secs(1);
pub(crate) const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

fn check(holds: bool, field: &'static str, value: Duration, rule: &str) -> Result<(), InvalidConfig> {
    if holds { Ok(()) } else { Err(InvalidConfig { field, value, rule: rule.to_owned() }) }
}

fn check_nonzero(field: &'static str, value: Duration) -> Result<(), InvalidConfig> {
    check(!value.is_zero(), field, value, "it must be more than zero")
}

fn check_backoff(field: &'static str, backoff: Backoff) -> Result<(), InvalidConfig> {
    check_nonzero(field, backoff.first)?;
    let rule = "its first delay must not exceed its longest";
    check(backoff.first <= backoff.max, field, backoff.first, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_for_every_ttl() {
        Config::default().validate().unwrap();
        Config { ttl: Duration::from_secs(1), ..Config::default() }.validate().unwrap();
        Config { ttl: Duration::from_secs(86_400), ..Config::default() }.validate().unwrap();
    }

    #[test]
    fn invalid_values_are_refused_with_the_name_of_their_field() {
        let ms = Duration::from_millis;
        let zero = Duration::ZERO;
        type Set = fn(&mut Config, Duration);
        fn health(config: &mut Config) -> &mut HealthChecks {
            config.health.get_or_insert_default()
        }
        let refused: &[(&str, Set, Duration)] = &[
            ("ttl", |config, value| config.ttl = value, zero),
            ("ttl", |config, value| config.ttl = value, ms(999)),
            ("ttl", |config, value| config.ttl = value, ms(86_400_001)),
            ("renew_every", |config, value| config.renew_every = Some(value), zero),
            ("renew_every", |config, value| config.renew_every = Some(value), ms(7_501)),
            ("leadership", |config, value| config.leadership = Some(value), ms(5_000)),
            ("leadership", |config, value| config.leadership = Some(value), ms(15_000)),
            ("call_timeout", |config, value| config.call_timeout = Some(value), zero),
            ("call_timeout", |config, value| config.call_timeout = Some(value), ms(5_000)),
            ("stabilize_retry", |config, value| config.stabilize_retry.first = value, ms(5_001)),
            ("publish_gap", |config, value| config.publish_gap.first = value, ms(5_001)),
            ("warn_after", |config, value| config.warn_after = value, zero),
            ("stabilize_timeout", |config, value| config.stabilize_timeout = Some(value), zero),
            ("on_stable_timeout", |config, value| config.on_stable_timeout = Some(value), zero),
            ("health.interval", |config, value| health(config).interval = value, zero),
            ("health.deadline", |config, value| health(config).deadline = value, zero),
            ("health.failures", |config, _| health(config).failures = 0, zero),
            ("laggards", |config, value| config.laggards = Laggards::Evict { after: value }, ms(999)),
        ];
        for (field, set, value) in refused {
            let mut config = Config::default();
            set(&mut config, *value);
            let error = config.validate().unwrap_err();
            assert_eq!((error.field, error.value), (*field, *value), "{error}");
        }
    }

    #[test]
    fn a_backoff_doubles_up_to_its_limit() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let delays: Vec<_> = (0..9).map(|failures| backoff.after(failures).as_millis()).collect();
        assert_eq!(delays, [100, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.after(u32::MAX), backoff.max);
    }
}
