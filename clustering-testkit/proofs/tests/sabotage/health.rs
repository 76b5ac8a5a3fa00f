//! Faults that let unhealthy nodes continue.

use std::collections::BTreeSet;

use clustering_core::{
    Health,
    machine::{Input, Output, Token},
};
use clustering_proofs::sim::{Kind, Seat, Simulation, Tamper};

use crate::{found, found_within};

/// Treats every health check as passed.
struct IgnoresFailedChecks;

impl Tamper for IgnoresFailedChecks {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        vec![match input {
            Input::HealthReported { token, .. } => Input::HealthReported { token, result: Ok(()) },
            other => other,
        }]
    }
}

#[test]
fn p11_ignoring_failed_checks_is_found() {
    found(|| IgnoresFailedChecks, &["P11"]);
}

/// Treats a running health check as passed.
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
fn p11_treating_a_hanging_check_as_passed_is_found() {
    let hanging = Simulation::new().only([Kind::HangingHealth]);
    found_within(50, hanging, Impatient::default, &["P11"]);
}

/// Does not revoke the lease of a session that it gives up because it is unhealthy, but lets it expire.
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
fn p11_letting_the_lease_expire_instead_of_revoking_it_is_found() {
    // The revocation is never answered, so the node does not rejoin either. Some seeds show that first.
    found(LetsItExpire::default, &["P11", "P8"]);
}
