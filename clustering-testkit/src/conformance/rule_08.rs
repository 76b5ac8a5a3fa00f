use std::time::Duration;

use clustering_core::store::{
    CoordinationStore, Effect, ErrorKind, Guard, LeaseId, Limits, Revision, StoreError, Txn, WatchEnd,
};
use futures_util::StreamExt;

use super::{
    Harness, Hook,
    report::not_judged,
    scene::Rule,
    site::{Client, Site},
};

/// Rule 8: errors tell what happened. What is checked:
///
/// - each refusal that the contract names has its kind, from every call that can give it: `GuardFailed` with a
///   revision, `LeaseNotFound`, `Invalid`; and none of these claims that something may have happened, or that the same
///   call may succeed later;
/// - what breaks a rule of the API is `Invalid` before anything else is judged;
/// - after each of them the store is as before;
/// - no text of an error shows a value;
/// - with a handle that leads nowhere ([`Harness::unreachable`]), every call says in time that the store is away:
///   `Unreachable`, or `OutcomeUnknown` from a call that writes.
///
/// What a store says when it fails in the midst of a call cannot be judged from outside: that is for the store's own
/// tests.
pub async fn rule_08_errors_tell_what_happened<H: Harness>(harness: &H) {
    refusals_have_their_kinds(harness).await;
    invalid_comes_first(harness).await;
    errors_show_no_value(harness).await;
    nobody_there(harness).await;
}

/// The error is of that kind, and says what such an error means.
fn expect(client: &Client, what: &str, kind: ErrorKind, error: Option<StoreError>) {
    let Some(error) = error else { client.scene.broken(format!("{kind:?} for {what}"), "accepted it") };
    let found = error.kind();
    let same = match (kind, found) {
        (ErrorKind::GuardFailed { revision: least }, ErrorKind::GuardFailed { revision }) => {
            revision >= least
        }
        _ => kind == found,
    };
    client.scene.check(same, format!("{kind:?} for {what}"), format!("failed with {found:?}: {error}"));
    client.scene.check(
        error.effect() == Effect::None && !error.is_transient(),
        format!("an error for {what} that says that nothing happened, nor will"),
        format!("failed with {found:?}: {error}"),
    );
}

async fn refusals_have_their_kinds<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Errors, "each refusal has its kind").await;
    let client = &site.client;
    let there = site.key("there");
    let at = client.put(&there, "1", None).await;
    let ended = site.grant_long().await.id;
    client.revoke(ended).await;
    let before = site.read().await.entries;

    let refused = client.attempt_grant(Duration::ZERO).await.err();
    expect(client, "a lease with a TTL of zero", ErrorKind::Invalid, refused);
    for lease in [ended, LeaseId::new(0x7fff_ffff_ffff_fff1)] {
        let refused = client.attempt_renew(lease).await.err();
        expect(client, "the renewal of no lease", ErrorKind::LeaseNotFound, refused);
        let refused = client.attempt_revoke(lease).await.err();
        expect(client, "the revocation of no lease", ErrorKind::LeaseNotFound, refused);
        let refused = client.attempt(Txn::new().put(site.key("k"), "", lease)).await.err();
        expect(client, "a put under no lease", ErrorKind::LeaseNotFound, refused);
    }
    let failed = ErrorKind::GuardFailed { revision: at };
    for guard in [Guard::absent(there.clone()), Guard::modified_at(there.clone(), Revision::ZERO)] {
        for txn in [Txn::new(), Txn::new().put(there.clone(), "2", None), Txn::new().delete(there.clone())] {
            let txn = txn.guard(guard.clone());
            let what = format!("{txn:?}");
            expect(client, &what, failed, client.attempt(txn).await.err());
        }
    }
    site.scene.same_entries("refused calls change nothing", &before, &site.read().await.entries);
    site.leave().await;
}

