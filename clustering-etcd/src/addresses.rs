//! Tries the addresses of an endpoint in a staggered way, so that dead addresses cost little time: "Happy Eyeballs"
//! (RFC 8305).

use std::{future::Future, io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::Uri;
use tokio::{net::lookup_host, time::sleep};

/// Longest head start of an address before the next one is tried too, as the RFC recommends.
const HEAD_START: Duration = Duration::from_millis(250);

/// Resolves the endpoint's host and returns its addresses in the order in which to try them.
pub(crate) async fn resolve(uri: &Uri) -> io::Result<Vec<SocketAddr>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(crate::Endpoint::DEFAULT_PORT);
    Ok(interleave(lookup_host((host, port)).await?))
}

/// Alternates between IPv6 and IPv4, starting with the family that the system prefers, so that a family that does not
/// work at all costs only one head start.
fn interleave(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<_> = addresses.collect();
    let preferred = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == preferred);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

/// Connects to the address that answers first. Starts the next attempt when one fails or its head start is over,
/// without cancelling earlier attempts. `within` is the time limit for all attempts together; the last address has at
/// least half of it left.
///
/// # Errors
///
/// If all attempts fail, `choose` reduces their errors to one, two at a time.
pub(crate) async fn connect_any<T, E, F>(
    addresses: &[SocketAddr],
    within: Duration,
    connect: impl Fn(SocketAddr) -> F,
    choose: impl Fn(E, E) -> E,
) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let others = u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_sub(1).max(1);
    let head_start = HEAD_START.min(within / 2 / others);
    let mut waiting = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed = None;
    loop {
        attempts.extend(waiting.next().map(|address| connect(*address)));
        tokio::select! {
            biased;
            result = attempts.next() => match result {
                Some(Ok(connection)) => return Some(Ok(connection)),
                Some(Err(error)) => failed = Some(match failed {
                    Some(before) => choose(before, error),
                    None => error,
                }),
                None => return failed.map(Err),
            },
            () = sleep(head_start), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Connects to addresses that behave as given: `None` never answers, `Some(false)` fails at once. Returns the
    /// address that connected, if any, and the time that it took.
    async fn try_all(answers: &[Option<bool>]) -> (Option<u16>, Duration) {
        let within = Duration::from_secs(1);
        let addresses: Vec<_> =
            (0..answers.len()).map(|n| SocketAddr::from(([127, 0, 0, 1], n as u16))).collect();
        let began = Instant::now();
        let connect = |address: SocketAddr| {
            let answer = answers[usize::from(address.port())];
            async move {
                match answer {
                    Some(true) => Ok(address.port()),
                    Some(false) => Err(()),
                    None => {
                        sleep(within - began.elapsed()).await;
                        Err(())
                    }
                }
            }
        };
        let result = connect_any(&addresses, within, connect, |before, _| before).await;
        (result.and_then(Result::ok), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn dead_addresses_before_a_live_one_leave_it_half_of_the_time() {
        let ms = Duration::from_millis;
        assert_eq!(try_all(&[Some(true)]).await, (Some(0), ms(0)));
        assert_eq!(try_all(&[None, Some(true)]).await, (Some(1), ms(250)));
        assert_eq!(try_all(&[None, None, Some(true)]).await, (Some(2), ms(500)));
        assert_eq!(try_all(&[None, None, None, None, None, Some(true)]).await, (Some(5), ms(500)));
        // An address that refuses costs no time.
        assert_eq!(try_all(&[Some(false), Some(false), Some(true)]).await, (Some(2), ms(0)));
        assert_eq!(try_all(&[None, Some(false), Some(true)]).await, (Some(2), ms(250)));
        assert_eq!(try_all(&[Some(false), Some(false)]).await, (None, ms(0)));
        assert_eq!(try_all(&[None, None]).await, (None, ms(1_000)));
        assert_eq!(try_all(&[]).await, (None, ms(0)));
    }

    #[test]
    fn families_alternate_from_the_preferred_one() {
        let list = ["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"];
        let order = ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"];
        assert_eq!(interleave(addresses(&list).into_iter()), addresses(&order));
        let one_family = addresses(&["10.0.0.2:1", "10.0.0.1:1"]);
        assert_eq!(interleave(one_family.clone().into_iter()), one_family);
    }

    #[tokio::test]
    async fn addresses_need_no_resolution() {
        for (uri, address) in [("http://127.0.0.1:7", "127.0.0.1:7"), ("https://[::1]:7", "[::1]:7")] {
            let found = resolve(&uri.parse().unwrap()).await.unwrap();
            assert_eq!(found, addresses(&[address]));
        }
    }
}
