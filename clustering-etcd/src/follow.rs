//! Learned members: taken from etcd's member list, and used while no configured member can be connected to.
//!
//! Operators can replace etcd's members one by one until none of the configured endpoints is left. The store therefore
//! remembers the URLs that etcd's member list advertises. Advertised URLs often do not work for clients (behind
//! proxies, in other networks, or `localhost`), and an address may belong to another server by the time it is needed.
//! Therefore:
//!
//! - Calls never wait for a learned endpoint: a background task connects to it first.
//! - A learned endpoint is used only after it has confirmed that it belongs to the same cluster and has a leader. No
//!   credentials are sent before that.
//! - With TLS, its certificate is verified like that of any other member, and endpoints without TLS are ignored.
//! - With credentials but without TLS, no members are learned: the password could go to the wrong server.
//! - The connection to a learned member is never re-established, since the address may have been reassigned. The
//!   endpoint is verified again on a new connection.
//! - As soon as a configured member answers again, calls go back to it.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use etcd_client::{Client, Error};
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    Endpoint, EtcdConfig,
    backoff::{Backoff, jittered},
    endpoint::Scheme,
    failure::{Failure, FailureKind},
    members::{Member, Members},
};

/// Pauses between rounds of attempts at learned endpoints.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Contents of etcd's member list when it was last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The id of the cluster.
    cluster: u64,
    /// Advertised endpoints of the voting members, in the order of the list, without the configured endpoints.
    endpoints: Vec<Endpoint>,
}

/// True if members are learned with this configuration.
pub(crate) fn is_on(config: &EtcdConfig) -> bool {
    let is_safe = config.credentials.is_none() || config.effective_tls().is_some();
    !config.member_refresh.is_zero() && is_safe
}

/// Starts the task that follows the member list. It ends when `members` is dropped.
pub(crate) fn start(members: &Arc<Members>) -> AbortHandle {
    let (every, alarm) = (members.config().member_refresh, members.alarm.clone());
    let members = Arc::downgrade(members);
    let follow = async move {
        let known = Mutex::<Known>::default();
        while let Some(strong) = members.upgrade() {
            learn(&strong, &known).await;
            drop(strong);
            // With jitter, so that the nodes do not all read the list at the same time.
            let refresh = sleep(jittered(every));
            tokio::pin!(refresh);
            loop {
                tokio::select! {
                    () = &mut refresh => break,
                    () = alarm.notified() => find_another(&members, &known).await,
                }
            }
        }
    };
    tokio::spawn(follow).abort_handle()
}

/// Returns to a configured member if one answers again, then reads the member list from the current member.
async fn learn(members: &Members, known: &Mutex<Known>) {
    if let Some(learned) = members.learned() {
        for configured in members.configured() {
            let Ok(clients) = members.clients(configured).await else { continue };
            let cluster = known.lock().unwrap_or_else(PoisonError::into_inner).cluster;
            if serves(members, clients.client, cluster).await.is_ok() {
                tracing::debug!(from = %learned.endpoint, to = %configured.endpoint, "returned to a configured etcd member that answers again");
                configured.breaker.reset();
                members.prefer(configured);
                break;
            }
        }
    }
    let member = members.choose();
    match list(members, &member).await {
        Ok(list) => *known.lock().unwrap_or_else(PoisonError::into_inner) = list,
        Err(failure) => {
            let why = failure.message;
            tracing::debug!(member = %member.endpoint, why, "cannot read etcd's member list; keeping the previous one");
        }
    }
}

async fn list(members: &Members, member: &Member) -> Result<Known, Failure> {
    let mut client = members.clients(member).await?.client.cluster_client();
    let list = in_time(members, client.member_list()).await?;
    let cluster = list.header().map_or(0, |header| header.cluster_id());
    let voting = list.members().iter().filter(|member| !member.is_learner());
    let urls = voting.flat_map(|member| member.client_urls());
    let endpoints = usable(urls.map(String::as_str), members.config());
    Ok(Known { cluster, endpoints })
}

