//! How long things may take, and what to do where the answer is a matter of taste.

use std::time::Duration;

use thiserror::Error;

/// Times and policies of a node. The defaults need no tuning; each field says how it relates to the others.
///
/// Make one from [`Config::default`] and change its fields, or use [`Builder::configure`](crate::Builder::configure).
///
/// All durations are measured on the node's own clock, which on Linux goes on while the machine is suspended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    /// How long the node's lease lives without a renewal: the time after which a crashed node is gone for the others.
    ///
    /// 15 s by default, where Kubernetes and Nomad settled too; shorter ones flap in the field. From 1 s to 1 day. All
    /// deadlines count from the TTL that the store granted, which may be longer.
    pub ttl: Duration,
    /// How long after a renewal was sent the next one is. `None`, the default, is a third of the granted TTL, so that
    /// one lost renewal does not cost the session. At most half the TTL.
    pub renew_every: Option<Duration>,
    /// How long after a failed renewal the next try is. 500 ms by default; never more than a sixth of the TTL.
    pub renew_retry: Duration,
    /// How long after the sending of its last good renewal a leader may act. `None`, the default, is two thirds of the
    /// granted TTL: the rest is left to stop work before somebody else leads. More than
    /// [`renew_every`](Self::renew_every), less than the TTL.
    pub leadership: Option<Duration>,
    /// How long a call to the store may take. `None`, the default, is a sixth of the TTL, which leaves a hung renewal
    /// room for other tries. Less than a third of the TTL.
    pub call_timeout: Option<Duration>,
    /// How far apart candidates campaign when the leader is lost: the oldest at once, each next one so much later.
    /// 50 ms by default; twice the measured round trip to the store if that is more.
    pub stagger: Duration,
    /// Between tries of calls that the store did not answer. 100 ms doubling to 5 s by default.
    pub retry: Backoff,
    /// Between tries of a stabilize that did not say yes. 100 ms doubling to 5 s by default.
    pub stabilize_retry: Backoff,
    /// After how long a stabilize is ended (its future dropped) and counted as a no. `None`, the default: never; how
    /// long it may take is the user's business. A future can only be dropped where it awaits: one that blocks its
    /// thread is not ended, and no other is begun beside it.
    pub stabilize_timeout: Option<Duration>,
    /// Time limit for an `on_stable` call. A call that exceeds it is cancelled (its future is dropped) and counts as
    /// failed. `None`, the default, sets no limit. No later version is announced while the call runs. A future can only
    /// be dropped where it awaits: a callback that blocks its thread runs on, and no other call is started beside it.
    pub on_stable_timeout: Option<Duration>,
    /// Time after which the node reports a version that is not stable yet, a stabilize or `on_stable` call that still
    /// runs, or a store call that keeps failing. 30 s by default.
    pub warn_after: Duration,
    /// What the leader does about nodes that keep a version from becoming stable.
    pub laggards: Laggards,
    /// Percentage of the nodes above which simultaneous failures count as a mass failure. The leader then assumes a
    /// common cause (a bad release, a database that every node needs), evicts no nodes, and reports a
    /// [`MassFailure`](crate::Event::MassFailure). 50 by default; 0 disables evictions, and 100 disables this
    /// protection.
    pub mass_failure_percent: u8,
    /// What to do if the node's name is taken.
    pub name_conflict: NameConflict,
    /// The gap between publications while changes come in rows. 100 ms doubling to 5 s by default; a lone change is
    /// published at once.
    pub publish_gap: Backoff,
    /// How long it must be calm until the next change counts as a lone one again. 1 s by default.
    pub calm: Duration,
    /// How often the user's [health check](crate::Builder::health) is called, and what its failures mean (P11). `None`, the
    /// default: never, and the node counts as healthy. Setting the callback sets the [default](HealthChecks::default).
    pub health: Option<HealthChecks>,
    /// How long [`stop`](crate::Clustering::stop) may take to leave and to give the lease back while the store does not
    /// answer, and to let running callbacks end. 5 s by default: the commit by which the node leaves gets half of it at most.
    /// Whatever is left then ends by itself: the lease by its TTL, the callbacks by being dropped.
    pub stop_timeout: Duration,
}

/// When a node counts as unhealthy, by its own check.
///
/// From the moment at which every check fails it takes at most `interval + failures * max(interval, deadline)` until it
/// does, and acts as leader no more: 8 s by default. From the moment at which checks pass again it takes at most `interval + deadline` until it counts as
/// healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HealthChecks {
    /// How long after a check began the next one does. 2 s by default. There is one at a time.
    pub interval: Duration,
    /// How long a check may take: after that it counts as failed, its future is dropped, and for each further interval
    /// in which it does not end (as it blocks its thread) it counts as failed again. 2 s by default.
    pub deadline: Duration,
    /// How many failures in a row make a healthy node unhealthy: giving up its session moves all that it owns. 3 by
    /// default, at least 1. A node that has not joined yet is unhealthy at its first failure.
    pub failures: u32,
}

impl Default for HealthChecks {
    fn default() -> Self {
        HealthChecks { interval: Duration::from_secs(2), deadline: Duration::from_secs(2), failures: 3 }
    }
}

/// A delay that doubles from one try to the next, up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// The first delay.
    pub first: Duration,
    /// The longest one.
    pub max: Duration,
}

impl Backoff {
    /// From `first`, doubling to `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Backoff { first, max }
    }

    /// The delay after `failures` failures in a row; of the first, if there was none.
    pub fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }
}

