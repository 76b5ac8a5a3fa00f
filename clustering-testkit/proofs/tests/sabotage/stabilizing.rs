//! A stabilize that is never told.

use crate::{found, tampers::TellsNobody};

#[test]
fn p3_a_stabilize_that_is_not_told() {
    found(|| TellsNobody, &["P3"]);
}
