//! A watch is open, or could not be opened.

use super::bench::{Bench, ms};
use crate::store::ErrorKind;

#[test]
fn an_open_watch_lets_the_node_register() {
    let mut a = Bench::node("a");
    a.tick();
    a.ok("grant");
    a.ok("read");
    a.skip();
    a.ok("watch view/");
    a.says(&["join"]);
}

#[test]
fn a_watch_that_cannot_be_opened_is_tried_again_from_the_same_revision() {
    for kind in [ErrorKind::Unreachable, ErrorKind::OutcomeUnknown, ErrorKind::Busy, ErrorKind::Refused] {
        let mut o = Bench::observer().with(&["a"]);
        o.tick();
        o.ok("read");
        o.skip();
        for pause in [100, 100, 200, 400] {
            o.fail("watch view/", kind);
            o.says_of(&["watch", "read"], &[]);
            assert_eq!(o.wakes_in(), Some(ms(pause)));
            o.wait(ms(pause));
            o.says(&["watch view/ after 1"]);
        }
        assert!(o.status().stale_since.is_some());
        o.ok("watch view/");
        assert_eq!(o.status().stale_since, None);
    }
}

#[test]
fn a_store_that_refuses_to_be_watched_is_reported() {
    let mut o = Bench::observer();
    o.tick();
    o.ok("read");
    o.skip();
    o.fail("watch view/", ErrorKind::Refused);
    o.says(&[
        "* operator action needed: the store refused: as the test has it",
        "* the store is away: the store refused: as the test has it",
    ]);
}

#[test]
fn the_acknowledgements_are_watched_in_the_same_way() {
    let mut a = Bench::node("b").with(&["a"]).joined();
    a.wait(ms(50));
    // A leader that did not expect to be one reads them first.
    a.lose("elect");
    a.deliver();
    a.ok("read ready/");
    a.skip();
    for pause in [100, 100, 200] {
        a.fail("watch ready/", ErrorKind::Unreachable);
        a.wait(ms(pause));
        a.says(&["watch ready/ after 3"]);
    }
}

#[test]
fn a_watch_that_is_not_wanted_any_more_is_dropped_also_while_it_opens() {
    // A candidate watches acknowledgements before its election, but another node is elected.
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    assert!(b.is_opening("watch ready/"));
    b.elects("a");
    b.fail("elect", ErrorKind::GuardFailed { revision: crate::store::Revision::ZERO });
    assert!(!b.is_opening("watch ready/"), "it leaks");

    // A node that ends drops the watch that it has just started to open.
    let mut b = Bench::node("b").with(&["a"]);
    b.tick();
    b.ok("grant");
    b.ok("read");
    assert!(b.is_opening("watch view/"));
    b.stop();
    b.ok("revoke");
    assert!(!b.is_opening("watch view/"), "it leaks");
}
