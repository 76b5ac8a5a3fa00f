//! The minimum that a program does with an etcd client to know the members and to elect a leader.

use std::{collections::BTreeSet, error::Error};

use clustering_testkit::history::Clock;
use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, KvClient, LeaseClient, PutOptions, Txn, TxnOp,
    WatchOptions,
};

use crate::process::{Spec, State, TTL};

/// State of a member.
struct Member {
    /// Prefix of the members' keys.
    members: String,
    /// Key of the leader.
    leader: String,
    name: String,
    lease: i64,
    present: BTreeSet<String>,
    /// Name of the leader.
    leads: Option<String>,
    kv: KvClient,
}

pub(crate) async fn run(spec: &Spec) -> Result<(), Box<dyn Error>> {
    let client = Client::connect([&spec.endpoint], None).await?;
    let prefix = format!("{}/", spec.namespace);
    let lease = client.lease_client().grant(TTL.as_secs() as i64, None).await?.id();
    tokio::spawn(renew(client.lease_client(), lease));
    let mut member = Member {
        members: format!("{prefix}members/"),
        leader: format!("{prefix}leader"),
        name: spec.name.clone(),
        lease,
        present: BTreeSet::new(),
        leads: None,
        kv: client.kv_client(),
    };
    let own = format!("{}{}", member.members, member.name);
    member.kv.put(own, "127.0.0.1:8080", Some(PutOptions::new().with_lease(lease))).await?;
    let snapshot = member.kv.get(prefix.as_str(), Some(GetOptions::new().with_prefix())).await?;
    for entry in snapshot.kvs() {
        member.put(entry.key_str()?, entry.value_str()?);
    }
    let seen = snapshot.header().ok_or("no header")?.revision();
    let options = WatchOptions::new().with_prefix().with_start_revision(seen + 1);
    let mut watch = client.watch_client().watch(prefix, Some(options)).await?;
    let (clock, mut state) = (Clock::boot(), State::default());
    loop {
        if member.leads.is_none() {
            member.campaign().await?;
        }
        let nodes = member.leads.as_ref().map(|_| member.present.len());
        state.update(&clock, nodes, member.leads.as_ref() == Some(&member.name));
        let message = watch.message().await?.ok_or("the watch ended")?;
        for event in message.events() {
            let entry = event.kv().ok_or("an event without a key")?;
            match event.event_type() {
                EventType::Put => member.put(entry.key_str()?, entry.value_str()?),
                EventType::Delete => member.delete(entry.key_str()?),
            }
        }
    }
}

/// Renews the lease three times per TTL.
async fn renew(mut leases: LeaseClient, lease: i64) -> Result<(), etcd_client::Error> {
    let (mut keeper, mut replies) = leases.keep_alive(lease).await?;
    loop {
        tokio::time::sleep(TTL / 3).await;
        keeper.keep_alive().await?;
        replies.message().await?;
    }
}

impl Member {
    fn put(&mut self, key: &str, value: &str) {
        if let Some(name) = key.strip_prefix(&self.members) {
            self.present.insert(name.to_owned());
        } else if key == self.leader {
            self.leads = Some(value.to_owned());
        }
    }

    fn delete(&mut self, key: &str) {
        if let Some(name) = key.strip_prefix(&self.members) {
            self.present.remove(name);
        } else if key == self.leader {
            self.leads = None;
        }
    }

    /// Creates the leader's key, unless it exists.
    async fn campaign(&mut self) -> Result<(), etcd_client::Error> {
        let key = self.leader.as_str();
        let put = TxnOp::put(key, self.name.as_str(), Some(PutOptions::new().with_lease(self.lease)));
        let txn = Txn::new().when([Compare::create_revision(key, CompareOp::Equal, 0)]).and_then([put]);
        self.kv.txn(txn).await?;
        Ok(())
    }
}