async fn invalid_comes_first<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Errors, "what breaks the API is Invalid, whatever else is wrong").await;
    let client = &site.client;
    let there = site.key("there");
    client.put(&there, "1", None).await;
    let before = site.read().await.entries;
    let large = vec![0; Limits::VALUE + 1];
    let fails = || Txn::new().guard(Guard::absent(there.clone()));
    let dead = LeaseId::new(0x7fff_ffff_ffff_fff1);
    let invalid = [
        (
            "a value that is too large, and a guard that fails",
            fails().put(there.clone(), large.clone(), None),
        ),
        ("a value that is too large, and a dead lease", Txn::new().put(there.clone(), large, dead)),
        ("an empty key, and a guard that fails", fails().put("", "1", None)),
        ("an empty key, and a dead lease", Txn::new().put("", "1", dead)),
        (
            "one key twice, and a guard that fails",
            fails().put(there.clone(), "2", None).delete(there.clone()),
        ),
        (
            "one key twice, and a dead lease",
            Txn::new().put(there.clone(), "2", dead).put(there.clone(), "3", None),
        ),
    ];
    for (what, txn) in invalid {
        expect(client, what, ErrorKind::Invalid, client.attempt(txn).await.err());
    }
    site.scene.same_entries("invalid calls change nothing", &before, &site.read().await.entries);
    site.leave().await;
}

async fn errors_show_no_value<H: Harness>(harness: &H) {
    const SECRET: &str = "tell-nobody-of-this-value";
    let site = Site::open(harness, Rule::Errors, "errors show no value").await;
    let client = &site.client;
    let there = site.key("there");
    client.put(&there, SECRET, None).await;
    let put = |txn: Txn| txn.put(site.key("k"), SECRET, None);
    let dead = LeaseId::new(0x7fff_ffff_ffff_fff1);
    let failing = [
        put(Txn::new().guard(Guard::absent(there.clone()))),
        put(Txn::new().put(site.key("dead"), SECRET, dead)),
        put(Txn::new().put(site.key("large"), SECRET.repeat(4_000), None)),
        put(put(Txn::new())),
    ];
    for txn in failing {
        let what = format!("{txn:?}");
        let Err(error) = client.attempt(txn).await else {
            client.scene.broken(format!("{what} to fail"), "committed it")
        };
        // The whole chain, as a log would have it.
        let mut text = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text.push_str(&format!(" {inner} {inner:?}"));
            source = inner.source();
        }
        client.scene.check(!text.contains(SECRET), "an error that shows no value", format!("said {text}"));
    }
    site.leave().await;
}

async fn nobody_there<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Errors, "a handle that leads nowhere").await;
    let store = match harness.unreachable().await {
        Hook::Have(store) => store,
        Hook::Absent(why) => return not_judged(Rule::Errors, "what calls answer when nobody is there", why),
    };
    let nowhere = Client { store, ..site.client.clone() };
    let key = site.key("k");
    let answers = [
        ("a grant", true, nowhere.attempt_grant(site.bounds.smallest_ttl).await.err()),
        ("a renewal", true, nowhere.attempt_renew(LeaseId::new(7)).await.err()),
        ("a revocation", true, nowhere.attempt_revoke(LeaseId::new(7)).await.err()),
        ("a commit", true, nowhere.attempt(Txn::new().put(key.clone(), "1", None)).await.err()),
        ("a read", false, nowhere.attempt_read(&site.root).await.err()),
    ];
    for (call, writes, answer) in answers {
        let expected = format!("{call} with nobody there to fail with Unreachable");
        match answer {
            None => site.scene.broken(expected, "accepted it"),
            Some(error) => site.scene.check(
                error.kind() == ErrorKind::Unreachable
                    || (writes && error.kind() == ErrorKind::OutcomeUnknown),
                expected,
                format!("failed with {:?}: {error}", error.kind()),
            ),
        }
    }
    // A watch may say it as an error, or as its end.
    let expected = "a watch with nobody there to fail with Unreachable, or end with Disconnected";
    match tokio::time::timeout(site.bounds.call_timeout, nowhere.store.watch(&site.root, Revision::ZERO))
        .await
    {
        Err(_) => site.scene.broken(expected, format!("was silent for {:?}", site.bounds.call_timeout)),
        Ok(Err(error)) => site.scene.check(
            error.kind() == ErrorKind::Unreachable,
            expected,
            format!("failed with {:?}: {error}", error.kind()),
        ),
        Ok(Ok(mut stream)) => {
            let limit = site.bounds.call_timeout + site.bounds.watch_lag;
            match tokio::time::timeout(limit, stream.next()).await {
                Ok(Some(Err(WatchEnd::Disconnected { .. }))) => {}
                Ok(other) => site.scene.broken(expected, format!("sent {other:?}")),
                Err(_) => site.scene.broken(expected, format!("was silent for {limit:?}")),
            }
        }
    }
    site.leave().await;
}
