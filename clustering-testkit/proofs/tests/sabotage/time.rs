//! Faults that let nodes claim to lead for too long.

use std::{collections::BTreeMap, time::Duration};

use clustering_core::{
    machine::{Input, Leadership, Output},
    time::Timestamp,
};
use clustering_proofs::sim::{Seat, Simulation, Tamper};

use crate::{found, tampers::Flag};

#[test]
fn p6_a_leader_flag_that_stays_set_is_found() {
    found(|| Flag, &["P6"]);
}

#[test]
fn a_failure_names_the_fewest_faults_that_suffice_and_a_command_to_reproduce_it() {
    // The fault shows as soon as a node leads, even without any other fault.
    let failure = Simulation::new().tampered(|| Flag).run(1).unwrap_err();
    assert!(failure.faults.is_empty() && failure.planned > 10, "{failure}");
    assert!(failure.story.iter().any(|line| line.contains("leads, term 2 (this node)")), "{failure}");
    let told = failure.to_string();
    assert!(
        told.starts_with("seed 1: P6") && told.contains("--seed 1 ") && told.contains("--keep none"),
        "{told}"
    );
}

/// Reports a deadline that counts from the reply to a renewal instead of its sending.
#[derive(Default)]
struct FromTheReply {
    sent: BTreeMap<(usize, u32), Timestamp>,
    took: BTreeMap<(usize, u32), Duration>,
}

impl Tamper for FromTheReply {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        if matches!(output, Output::Renew { .. }) {
            self.sent.insert((seat.node, seat.life), seat.now);
        }
        vec![output]
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        if let (Input::Renewed { result: Ok(_), .. }, Some(sent)) =
            (&input, self.sent.get(&(seat.node, seat.life)))
        {
            self.took.insert((seat.node, seat.life), seat.now.since(*sent));
        }
        vec![input]
    }

    fn leadership(&mut self, seat: &Seat<'_>, told: Option<Leadership>) -> Option<Leadership> {
        let took = self.took.get(&(seat.node, seat.life)).copied().unwrap_or_default();
        told.map(|mut leadership| {
            leadership.until = leadership.until + took;
            leadership
        })
    }
}

#[test]
fn p6_a_deadline_that_counts_from_the_reply_is_found() {
    found(FromTheReply::default, &["P6"]);
}
