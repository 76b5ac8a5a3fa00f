//! A fault: a superseded stabilize is not told that it is superseded.

use crate::{found, tampers::TellsNobody};

#[test]
fn p3_a_superseded_stabilize_that_is_not_told_is_found() {
    found(|| TellsNobody, &["P3"]);
}
