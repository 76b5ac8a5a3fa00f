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

/// Checks rule 8: errors tell what happened. In particular:
///
/// - each refusal named in the contract has its error kind, from every call that can return it: `GuardFailed` with a
///   revision, `LeaseNotFound`, `Invalid`. None of these errors claims that the call may have taken effect, or that the
///   same call may succeed later;
/// - a call that breaks a rule of the API is `Invalid`, whatever else is wrong with it;
/// - a refused call leaves the store unchanged;
/// - no error text contains a value;
/// - on a handle to an unreachable store ([`Harness::unreachable`]), every call reports in time that the store cannot
///   be reached: as `Unreachable` or, from a call that writes, as `OutcomeUnknown`.
///
/// Failures in the middle of a call cannot be provoked from outside. The store's own tests have to cover them.
pub async fn rule_08_errors_tell_what_happened<H: Harness>(harness: &H) {
    refusals_have_their_kinds(harness).await;
    invalid_comes_first(harness).await;
    errors_show_no_value(harness).await;
    unreachable_stores_are_reported(harness).await;
}

/// Checks that the error has the given kind and reports no effect, and that it is not transient.
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
        format!("an error for {what} that reports no effect and is not transient"),
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
        expect(client, "the renewal of a lease that does not exist", ErrorKind::LeaseNotFound, refused);
        let refused = client.attempt_revoke(lease).await.err();
        expect(client, "the revocation of a lease that does not exist", ErrorKind::LeaseNotFound, refused);
        let refused = client.attempt(Txn::new().put(site.key("k"), "", lease)).await.err();
        expect(client, "a put under a lease that does not exist", ErrorKind::LeaseNotFound, refused);
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
        Site::open(harness, Rule::Errors, "a call that breaks the API is Invalid, whatever else is wrong")
            .await;
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
        // Test the whole chain of sources, because logs print it.
        let mut text = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text.push_str(&format!(" {inner} {inner:?}"));
            source = inner.source();
        }
        client.scene.check(
            !text.contains(SECRET),
            "an error that shows no value",
            format!("returned {text}"),
        );
    }
    site.leave().await;
}

async fn unreachable_stores_are_reported<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Errors, "an unreachable store").await;
    let store = match harness.unreachable().await {
        Hook::Have(store) => store,
        Hook::Absent(why) => return not_judged(Rule::Errors, "the errors of an unreachable store", why),
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
        let expected = format!("{call} on an unreachable store to fail with Unreachable");
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
    // A watch may report it as an error or as its end.
    let expected = "a watch on an unreachable store to fail with Unreachable or to end with Disconnected";
    match tokio::time::timeout(site.bounds.call_timeout, nowhere.store.watch(&site.root, Revision::ZERO))
        .await
    {
        Err(_) => {
            site.scene.broken(expected, format!("did not answer within {:?}", site.bounds.call_timeout))
        }
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
                Err(_) => site.scene.broken(expected, format!("did not answer within {limit:?}")),
            }
        }
    }
    site.leave().await;
}
