//! The store revoked a lease, or failed to.

use super::bench::{Bench, ms, secs};
use crate::{machine::Phase, outcome::Outcome, store::ErrorKind};

/// Returns a member whose record another client has deleted.
fn removed() -> Bench {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.delete("view/nodes/b");
    b.expect(&[
        "* b is gone: its session ended",
        "* session lost: the node's record was removed",
        "revoke 2",
    ]);
    b
}

#[test]
fn p7_a_lost_lease_is_revoked_before_the_node_joins_again() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.advance(secs(15));
    b.expect(&["* session lost: no renewal succeeded in time", "revoke 2"]);
    b.ok("revoke");
    b.expect(&["grant 15s"]);
    b.answer_all();
    b.expect(&[
        "* b is gone: its session ended",
        "join",
        "* b is present at http://b",
        "* joined again as <ULID>",
    ]);
}

#[test]
fn p7_revoking_a_lease_that_has_already_expired_succeeds() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.unseen(|b| b.store.revoke(b.lease_of("view/nodes/b")).unwrap());
    b.advance(secs(15));
    b.skip();
    b.ok("revoke");
    b.expect(&["grant 15s"]);
}

#[test]
fn a_failed_revoke_is_repeated_before_a_new_lease_is_granted() {
    for kind in [ErrorKind::Unreachable, ErrorKind::OutcomeUnknown, ErrorKind::Busy, ErrorKind::Refused] {
        let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
        b.advance(secs(15));
        b.skip();
        for pause in [100, 200, 400] {
            b.fail("revoke", kind);
            b.expect_only(&["grant", "revoke"], &[]);
            assert!(b.status().stale_since.is_some());
            assert_eq!(b.wakes_in(), Some(ms(pause)));
            b.wait(ms(pause));
            b.expect_only(&["grant", "revoke"], &["revoke 2"]);
        }
        b.ok("revoke");
        b.expect_only(&["grant"], &["grant 15s"]);
        assert_eq!(b.status().stale_since, None);
    }
}

#[test]
fn p7_a_removed_node_rejoins_after_a_pause_that_doubles_with_each_removal() {
    let mut b = removed();
    for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600] {
        b.ok("revoke");
        b.expect(&[]);
        assert_eq!(b.wakes_in(), Some(secs(pause)));
        b.wait(secs(pause));
        b.expect(&["grant 15s"]);
        b.answer_all();
        assert_eq!(b.status().phase, Phase::Member);
        b.delete("view/nodes/b");
        b.skip();
    }
}

#[test]
fn p7_earlier_removals_are_forgiven_only_after_the_node_was_ready() {
    for (outcome, pause) in [(Outcome::refused("sick"), secs(2)), (Outcome::Ready, secs(1))] {
        let mut b = removed();
        b.ok("revoke");
        b.wait(secs(1));
        b.answer_all();
        b.publishes();
        b.stabilized(outcome.clone());
        b.answer_all();
        b.wait(secs(60));
        b.delete("view/nodes/b");
        b.ok("revoke");
        assert_eq!(b.wakes_in(), Some(pause), "after {outcome:?}");
    }
}

#[test]
fn p7_a_node_whose_lease_expired_rejoins_without_a_pause() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.store.revoke(b.lease_of("view/nodes/b")).unwrap();
    b.deliver();
    b.expect(&[
        "* b is gone: its session ended",
        "* session lost: the node's record was removed",
        "revoke 2",
    ]);
    b.ok("revoke");
    b.expect(&["grant 15s"]);
}
