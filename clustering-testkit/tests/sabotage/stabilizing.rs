//! More than one stabilize at a time, or one that is never told.

use std::collections::BTreeMap;

use clustering_core::{
    Outcome,
    machine::{Input, Output, Token},
};
use clustering_testkit::sim::{Seat, Tamper};

use crate::{found, tampers::TellsNobody};

/// Takes a stabilize that was told that it is superseded for one that has ended.
#[derive(Default)]
struct DoesNotWait(BTreeMap<(usize, u32), Vec<Token>>);

impl Tamper for DoesNotWait {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        if let Output::Supersede { token } = output {
            self.0.entry((seat.node, seat.life)).or_default().push(token);
        }
        vec![output]
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        let told = self.0.remove(&(seat.node, seat.life)).unwrap_or_default();
        let ended = |token| Input::Stabilized { token, outcome: Outcome::refused("superseded") };
        told.into_iter().map(ended).chain([input]).collect()
    }
}

#[test]
fn p3_two_stabilizes_at_once() {
    found(DoesNotWait::default, &["P3"]);
}

#[test]
fn p3_a_stabilize_that_is_not_told() {
    found(|| TellsNobody, &["P3"]);
}
