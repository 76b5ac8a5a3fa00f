//! Serves the page and its state over HTTP. The server is read only: it refuses all other methods and paths.

use std::{
    convert::Infallible,
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{
        Html, IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::stream;

use super::states::States;
use crate::connections::Lasting;

const PAGE: &str = include_str!("page.html");

/// Interval of the events that keep an idle stream from being closed by proxies, and tell the page that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Header that asks proxies to forward the stream without buffering it.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Header that prevents other sites from embedding the response.
const SAME_ORIGIN: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Returns the routes `/` and `/state`, for a server at that address. The router can be merged into another one, whose
/// routes it does not affect.
pub(crate) fn router(states: States, address: SocketAddr) -> Router {
    let router = Router::new().route("/", get(page)).route("/state", get(state)).with_state(states);
    match address.ip().is_loopback() {
        true => router.route_layer(middleware::from_fn(only_local_names)),
        false => router,
    }
}

/// Sends the page. Only its own script and style may run, even if a record could smuggle in another one.
async fn page() -> Response {
    let nonce = nonce();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers: [(HeaderName, String); 5] = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (SAME_ORIGIN, "same-origin".to_owned()),
    ];
    (headers, Html(PAGE.replace("{nonce}", &nonce))).into_response()
}

/// Returns an unpredictable text: the keys of hash maps come from the randomness of the operating system.
fn nonce() -> String {
    let part = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", part(), part())
}

/// Sends the state, and again after each change. A slow reader skips states, and always gets the newest one next.
async fn state(State(states): State<States>, Extension(lasting): Extension<Lasting>) -> Response {
    lasting.declare();
    let events = stream::unfold(states.subscribe(), |mut states| async move {
        states.changed().await.ok()?;
        let state = states.borrow_and_update().clone();
        Some((Ok::<_, Infallible>(Event::default().data(state)), states))
    });
    let headers =
        [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (SAME_ORIGIN, "same-origin"), (UNBUFFERED, "no")];
    let alive = KeepAlive::new().interval(KEEP_ALIVE).event(Event::default().event("alive").data("1"));
    (headers, Sse::new(events).keep_alive(alive)).into_response()
}

/// Refuses requests whose `Host` is not a local name. Otherwise a site that the user visits could point a name of its
/// own at the loopback address, and read the page through the user's browser.
async fn only_local_names(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match is_local(host) {
        true => next.run(request).await,
        false => {
            let text = "this server only answers to localhost, 127.0.0.1 and [::1]\n";
            (StatusCode::FORBIDDEN, [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], text)
                .into_response()
        }
    }
}

fn is_local(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in
            ["localhost", "localhost:8088", "127.0.0.1:1", "127.0.0.1", "[::1]:8088", "[::1]", "LOCALHOST:1"]
        {
            assert!(is_local(local), "{local}");
        }
        for other in [
            "",
            "example.com",
            "example.com:8088",
            "localhost.example.com",
            "10.0.0.1:8088",
            "127.0.0.1.nip.io",
            "[::2]:1",
        ] {
            assert!(!is_local(other), "{other}");
        }
    }

    #[test]
    fn every_nonce_is_another_one() {
        assert_ne!(nonce(), nonce());
    }

    /// Records are only ever set as text.
    #[test]
    fn the_page_has_no_way_to_insert_markup() {
        for way in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"]
        {
            assert!(!PAGE.contains(way), "{way}");
        }
        assert_eq!(PAGE.matches("nonce=\"{nonce}\"").count(), 2);
    }
}
