//! Nodes that are not healthy, and go on.

use std::collections::BTreeSet;

use clustering_core::{
    Health,
    machine::{Input, Output, Token},
};
use clustering_proofs::sim::{Kind, Seat, Simulation, Tamper};

use crate::{found, found_within};

/// Takes every check for one that passed.
struct HearsNoEvil;

impl Tamper for HearsNoEvil {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        vec![match input {
            Input::HealthReported { token, .. } => Input::HealthReported { token, result: Ok(()) },
            other => other,
        }]
    }
}

#[test]
fn p11_failures_that_count_for_nothing() {
    found(|| HearsNoEvil, &["P11"]);
}

/// Takes a check for one that passed before it has ended.
#[derive(Default)]
struct Impatient {
    begun: Vec<(usize, u32, Token)>,
}

impl Tamper for Impatient {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        if let Output::CheckHealth { token } = output {
            self.begun.push((seat.node, seat.life, token));
        }
        vec![output]
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        let own = |begun: &(usize, u32, Token)| (begun.0, begun.1) == (seat.node, seat.life);
        let mut inputs: Vec<_> = self
            .begun
            .extract_if(.., |begun| own(begun))
            .map(|(_, _, token)| Input::HealthReported { token, result: Ok(()) })
            .collect();
        inputs.push(input);
        inputs
    }
}

#[test]
fn p11_a_check_that_hangs_and_counts_as_passed() {
    let hanging = Simulation::new().only([Kind::HangingHealth]);
    found_within(50, hanging, Impatient::default, &["P11"]);
}

/// Keeps the lease of a session that it gives up as it is unhealthy, until its time is over.
#[derive(Default)]
struct LetsItExpire {
    kept: BTreeSet<(usize, u32)>,
}

impl Tamper for LetsItExpire {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        let unhealthy = matches!(seat.machine.status(seat.now).health, Health::Unhealthy { .. });
        match output {
            Output::Revoke { .. } if unhealthy && self.kept.insert((seat.node, seat.life)) => Vec::new(),
            other => vec![other],
        }
    }
}

#[test]
fn p11_a_lease_that_is_left_to_expire() {
    found(LetsItExpire::default, &["P11"]);
}
