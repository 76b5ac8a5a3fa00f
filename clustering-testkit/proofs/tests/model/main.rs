//! Model checking: the promises hold in all states of small models, and each fault inserted into the protocol breaks
//! the expected promise, with a reported path.

mod faults;
#[path = "../tampers/mod.rs"]
mod tampers;

use std::thread;

use clustering_proofs::{
    model::{Bounds, Checked, ClusterModel, Limited, Promise, Start},
    sim::Tamper,
};

use self::tampers::Honest;

fn check(model: &ClusterModel) -> Checked {
    model.check(thread::available_parallelism().map_or(1, usize::from), None)
}

/// The smaller models of the suite. The example `model`, which is built with optimizations, explores all of them.
#[test]
fn p1_to_p8_hold_in_all_states_of_small_models() {
    let small = [
        Bounds::nodes(2).from(Start::Empty),
        Bounds::nodes(2).with(Limited::Crash, 1),
        Bounds::nodes(2).with(Limited::Expiry, 1).with(Limited::Loss, 1),
        Bounds::nodes(2).with(Limited::Ask, 1).with(Limited::Gap, 1),
        Bounds::nodes(3).with(Limited::Ask, 1).with(Limited::Delay, 1),
    ];
    for bounds in small {
        let checked = check(&ClusterModel::new(bounds));
        assert!(
            checked.exhausted && checked.held.len() == Promise::ALL.len() && checked.states > 100,
            "{checked}"
        );
    }
}

#[test]
fn the_number_of_threads_does_not_change_the_states() {
    let model = ClusterModel::new(Bounds::nodes(2).with(Limited::Crash, 1));
    let (one, four) = (model.check(1, None), model.check(4, None));
    assert_eq!((one.states, one.steps, one.reached), (four.states, four.steps, four.reached));
}

#[test]
fn wider_bounds_reach_more_states() {
    let states = |bounds| check(&ClusterModel::new(bounds)).states;
    let bounds = Bounds::nodes(2);
    assert_eq!(states(bounds), 1);
    let asked = states(bounds.with(Limited::Ask, 1));
    assert!(1 < asked && asked < states(bounds.with(Limited::Ask, 1).with(Limited::Delay, 1)));
}

#[test]
fn a_tamper_without_a_fault_does_not_change_the_states() {
    let model = ClusterModel::new(Bounds::nodes(2).with(Limited::Ask, 1));
    let (plain, tampered) = (check(&model), check(&model.clone().tampered(|| Honest)));
    assert_eq!((plain.states, plain.steps), (tampered.states, tampered.steps));
    assert!(tampered.exhausted, "{tampered}");
}

/// Checks that the fault breaks the promise within the bounds, and returns the printed result.
fn breaks<T: Tamper + 'static>(promise: Promise, bounds: Bounds, make: fn() -> T) -> String {
    let checked = check(&ClusterModel::new(bounds).tampered(make));
    let told = checked.to_string();
    println!("{told}");
    let Some(broken) = checked.broken else { panic!("no promise is broken: {told}") };
    assert_eq!(broken.promise, promise.name(), "{told}");
    assert!(!broken.found.is_empty() && broken.story.len() >= broken.steps, "{told}");
    told
}