/// What the leader does about nodes that keep a version from becoming stable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Laggards {
    /// Waits for them, and names them from [`Config::warn_after`] on.
    #[default]
    Wait,
    /// Removes them from the cluster after that time, counted from the version's publication. They rejoin by themselves
    /// as new members, after a pause that doubles from 1 s to 10 min until they are ready at a version. A leader that
    /// is itself the laggard steps down. The leader removes no nodes while the share of late or refusing nodes exceeds
    /// [`Config::mass_failure_percent`].
    Evict {
        /// The time. No less than 1 s.
        after: Duration,
    },
}

/// What to do if the node's name stands with an incarnation that this process never minted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameConflict {
    /// Wait until the other one is gone. After a crash and restart under the same name that takes up to one TTL.
    #[default]
    Wait,
    /// At start, take the name over: the other one stops with [`StopReason::TakenOver`](crate::StopReason). A node
    /// that later loses its session and finds its name taken stops in turn.
    TakeOver,
    /// Give up with [`StopReason::NameTaken`](crate::StopReason).
    Fail,
}

impl Default for Config {
    fn default() -> Self {
        let secs = Duration::from_secs;
        let retry = Backoff::new(Duration::from_millis(100), secs(5));
        Config {
            ttl: secs(15),
            renew_every: None,
            renew_retry: Duration::from_millis(500),
            leadership: None,
            call_timeout: None,
            stagger: Duration::from_millis(50),
            retry,
            stabilize_retry: retry,
            stabilize_timeout: None,
            on_stable_timeout: None,
            warn_after: secs(30),
            laggards: Laggards::Wait,
            mass_failure_percent: 50,
            name_conflict: NameConflict::Wait,
            publish_gap: retry,
            calm: secs(1),
            health: None,
            stop_timeout: secs(5),
        }
    }
}

/// A combination of times that cannot work: the field, its value, the rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} of {value:?} cannot work: {rule}")]
pub struct InvalidConfig {
    /// The field of [`Config`].
    pub field: &'static str,
    /// Its value.
    pub value: Duration,
    /// The rule that it breaks.
    pub rule: String,
}

impl Config {
    /// Refuses combinations that cannot work.
    ///
    /// # Errors
    ///
    /// The first field that breaks a rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const MIN_TTL: Duration = Duration::from_secs(1);
        const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
        let ttl = self.ttl;
        let check = |holds: bool, field, value, rule: &str| match holds {
            true => Ok(()),
            false => Err(InvalidConfig { field, value, rule: rule.to_owned() }),
        };
        let nonzero =
            |field, value: Duration| check(!value.is_zero(), field, value, "it must be more than zero");
        let backoff = |field, backoff: Backoff| {
            nonzero(field, backoff.first)?;
            check(
                backoff.first <= backoff.max,
                field,
                backoff.first,
                "its first delay must not exceed its longest",
            )
        };

        check(
            ttl >= MIN_TTL,
            "ttl",
            ttl,
            "it must be at least 1 s, or an ordinary pause would end the session",
        )?;
        check(
            ttl <= MAX_TTL,
            "ttl",
            ttl,
            "it must be at most 1 day, or a crashed node would stay for longer",
        )?;
        let renew_every = self.renew_every.unwrap_or(ttl / 3);
        nonzero("renew_every", renew_every)?;
        check(
            renew_every <= ttl / 2,
            "renew_every",
            renew_every,
            "it must be at most half of ttl, so that a lost renewal does not cost the session",
        )?;
        nonzero("renew_retry", self.renew_retry)?;
        let leadership = self.leadership.unwrap_or(ttl * 2 / 3);
        check(
            leadership > renew_every,
            "leadership",
            leadership,
            "it must be more than renew_every, or a leader would be suspended between renewals",
        )?;
        check(
            leadership < ttl,
            "leadership",
            leadership,
            "it must be less than ttl, or two could act as leader at once",
        )?;
        let call_timeout = self.call_timeout.unwrap_or(ttl / 6);
        nonzero("call_timeout", call_timeout)?;
        check(
            call_timeout < ttl / 3,
            "call_timeout",
            call_timeout,
            "it must be less than a third of ttl, so that a hung renewal leaves room for another",
        )?;
        check(self.stagger < ttl, "stagger", self.stagger, "it must be less than ttl")?;
        backoff("retry", self.retry)?;
        backoff("stabilize_retry", self.stabilize_retry)?;
        backoff("publish_gap", self.publish_gap)?;
        nonzero("warn_after", self.warn_after)?;
        if let Some(timeout) = self.stabilize_timeout {
            nonzero("stabilize_timeout", timeout)?;
        }
        if let Some(timeout) = self.on_stable_timeout {
            nonzero("on_stable_timeout", timeout)?;
        }
        if let Some(health) = self.health {
            nonzero("health.interval", health.interval)?;
            nonzero("health.deadline", health.deadline)?;
            let times = Duration::from_secs(health.failures.into());
            check(health.failures > 0, "health.failures", times, "it must be at least 1")?;
        }
        if let Laggards::Evict { after } = self.laggards {
            check(
                after >= MIN_TTL,
                "laggards",
                after,
                "nodes need at least 1 s to stabilize before they are evicted",
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work() {
        Config::default().validate().unwrap();
        Config { ttl: Duration::from_secs(1), ..Config::default() }.validate().unwrap();
        Config { ttl: Duration::from_secs(86_400), ..Config::default() }.validate().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_by_the_name_of_its_field() {
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
            ("renew_retry", |config, value| config.renew_retry = value, zero),
            ("leadership", |config, value| config.leadership = Some(value), ms(5_000)),
            ("leadership", |config, value| config.leadership = Some(value), ms(15_000)),
            ("call_timeout", |config, value| config.call_timeout = Some(value), zero),
            ("call_timeout", |config, value| config.call_timeout = Some(value), ms(5_000)),
            ("stagger", |config, value| config.stagger = value, ms(15_000)),
            ("retry", |config, value| config.retry.first = value, zero),
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