/// Filters the advertised URLs: keeps those with the configured scheme that are not configured already.
fn usable<'a>(urls: impl Iterator<Item = &'a str>, config: &EtcdConfig) -> Vec<Endpoint> {
    let scheme = if config.effective_tls().is_some() { Scheme::Https } else { Scheme::Http };
    let configured: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.with_scheme(scheme)).collect();
    let parsed = urls.filter_map(|url| url.parse::<Endpoint>().ok());
    parsed.filter(|endpoint| endpoint.scheme() == Some(scheme) && !configured.contains(endpoint)).collect()
}

/// Tries the learned endpoints until one of them passes verification or a configured member can be connected to again.
async fn find_another(members: &Weak<Members>, known: &Mutex<Known>) {
    let known = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        for endpoint in &known.endpoints {
            let Some(members) = members.upgrade() else { return };
            if !members.all_are_away() || members.learned().is_some() {
                return;
            }
            match verified(&members, endpoint, known.cluster).await {
                Ok(member) => {
                    tracing::info!(%endpoint, "no configured etcd member can be reached: switched to one from its member list");
                    return members.adopt(member);
                }
                Err(failure) => {
                    tracing::debug!(%endpoint, why = failure.message, "an advertised etcd member cannot be used");
                }
            }
        }
        if known.endpoints.is_empty() {
            return;
        }
        sleep(backoff.pause()).await;
    }
}

/// Connects to an endpoint and returns its member, if it belongs to the cluster and serves clients.
async fn verified(members: &Members, endpoint: &Endpoint, cluster: u64) -> Result<Arc<Member>, Failure> {
    let (member, look) = members.learn(endpoint).await?;
    serves(members, look, cluster).await.map(|()| member)
}

/// Checks that a member belongs to that cluster and serves clients. The request needs no permissions.
async fn serves(members: &Members, client: Client, cluster: u64) -> Result<(), Failure> {
    let status = in_time(members, client.maintenance_client().status()).await?;
    let unfit = |why: &str| Err(Failure::new(FailureKind::Invalid, why));
    match status.header().map_or(0, |header| header.cluster_id()) {
        id if id != cluster => unfit("it belongs to another cluster"),
        _ if status.is_learner() => unfit("it is a learner"),
        _ if status.leader() == 0 => unfit("it has no leader"),
        _ => Ok(()),
    }
}

async fn in_time<T>(members: &Members, call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    let within = members.config().request_timeout;
    match timeout(within, call).await {
        Ok(reply) => Ok(reply?),
        Err(_) => Err(Failure::new(FailureKind::ReadTimedOut, format!("no reply within {within:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Credentials, Tls};

    #[test]
    fn advertised_urls_are_used_only_with_the_configured_scheme() {
        let urls =
            ["http://a:2379", "https://b:2379", "https://a:2379", "unix://c", "http://c:2379", "nonsense/"];
        let usable = |endpoints: &[&str]| -> Vec<String> {
            let config = EtcdConfig { tls: None, ..EtcdConfig::default() };
            let endpoints = endpoints.iter().map(|text| text.parse().unwrap()).collect();
            let config = EtcdConfig { endpoints, ..config };
            usable(urls.into_iter(), &config).iter().map(ToString::to_string).collect()
        };
        assert_eq!(usable(&["a"]), ["http://c:2379"]);
        assert_eq!(usable(&["http://x"]), ["http://a:2379", "http://c:2379"]);
        assert_eq!(usable(&["https://a"]), ["https://b:2379"]);
    }

    #[test]
    fn members_are_not_learned_with_a_password_but_without_tls() {
        let mut config = EtcdConfig::default();
        assert!(is_on(&config));
        config.credentials = Some(Credentials::new("me", "secret"));
        assert!(!is_on(&config));
        config.tls = Some(Tls::new());
        assert!(is_on(&config));
        config.member_refresh = Duration::ZERO;
        assert!(!is_on(&config));
    }
}
