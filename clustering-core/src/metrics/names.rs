use super::{Kind, Metric};

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn seconds(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Seconds, labels, help }
}

/// Build information.
pub const BUILD_INFO: Metric =
    gauge("clustering_build_info", &["version"], "1, with the version of this library as a label.");
/// Every transition, by its kind (P10).
pub const EVENTS: Metric =
    counter("clustering_events_total", &["namespace", "event"], "Transitions of the node, by kind.");
/// What subscribers lost.
pub const EVENTS_MISSED: Metric = counter(
    "clustering_events_missed_total",
    &[],
    "Events that subscribers in this process missed, as they were too far behind.",
);
/// Versions, by why.
pub const VERSIONS: Metric = counter(
    "clustering_versions_total",
    &["namespace", "cause"],
    "Versions that this node saw published, once for each kind of cause.",
);
/// The barrier.
pub const VERSION_STABLE: Metric = seconds(
    "clustering_version_stable_seconds",
    &["namespace"],
    "From when this node saw a version published until it saw it recorded as stable.",
);
/// The node's own part of it.
pub const STABILIZE: Metric = seconds(
    "clustering_stabilize_seconds",
    &["namespace", "outcome"],
    "How long a stabilize of this node ran, by whether it was ready, refused or superseded.",
);
/// Tries.
pub const STABILIZE_ATTEMPTS: Metric = counter(
    "clustering_stabilize_attempts_total",
    &["namespace"],
    "Stabilizes that this node began, each try counted.",
);
/// Announcements.
pub const ON_STABLE: Metric = seconds(
    "clustering_on_stable_seconds",
    &["namespace", "outcome"],
    "Duration of an on_stable of this node, by outcome (done or failed).",
);
/// Who leads.
pub const ELECTIONS: Metric = counter(
    "clustering_elections_total",
    &["namespace", "own"],
    "Leaders that this node saw elected, and whether that was itself.",
);
/// The present term.
pub const TERM: Metric = gauge(
    "clustering_term",
    &["namespace"],
    "The term of the leader that this node sees; 0 if nobody leads.",
);
/// Leading.
pub const LEADER: Metric =
    gauge("clustering_leader", &["namespace"], "1 while this node may act as leader, else 0.");
/// Being there.
pub const MEMBER: Metric =
    gauge("clustering_member", &["namespace"], "1 while this node has its place, else 0.");
/// Being well.
pub const HEALTHY: Metric =
    gauge("clustering_healthy", &["namespace"], "1 while this node's health lets it take part, else 0.");
/// Having adapted.
pub const STABLE: Metric = gauge(
    "clustering_stable",
    &["namespace"],
    "1 while the newest version is recorded as stable and this node is part of it, else 0.",
);
/// Being out of touch.
pub const STORE_AWAY: Metric =
    gauge("clustering_store_away", &["namespace"], "1 while the store does not answer this node, else 0.");
/// Calls that keep failing.
pub const FAILING_CALLS: Metric = gauge(
    "clustering_failing_calls",
    &["namespace"],
    "Number of store calls that this node needs and that have kept failing for longer than the time to warn.",
);
/// Who is there.
pub const NODES: Metric = gauge(
    "clustering_nodes",
    &["namespace", "state"],
    "Nodes by state: present in the log, in the newest version; and, told by the leader alone, unready in it.",
);
/// Failures of many nodes at once.
pub const MASS_FAILURE: Metric = gauge(
    "clustering_mass_failure",
    &["namespace"],
    "1 while this node leads and evicts no nodes because too many of them fail at once, else 0.",
);
/// Sessions.
pub const SESSIONS_LOST: Metric = counter(
    "clustering_sessions_lost_total",
    &["namespace", "reason"],
    "Sessions that this node lost, by why.",
);
/// Renewals.
pub const RENEWALS: Metric = counter(
    "clustering_renewals_total",
    &["namespace", "outcome"],
    "Renewals of this node's lease, by whether they were done or failed.",
);
/// How quick they are.
pub const RENEWAL: Metric =
    seconds("clustering_renewal_seconds", &["namespace"], "How long a renewal took, done or failed.");
/// How close it was.
pub const RENEWAL_LEFT: Metric = seconds(
    "clustering_renewal_left_seconds",
    &["namespace"],
    "The time that the session had left when a renewal was done.",
);
/// Commits.
pub const COMMITS: Metric = counter(
    "clustering_commits_total",
    &["namespace", "purpose", "outcome"],
    "Commits of this node, by purpose and by whether they were done, refused by a guard, failed or unknown.",
);
/// Watches.
pub const WATCH_RESUMES: Metric = counter(
    "clustering_watch_resumes_total",
    &["namespace", "reason"],
    "Watches that ended and are opened again, by why they ended.",
);
/// Gaps.
pub const RESYNCS: Metric = counter(
    "clustering_resyncs_total",
    &["namespace", "rewound"],
    "Snapshots read in place of changes, and whether the store was restored to an older state.",
);
/// Health.
pub const HEALTH_CHECKS: Metric = counter(
    "clustering_health_checks_total",
    &["namespace", "outcome"],
    "Health checks that ended, by whether they passed or failed.",
);
/// How long it takes.
pub const HEALTH_CHECK: Metric =
    seconds("clustering_health_check_seconds", &["namespace"], "How long a health check ran until it ended.");

/// All of them.
pub const ALL: &[Metric] = &[
    BUILD_INFO,
    EVENTS,
    EVENTS_MISSED,
    VERSIONS,
    VERSION_STABLE,
    STABILIZE,
    STABILIZE_ATTEMPTS,
    ON_STABLE,
    ELECTIONS,
    TERM,
    LEADER,
    MEMBER,
    HEALTHY,
    STABLE,
    STORE_AWAY,
    FAILING_CALLS,
    NODES,
    MASS_FAILURE,
    SESSIONS_LOST,
    RENEWALS,
    RENEWAL,
    RENEWAL_LEFT,
    COMMITS,
    WATCH_RESUMES,
    RESYNCS,
    HEALTH_CHECKS,
    HEALTH_CHECK,
];
