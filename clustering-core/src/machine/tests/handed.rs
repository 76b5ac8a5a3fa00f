//! An operator makes the leader step down in favour of a node.

use super::bench::{Bench, ms};
use crate::store::Txn;

fn hand_over_to(bench: &mut Bench, node: &str) {
    let wish = format!(r#"{{"by": "ops", "leader": "{node}"}}"#);
    bench.write(Txn::new().delete("c/view/leader").put("c/view/request", wish, None));
}

#[test]
fn the_one_in_favour_goes_first_however_young() {
    let mut c = Bench::node("c").with(&["a", "b"]).led_by("a").joined();
    c.skip();
    hand_over_to(&mut c, "c");
    c.says_of(&["elect"], &["elect V2: c was elected, the previous view is unknown, ops asked"]);
}

#[test]
fn the_others_let_it_go_first_and_then_go_in_their_order() {
    let mut c = Bench::node("c").with(&["a", "b"]).led_by("a").joined();
    hand_over_to(&mut c, "b");
    c.skip();
    // Without b it would be its turn a stagger after b: 50 ms.
    c.wait(ms(549));
    c.says_of(&["elect"], &[]);
    c.wait(ms(1));
    c.says_of(&["elect"], &["elect V2: c was elected, the previous view is unknown, ops asked"]);
}

#[test]
fn one_that_is_not_there_is_not_waited_for() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.skip();
    hand_over_to(&mut b, "x");
    b.says_of(&["elect"], &["elect V2: b was elected, the previous view is unknown, ops asked"]);
}

#[test]
fn the_favour_ends_with_the_version_that_grants_it() {
    let mut c = Bench::node("c").with(&["a", "b"]).led_by("a").joined();
    hand_over_to(&mut c, "b");
    c.elects("b");
    c.skip();
    c.delete("view/leader");
    // The oldest first, then this one: b led last.
    c.wait(ms(49));
    c.says_of(&["elect"], &[]);
    c.wait(ms(1));
    c.says_of(&["elect"], &["elect V3: c was elected"]);
}
