//! Operations on the owners of slots: cordon, uncordon and drain.

use super::{Done, Operator, OperatorError, TRIES, version_revision};
use crate::{
    keyspace::KeyKind,
    name::NodeName,
    record::{CordonRecord, DrainRecord, encode, shorten},
    store::{CoordinationStoreExt, Entry, ErrorKind, Guard, LeaseId, Revision, Txn},
};

/// The result of [`Operator::cordon`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cordoned {
    /// True if a node with that name is present. The cordon of an absent node takes effect when the node joins.
    pub present: bool,
    /// True if the node was not cordoned before.
    pub new: bool,
}

/// The result of [`Operator::drain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Draining {
    /// The lease of the session that was asked to leave. The node has left when no record has this lease.
    pub lease: LeaseId,
    /// The revision of the newest version at that time.
    pub version: Revision,
}

impl Operator {
    /// Cordons a node: the node owns no slots, and does not lead while another candidate is present. The leader of an
    /// exclusive cluster publishes a version that moves its slots to the other nodes. In other clusters the node keeps
    /// its keys.
    ///
    /// The cordon stays until it is [lifted](Self::uncordon), however often the node restarts. A node that is absent
    /// can be cordoned too. If the node is cordoned already, only the requester and the reason are replaced.
    ///
    /// # Errors
    ///
    /// [`OperatorError::NoCluster`].
    pub async fn cordon(&self, name: &NodeName, why: Option<&str>) -> Result<Cordoned, OperatorError> {
        let key = self.keyspace.cordon_key(name);
        let (by, why) = self.requested(why);
        let record = encode(&CordonRecord { by, why });
        let mut unsure = false;
        let mut was_new = false;
        for _ in 0..TRIES {
            let present = self.existing().await?.node(name).is_some();
            let stored = self.store.get(&key).await?;
            let is_done = stored.as_ref().is_some_and(|entry| entry.value == record);
            if is_done {
                return Ok(Cordoned { present, new: unsure && was_new });
            }
            was_new = stored.is_none();
            let txn = Txn::new().guard(Guard::modified_at(key.clone(), modified(stored.as_ref()))).put(
                key.clone(),
                record.clone(),
                None,
            );
            match self.commit(txn).await? {
                Done::Yes => return Ok(Cordoned { present, new: was_new }),
                Done::Refused { unsure: this } => unsure |= this,
            }
        }
        Err(OperatorError::Contended)
    }

    /// Lifts the cordon of a node: the leader may assign slots to it again.
    ///
    /// # Errors
    ///
    /// [`OperatorError::NoCluster`], [`OperatorError::NotCordoned`].
    pub async fn uncordon(&self, name: &NodeName) -> Result<(), OperatorError> {
        let key = self.keyspace.cordon_key(name);
        let mut unsure = false;
        for _ in 0..TRIES {
            let Some(stored) = self.store.get(&key).await? else {
                let report = self.existing().await?;
                let cordoned = report.cordoned.into_iter().map(|cordon| cordon.name).collect();
                let error = OperatorError::NotCordoned { name: name.clone(), cordoned };
                return if unsure { Ok(()) } else { Err(error) };
            };
            let txn = Txn::new().guard(Guard::modified_at(key.clone(), stored.modified)).delete(key.clone());
            match self.commit(txn).await? {
                Done::Yes => return Ok(()),
                Done::Refused { unsure: this } => unsure |= this,
            }
        }
        Err(OperatorError::Contended)
    }

    /// Asks a node to leave in order: it hands over its slots, and its process
    /// [stops](crate::StopReason::Drained). Other nodes take over its keys.
    ///
    /// The request is for the current session of the node. It disappears with that session, so a restarted node is not
    /// drained; [cordon](Self::cordon) the node to keep slots away from it. Nodes of older releases ignore the request.
    ///
    /// # Errors
    ///
    /// [`OperatorError::NoCluster`], [`OperatorError::NotPresent`]; [`OperatorError::NoSession`] if the node's record
    /// was written by hand.
    pub async fn drain(&self, name: &NodeName, why: Option<&str>) -> Result<Draining, OperatorError> {
        let key = self.keyspace.drain_key(name);
        let (by, why) = self.requested(why);
        // Set after a commit without a reply, which may have taken effect.
        let mut maybe: Option<Draining> = None;
        for _ in 0..TRIES {
            let report = self.existing().await?;
            let node = report.node(name);
            let lease = node.and_then(|node| node.lease);
            if let Some(draining) = maybe.filter(|draining| lease != Some(draining.lease)) {
                // The session that was asked to leave has ended.
                return Ok(draining);
            }
            let node = node.ok_or_else(|| self.not_present(&report, name))?;
            let lease = lease.ok_or_else(|| OperatorError::NoSession(name.clone()))?;
            let (incarnation, by, why) = (node.incarnation.clone(), by.clone(), why.clone());
            let record = encode(&DrainRecord { incarnation, by, why });
            let txn = Txn::new().guard(Guard::modified_at(self.keyspace.node_key(name), node.modified)).put(
                key.clone(),
                record,
                Some(lease),
            );
            let draining = Draining { lease, version: version_revision(&report) };
            match self.commit(txn).await {
                Ok(Done::Yes) => return Ok(draining),
                Ok(Done::Refused { unsure: true }) => maybe = Some(draining),
                Ok(Done::Refused { unsure: false }) => {}
                // The session has just ended, and its record is about to disappear.
                Err(error) if error.kind() == ErrorKind::LeaseNotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(OperatorError::Contended)
    }

    /// Returns the requester and the reason in their stored form.
    fn requested(&self, why: Option<&str>) -> (String, String) {
        (shorten(self.by.clone()), shorten(why.unwrap_or_default().to_owned()))
    }

    /// True if the key shows that a live session may still hold keys. Such a key disappears with its lease.
    pub(super) fn is_live_witness(&self, entry: &Entry) -> bool {
        entry.lease.is_some() && matches!(self.keyspace.kind_of(&entry.key), KeyKind::Holds(_))
    }
}

fn modified(entry: Option<&Entry>) -> Revision {
    entry.map_or(Revision::ZERO, |entry| entry.modified)
}
