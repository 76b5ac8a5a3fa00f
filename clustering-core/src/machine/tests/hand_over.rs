//! An operator makes the leader step down in favour of a node.

use super::bench::{Bench, ms};
use crate::store::Txn;

fn hand_over_to(bench: &mut Bench, node: &str) {
    let request = format!(r#"{{"by": "ops", "leader": "{node}"}}"#);
    bench.write(Txn::new().delete("c/view/leader").put("c/view/request", request, None));
}

#[test]
fn the_favoured_node_campaigns_first_although_others_have_a_higher_priority() {
    let mut c = Bench::node("c").with(&["a", "b"]).led_by("a").joined();
    c.skip();
    hand_over_to(&mut c, "c");
    c.expect_only(&["elect"], &["elect V2: c was elected, the previous view is unknown, ops asked"]);
}

#[test]
fn the_other_candidates_wait_for_the_favoured_node_and_then_campaign_in_their_order() {
    let mut c = Bench::node("c").with(&["a", "b"]).led_by("a").joined();
    hand_over_to(&mut c, "b");
    c.skip();
    // Without the preference c would campaign after 50 ms, one stagger behind b.
    c.wait(ms(549));
    c.expect_only(&["elect"], &[]);
    c.wait(ms(1));
    c.expect_only(&["elect"], &["elect V2: c was elected, the previous view is unknown, ops asked"]);
}

#[test]
fn candidates_do_not_wait_for_a_favoured_node_that_is_absent() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.skip();
    hand_over_to(&mut b, "x");
    b.expect_only(&["elect"], &["elect V2: b was elected, the previous view is unknown, ops asked"]);
}

#[test]
fn the_preference_ends_with_the_next_version() {
    let mut c = Bench::node("c").with(&["a", "b"]).led_by("a").joined();
    hand_over_to(&mut c, "b");
    c.elects("b");
    c.skip();
    c.delete("view/leader");
    // a campaigns first, then c. b led last, so it is not ranked.
    c.wait(ms(49));
    c.expect_only(&["elect"], &[]);
    c.wait(ms(1));
    c.expect_only(&["elect"], &["elect V3: c was elected"]);
}
