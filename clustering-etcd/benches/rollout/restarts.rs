//! Rolling restarts.

use std::{error::Error, time::Duration};

use clustering_core::{Backoff, NodeName};
use clustering_testkit::{etcd::EtcdServer, random::Random};

use crate::{
    arguments::Arguments,
    cluster::{Cluster, Settings},
    log::Log,
    report::Outcome,
};

/// TTL of the leases: the library's default.
const TTL: Duration = Duration::from_secs(15);

/// Restart grace of the nodes, longer than any restart here takes.
const GRACE: Duration = Duration::from_secs(60);

/// Pause between publications. Each restart here begins when the last one is stable. In a real rollout, that takes
/// longer than a second, after which the library publishes the next change at once.
const GAP: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));

/// Most elections in a rolling restart, in any order.
const ELECTIONS: u64 = 2;

/// A rolling restart of all nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restarts {
    kind: Kind,
    order: Order,
    grace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A node stops, and then starts under the same name.
    StatefulSet,
    /// A node with a new name starts, and then an old one stops.
    Deployment,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    /// The oldest node first.
    Age,
    /// The youngest node first.
    Reverse,
    Random,
}

impl Restarts {
    pub(crate) fn all() -> impl Iterator<Item = Restarts> {
        let kinds = [Kind::StatefulSet, Kind::Deployment].into_iter();
        kinds.flat_map(|kind| {
            let orders = [Order::Age, Order::Reverse, Order::Random].into_iter();
            orders.flat_map(move |order| [false, true].map(|grace| Restarts { kind, order, grace }))
        })
    }

    pub(crate) fn name(self) -> String {
        let kind = match self.kind {
            Kind::StatefulSet => "statefulset",
            Kind::Deployment => "deployment",
        };
        let order = match self.order {
            Order::Age => "age",
            Order::Reverse => "reverse",
            Order::Random => "random",
        };
        format!("{kind}/{order}{}", if self.grace { "/grace" } else { "" })
    }

    pub(crate) async fn run(
        self,
        arguments: &Arguments,
        etcd: &EtcdServer,
    ) -> Result<Outcome, Box<dyn Error>> {
        let (nodes, slots) = (arguments.nodes, arguments.slots);
        let old = names("node", nodes)?;
        let new = names("replacement", nodes)?;
        let settings = Settings {
            namespace: self.name(),
            slots,
            ttl: TTL,
            restart_grace: if self.grace { GRACE } else { Duration::ZERO },
            publish_gap: Some(GAP),
        };
        let mut cluster = Cluster::start(etcd, settings, &old).await?;
        let log = Log::begin(etcd, &self.name()).await?;
        let before = cluster.stabilizes();
        for (turn, place) in self.order.places(nodes, arguments.seed).into_iter().enumerate() {
            match self.kind {
                Kind::StatefulSet => {
                    cluster.stop(&old[place], self.grace).await?;
                    cluster.add(&old[place]).await?;
                }
                Kind::Deployment => {
                    cluster.add(&new[turn]).await?;
                    cluster.stop(&old[place], false).await?;
                }
            }
        }
        let counts = log.counts(&[old, new].concat()).await?;
        let stabilizes = cluster.stabilizes() - before;
        cluster.end().await;
        Ok(Outcome {
            case: self.name(),
            nodes,
            slots,
            counts,
            stabilizes,
            stable: None,
            most_elections: Some(ELECTIONS),
            most_moves: self.most_moves(nodes as u64, u64::from(slots)),
        })
    }

    /// Returns the moves of all slots together that exact balance demands, or 0 if all slots wait for their owners.
    fn most_moves(self, nodes: u64, slots: u64) -> u64 {
        // A node that starts gets the smaller share of the slots, and a node that stops may have the larger one.
        let one_of = |nodes: u64| slots / nodes + slots.div_ceil(nodes);
        match self.kind {
            Kind::StatefulSet if self.grace => 0,
            Kind::StatefulSet => nodes * one_of(nodes),
            // The replacements have other names, so no slot waits for them.
            Kind::Deployment => nodes * one_of(nodes + 1),
        }
    }
}

impl Order {
    /// Returns the places of the nodes, the oldest of which is at 0, in the order of their restarts.
    fn places(self, nodes: usize, seed: u64) -> Vec<usize> {
        let mut places: Vec<usize> = (0..nodes).collect();
        match self {
            Order::Age => {}
            Order::Reverse => places.reverse(),
            Order::Random => {
                let mut random = Random::stream(seed, 0);
                for last in (1..nodes).rev() {
                    places.swap(last, random.below(last as u64 + 1) as usize);
                }
            }
        }
        places
    }
}

/// Returns the names of this many nodes.
pub(crate) fn names(prefix: &str, nodes: usize) -> Result<Vec<NodeName>, Box<dyn Error>> {
    (0..nodes).map(|number| Ok(NodeName::parse(&format!("{prefix}-{number:03}"))?)).collect()
}
