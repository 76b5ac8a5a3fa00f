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

/// Version of this library, as a label.
pub const BUILD_INFO: Metric =
    gauge("clustering_build_info", &["version"], "Always 1; the label has the version of this library.");
/// Events of the node, by [kind](crate::Event::kind) (P10).
pub const EVENTS: Metric =
    counter("clustering_events_total", &["namespace", "event"], "Events of the node, by kind.");
/// Events that slow subscribers missed.
pub const EVENTS_MISSED: Metric = counter(
    "clustering_events_missed_total",
    &[],
    "Events that subscribers in this process missed because they fell too far behind.",
);
/// Published versions, by kind of cause.
pub const VERSIONS: Metric = counter(
    "clustering_versions_total",
    &["namespace", "cause"],
    "Versions that the node saw published, counted once for each kind of cause.",
);
/// Time that versions take to become stable.
pub const VERSION_STABLE: Metric = seconds(
    "clustering_version_stable_seconds",
    &["namespace"],
    "Time from seeing a version published to seeing it recorded as stable.",
);
/// Duration of the node's `stabilize` calls.
pub const STABILIZE: Metric = seconds(
    "clustering_stabilize_seconds",
    &["namespace", "outcome"],
    "Duration of a stabilize call of this node, by outcome (ready, refused or superseded).",
);
/// Number of `stabilize` calls that the node started.
pub const STABILIZE_ATTEMPTS: Metric = counter(
    "clustering_stabilize_attempts_total",
    &["namespace"],
    "Stabilize calls that this node started, including retries.",
);
/// Duration of the node's `on_stable` calls.
pub const ON_STABLE: Metric = seconds(
    "clustering_on_stable_seconds",
    &["namespace", "outcome"],
    "Duration of an on_stable call of this node, by outcome (done or failed).",
);
/// Elections that the node saw.
pub const ELECTIONS: Metric = counter(
    "clustering_elections_total",
    &["namespace", "own"],
    "Elections that the node saw, by whether the node itself was elected.",
);
/// Term of the current leader.
pub const TERM: Metric = gauge(
    "clustering_term",
    &["namespace"],
    "Term of the leader that the node sees; 0 if there is no leader.",
);
/// Leadership of the node.
pub const LEADER: Metric =
    gauge("clustering_leader", &["namespace"], "1 while the node may act as leader, else 0.");
/// Membership of the node.
pub const MEMBER: Metric =
    gauge("clustering_member", &["namespace"], "1 while the node is a member of the cluster, else 0.");
/// Health of the node.
pub const HEALTHY: Metric = gauge(
    "clustering_healthy",
    &["namespace"],
    "1 while the node is healthy or has no health check, else 0.",
);
/// Stability of the cluster, as the node sees it.
pub const STABLE: Metric = gauge(
    "clustering_stable",
    &["namespace"],
    "1 while the newest version is recorded as stable and the node is part of it, else 0.",
);
/// Loss of contact with the store.
pub const STORE_AWAY: Metric =
    gauge("clustering_store_away", &["namespace"], "1 while the store does not answer the node, else 0.");
/// Number of store calls that keep failing.
pub const FAILING_CALLS: Metric = gauge(
    "clustering_failing_calls",
    &["namespace"],
    "Store calls that the node needs and that have kept failing for longer than `warn_after`.",
);
/// Number of nodes, by state.
pub const NODES: Metric = gauge(
    "clustering_nodes",
    &["namespace", "state"],
    "Nodes by state: present in the log, versioned (in the newest version), and, on the leader only, unready in the newest version.",
);
/// Slots of an exclusive node, by state.
pub const SLOTS: Metric = gauge(
    "clustering_slots",
    &["namespace", "state"],
    "Slots of an exclusive node by state: held, and in_use (lost, but with holds that were not dropped).",
);
/// Mass failure that the node has detected as leader.
pub const MASS_FAILURE: Metric = gauge(
    "clustering_mass_failure",
    &["namespace"],
    "1 while the node leads and too many nodes fail at once, so that it evicts none, or keeps the slots of those that were lost; else 0.",
);
/// Sessions that the node lost.
pub const SESSIONS_LOST: Metric = counter(
    "clustering_sessions_lost_total",
    &["namespace", "reason"],
    "Sessions that the node lost, by reason.",
);
/// Renewals of the node's lease.
pub const RENEWALS: Metric = counter(
    "clustering_renewals_total",
    &["namespace", "outcome"],
    "Renewals of the node's lease, by outcome (done or failed).",
);
/// Duration of renewals.
pub const RENEWAL: Metric = seconds(
    "clustering_renewal_seconds",
    &["namespace"],
    "Duration of a renewal, whether it succeeded or not.",
);
/// Time left in the session at each renewal.
pub const RENEWAL_LEFT: Metric = seconds(
    "clustering_renewal_left_seconds",
    &["namespace"],
    "Time left in the session when a renewal succeeded.",
);
/// Commits of the node.
pub const COMMITS: Metric = counter(
    "clustering_commits_total",
    &["namespace", "purpose", "outcome"],
    "Commits of the node, by purpose and outcome (done, refused by a guard, failed or unknown).",
);
/// Watches that were opened again.
pub const WATCH_RESUMES: Metric = counter(
    "clustering_watch_resumes_total",
    &["namespace", "reason"],
    "Watches that ended and were opened again, by the reason why they ended.",
);
/// Resyncs from a snapshot.
pub const RESYNCS: Metric = counter(
    "clustering_resyncs_total",
    &["namespace", "rewound"],
    "Snapshots read because changes were missed, by whether the store was restored to an older state.",
);
/// Health checks that ended.
pub const HEALTH_CHECKS: Metric = counter(
    "clustering_health_checks_total",
    &["namespace", "outcome"],
    "Health checks that ended, by outcome (passed or failed).",
);
/// Duration of health checks.
pub const HEALTH_CHECK: Metric =
    seconds("clustering_health_check_seconds", &["namespace"], "Duration of a health check.");

/// All metrics.
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
    SLOTS,
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
