use std::{collections::BTreeSet, time::Duration};

use clustering_core::{Clustering, NodeName, Version, machine::Phase};
use futures_util::future::select_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Failure, TestCluster, shared::Stage};

/// How often is looked again if nothing says that something changed.
const LOOK: Duration = Duration::from_millis(50);

/// Why it is not as it is waited for.
enum NotYet {
    Wait(String),
    /// It will never be.
    Never(Failure),
}

impl<S: Send + Sync + 'static> TestCluster<S> {
    /// Waits until the newest version is stable, has just the nodes that run, are not paused and reach the store, and all
    /// of these know that. Returns the version.
    ///
    /// # Errors
    ///
    /// If that does not come within the [patience](super::TestClusterBuilder::patience), or one of the services did not
    /// start: who is missing, how the nodes stand, what happened last.
    pub async fn wait_stable(&self) -> Result<Version, Failure> {
        self.wait(
            || self.names_of(|seat| seat.takes_part() || seat.has_failed()),
            |names| self.stable_with(&names),
        )
        .await
    }

    /// As [`wait_stable`](Self::wait_stable), with just these nodes.
    ///
    /// # Errors
    ///
    /// As [`wait_stable`](Self::wait_stable).
    ///
    /// # Panics
    ///
    /// If there is no process of one of the names.
    pub async fn wait_stable_of<N: AsRef<str>>(
        &self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Version, Failure> {
        let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
        names.iter().for_each(|name| self.with_seat(name, |_| ()));
        self.wait(|| names.clone(), |names| self.stable_with(&names)).await
    }

    /// Waits until each process that runs has its service.
    ///
    /// # Errors
    ///
    /// If one did not start, or does not within the [patience](super::TestClusterBuilder::patience).
    pub async fn wait_started(&self) -> Result<(), Failure> {
        self.wait(
            || self.names_of(|seat| seat.runs() || seat.has_failed()),
            |names| names.iter().try_for_each(|name| self.started(name)),
        )
        .await
    }

    /// Waits until the process has its service.
    ///
    /// # Errors
    ///
    /// If it did not start, or does not within the [patience](super::TestClusterBuilder::patience).
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    pub async fn wait_started_of(&self, name: &str) -> Result<(), Failure> {
        self.wait(|| vec![name.to_owned()], |_| self.started(name)).await
    }

    /// Waits until `holds` gives something, looking again whenever a node's status changes and every 50 ms.
    ///
    /// # Errors
    ///
    /// If that does not come within the [patience](super::TestClusterBuilder::patience).
    pub async fn wait_until<T>(&self, what: &str, holds: impl Fn() -> Option<T>) -> Result<T, Failure> {
        self.wait(|| self.running(), |_| holds().ok_or_else(|| NotYet::Wait(what.to_owned()))).await
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
            if timeout_at(deadline, self.change(&nodes)).await.is_err() {
                let what = format!("{:?} passed in vain; still missing: {missing}", self.patience);
                return Err(self.told(Failure::new(what)));
            }
        }
    }

    /// Resolves when one of these nodes knows something new, a process starts or ends, or after a moment.
    async fn change(&self, nodes: &[Clustering]) {
        let mut processes = self.shared.changed.subscribe();
        let mut statuses: Vec<_> = nodes.iter().map(Clustering::status).collect();
        let look = sleep(LOOK);
        let status = async {
            if statuses.is_empty() {
                std::future::pending::<()>().await;
            }
            let changes = statuses.iter_mut().map(|status| Box::pin(status.changed()));
            // A node that has ended changes no more.
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
            Stage::Starting => Err(NotYet::Wait(format!("the service of {name}, which is starting"))),
            Stage::Failed(why) => Err(NotYet::Never(Failure::new(format!("{name} did not start: {why}")))),
            Stage::Down => Err(NotYet::Never(Failure::new(format!("{name} was ended")))),
            Stage::Up(_) if seat.gate().node_name().is_none() => {
                let what = format!("the service of {name} started no node in the namespace {namespace:?}");
                let hint = "give TestCluster::builder() the service's namespace; and start the node in the factory's own \
                            future or a task of Process::spawn, not in one of tokio::spawn";
                Err(NotYet::Never(Failure::new(what).hint(hint)))
            }
            Stage::Up(_) => Ok(()),
        })
    }

    /// The version that is stable with just the nodes of these processes, as all of them know.
    fn stable_with(&self, names: &[String]) -> Result<Version, NotYet> {
        if names.is_empty() {
            let what = "no node runs, is not paused and reaches the store, so nothing becomes stable";
            return Err(NotYet::Never(Failure::new(what)));
        }
        names.iter().try_for_each(|name| self.started(name))?;
        let nodes: Vec<(NodeName, Option<Clustering>)> = names
            .iter()
            .map(|name| {
                self.with_seat(name, |seat| (seat.gate().node_name().expect("it has started"), seat.node()))
            })
            .collect();
        let expected: BTreeSet<&NodeName> = nodes.iter().map(|(name, _)| name).collect();
        let mut version = None;
        for (name, node) in &nodes {
            let Some(node) = node else {
                let what = format!("the service of {name} has let go of its node");
                return Err(NotYet::Never(Failure::new(what)));
            };
            let status = node.status().get();
            if let Phase::Stopped(reason) = &status.phase {
                return Err(NotYet::Never(Failure::new(format!("{name} has ended: {reason}"))));
            }
            let wait = |what: String| Err(NotYet::Wait(what));
            let Some(newest) = &status.newest else { return wait(format!("{name} knows no version")) };
            if !newest.iter().map(|node| &node.name).eq(expected.iter().copied()) {
                let has: Vec<_> = newest.iter().map(|node| node.name.as_str()).collect();
                let wants: Vec<_> = expected.iter().map(|name| name.as_str()).collect();
                return wait(format!("a version of {wants:?}; the newest that {name} knows is of {has:?}"));
            }
            if status.stable_version().is_none() {
                return wait(format!("{} is not stable, as {name} knows", newest.version()));
            }
            if *version.get_or_insert(newest.version()) != newest.version() {
                return wait(format!("{name} knows another version than the others"));
            }
        }
        version.ok_or_else(|| NotYet::Wait("a version".to_owned()))
    }
}
