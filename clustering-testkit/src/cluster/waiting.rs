use std::{collections::BTreeSet, time::Duration};

use clustering_core::{Clustering, NodeName, Version, View, machine::Phase};
use futures_util::future::select_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Failure, TestCluster, shared::Stage};

/// Interval at which a condition is checked again without any notification.
const LOOK: Duration = Duration::from_millis(50);

/// Reason why a condition does not hold yet.
enum NotYet {
    Wait(String),
    /// The condition will never hold.
    Never(Failure),
}

impl<S: Send + Sync + 'static> TestCluster<S> {
    /// Waits until the newest version is stable, its nodes are exactly those that are running, not paused and connected
    /// to the store, and all of these know that it is stable. Returns the version.
    ///
    /// # Errors
    ///
    /// Returns an error after the [patience](super::TestClusterBuilder::patience), or if one of the services did not
    /// start. The error names the missing nodes, the state of all nodes and the last events.
    pub async fn wait_stable(&self) -> Result<Version, Failure> {
        self.wait(
            || self.names_of(|seat| seat.takes_part() || seat.has_failed()),
            |names| self.stable_with(&names),
        )
        .await
    }

    /// Waits until a version with exactly these nodes is stable, like [`wait_stable`](Self::wait_stable).
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`wait_stable`](Self::wait_stable).
    ///
    /// # Panics
    ///
    /// Panics if one of the names is unknown.
    pub async fn wait_stable_of<N: AsRef<str>>(
        &self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Version, Failure> {
        let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
        names.iter().for_each(|name| self.with_seat(name, |_| ()));
        self.wait(|| names.clone(), |names| self.stable_with(&names)).await
    }

    /// Waits until every running process has started its service.
    ///
    /// # Errors
    ///
    /// Returns an error if a service fails to start, or does not start within the
    /// [patience](super::TestClusterBuilder::patience).
    pub async fn wait_started(&self) -> Result<(), Failure> {
        self.wait(
            || self.names_of(|seat| seat.runs() || seat.has_failed()),
            |names| names.iter().try_for_each(|name| self.started(name)),
        )
        .await
    }

    /// Waits until the process has started its service.
    ///
    /// # Errors
    ///
    /// Returns an error if the service fails to start, or does not start within the
    /// [patience](super::TestClusterBuilder::patience).
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    pub async fn wait_started_of(&self, name: &str) -> Result<(), Failure> {
        self.wait(|| vec![name.to_owned()], |_| self.started(name)).await
    }

    /// Waits until `holds` returns `Some`, and returns the value. Calls it whenever a node's status changes, and every
    /// 50 ms. `what` describes the condition in the error.
    ///
    /// # Errors
    ///
    /// Returns an error if `holds` returns `None` for longer than the [patience](super::TestClusterBuilder::patience).
    pub async fn wait_until<T>(&self, what: &str, holds: impl Fn() -> Option<T>) -> Result<T, Failure> {
        self.wait(|| self.running(), |_| holds().ok_or_else(|| NotYet::Wait(what.to_owned()))).await
    }

    /// Waits until the cluster is stable, and every slot of an exclusive cluster is held by the node that owns it.
    pub(super) async fn wait_stable_and_held(&self) -> Result<(), Failure> {
        self.wait(
            || self.names_of(|seat| seat.takes_part() || seat.has_failed()),
            |names| {
                self.stable_with(&names)?;
                names.iter().try_for_each(|name| self.holds_its_slots(name))
            },
        )
        .await
    }

    fn holds_its_slots(&self, name: &str) -> Result<(), NotYet> {
        let Some(node) = self.with_seat(name, |seat| seat.node()) else { return Ok(()) };
        let newest = node.status().get().newest.clone().filter(View::has_handover);
        let Some(newest) = newest.filter(|_| node.slot_of("").is_some()) else { return Ok(()) };
        let missing = newest.slots_of(node.name()).difference(&node.held_slots());
        if missing.is_empty() {
            return Ok(());
        }
        Err(NotYet::Wait(format!(
            "{name} to hold the slots {missing}, which it owns in {}",
            newest.version()
        )))
    }

    async fn wait<T>(
        &self,
        names: impl Fn() -> Vec<String>,
        look: impl Fn(Vec<String>) -> Result<T, NotYet>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + self.patience;
        loop {
            let names = names();
            let nodes: Vec<_> =
                names.iter().filter_map(|name| self.with_seat(name, |seat| seat.node())).collect();
            let missing = match look(names) {
                Ok(found) => return Ok(found),
                Err(NotYet::Never(failure)) => return Err(self.told(failure)),
                Err(NotYet::Wait(missing)) => missing,
            };
            let change = async { Ok(timeout_at(deadline, self.change(&nodes)).await) };
            if self.unless_still(change).await?.is_err() {
                let what = format!("timed out after {:?} waiting for {missing}", self.patience);
                return Err(self.told(Failure::new(what)));
            }
        }
    }

    /// Resolves when the status of one of these nodes changes, when a process starts or ends, or after [`LOOK`].
    async fn change(&self, nodes: &[Clustering]) {
        let mut processes = self.shared.changed.subscribe();
        let mut statuses: Vec<_> = nodes.iter().map(Clustering::status).collect();
        let look = sleep(LOOK);
        let status = async {
            if statuses.is_empty() {
                std::future::pending::<()>().await;
            }
            let changes = statuses.iter_mut().map(|status| Box::pin(status.changed()));
            // The status of an ended node does not change any more.
            if select_all(changes).await.0.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = status => {}
            _ = processes.changed() => {}
            () = look => {}
        }
    }

    fn started(&self, name: &str) -> Result<(), NotYet> {
        let namespace = &self.shared.namespace;
        self.with_seat(name, |seat| match &seat.stage {
            Stage::Starting => Err(NotYet::Wait(format!("the service of {name}, which is still starting"))),
            Stage::Failed(why) => Err(NotYet::Never(Failure::new(format!("{name} did not start: {why}")))),
            Stage::Down => Err(NotYet::Never(Failure::new(format!("{name} is down")))),
            Stage::Up(_) if seat.gate().node_name().is_none() => {
                let what = format!("the service of {name} started no node in the namespace {namespace:?}");
                let hint = "pass the service's namespace to TestCluster::builder(), and start the node in the factory's \
                            future or with Process::spawn, not with tokio::spawn";
                Err(NotYet::Never(Failure::new(what).hint(hint)))
            }
            Stage::Up(_) => Ok(()),
        })
    }

    /// Returns the version that is stable with exactly the nodes of these processes, if all of them know it.
    fn stable_with(&self, names: &[String]) -> Result<Version, NotYet> {
        if names.is_empty() {
            let what =
                "nothing can become stable: no process is running, unpaused and connected to the store";
            return Err(NotYet::Never(Failure::new(what)));
        }
        names.iter().try_for_each(|name| self.started(name))?;
        let nodes: Vec<(NodeName, Option<Clustering>)> = names
            .iter()
            .map(|name| {
                self.with_seat(name, |seat| {
                    (seat.gate().node_name().expect("the process has started"), seat.node())
                })
            })
            .collect();
        let expected: BTreeSet<&NodeName> = nodes.iter().map(|(name, _)| name).collect();
        let mut version = None;
        for (name, node) in &nodes {
            let Some(node) = node else {
                let what = format!("the service of {name} has dropped its node");
                return Err(NotYet::Never(Failure::new(what)));
            };
            let status = node.status().get();
            if let Phase::Stopped(reason) = &status.phase {
                return Err(NotYet::Never(Failure::new(format!("the node of {name} has ended: {reason}"))));
            }
            let wait = |what: String| Err(NotYet::Wait(what));
            let Some(newest) = &status.newest else { return wait(format!("{name} to learn of a version")) };
            if !newest.iter().map(|node| &node.name).eq(expected.iter().copied()) {
                let has: Vec<_> = newest.iter().map(|node| node.name.as_str()).collect();
                let wants: Vec<_> = expected.iter().map(|name| name.as_str()).collect();
                return wait(format!(
                    "a version with the nodes {wants:?}; the newest that {name} knows has {has:?}"
                ));
            }
            if status.stable_version().is_none() {
                return wait(format!("{name} to see that {} is stable", newest.version()));
            }
            if *version.get_or_insert(newest.version()) != newest.version() {
                return wait(format!("{name} to know the same version as the others"));
            }
        }
        version.ok_or_else(|| NotYet::Wait("a stable version".to_owned()))
    }
}
