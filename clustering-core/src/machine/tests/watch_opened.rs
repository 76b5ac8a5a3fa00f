//! A watch was opened, or could not be opened.

use super::bench::{Bench, ms};
use crate::store::ErrorKind;

#[test]
fn a_node_registers_once_its_watch_is_open() {
    let mut a = Bench::node("a");
    a.tick();
    a.ok("grant");
    a.ok("read");
    a.skip();
    a.ok("watch view/");
    a.expect(&["join"]);
}

#[test]
fn a_watch_that_cannot_be_opened_is_retried_from_the_same_revision() {
    for kind in [ErrorKind::Unreachable, ErrorKind::OutcomeUnknown, ErrorKind::Busy, ErrorKind::Refused] {
        let mut o = Bench::observer().with(&["a"]);
        o.tick();
        o.ok("read");
        o.skip();
        for pause in [100, 100, 200, 400] {
            o.fail("watch view/", kind);
            o.expect_only(&["watch", "read"], &[]);
            assert_eq!(o.wakes_in(), Some(ms(pause)));
            o.wait(ms(pause));
            o.expect(&["watch view/ after 1"]);
        }
        assert!(o.status().stale_since.is_some());
        o.ok("watch view/");
        assert_eq!(o.status().stale_since, None);
    }
}

#[test]
fn a_refused_watch_is_reported_for_operator_action() {
    let mut o = Bench::observer();
    o.tick();
    o.ok("read");
    o.skip();
    o.fail("watch view/", ErrorKind::Refused);
    o.expect(&[
        "* operator action needed: the store refused: injected by the test",
        "* the store is away: the store refused: injected by the test",
    ]);
}

#[test]
fn a_watch_of_acknowledgements_that_cannot_be_opened_is_retried_from_the_same_revision() {
    let mut a = Bench::node("b").with(&["a"]).joined();
    a.wait(ms(50));
    // A leader that had stopped watching acknowledgements reads them first.
    a.lose("elect");
    a.deliver();
    a.ok("read ready/");
    a.skip();
    for pause in [100, 100, 200] {
        a.fail("watch ready/", ErrorKind::Unreachable);
        a.wait(ms(pause));
        a.expect(&["watch ready/ after 3"]);
    }
}

#[test]
fn a_watch_that_is_no_longer_needed_is_dropped_even_while_it_opens() {
    // A candidate watches acknowledgements before its election, but another node is elected.
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    assert!(b.is_opening("watch ready/"));
    b.elects("a");
    b.fail("elect", ErrorKind::GuardFailed { revision: crate::store::Revision::ZERO });
    assert!(!b.is_opening("watch ready/"), "the watch leaks");

    // A node that ends drops the watch that it has just started to open.
    let mut b = Bench::node("b").with(&["a"]);
    b.tick();
    b.ok("grant");
    b.ok("read");
    assert!(b.is_opening("watch view/"));
    b.stop();
    b.ok("revoke");
    assert!(!b.is_opening("watch view/"), "the watch leaks");
}
