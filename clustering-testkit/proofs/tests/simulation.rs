//! The simulation: seeds under which all promises hold, the same history for the same seed, and that what it is to reach
//! is reached.

use std::{thread, time::Duration};

use clustering_proofs::sim::{Counts, Fault, Kind, Reached, Simulation};
use clustering_testkit::history::Moment;

/// Runs these seeds on all cores, and adds up what they came to.
fn run(simulation: &Simulation, seeds: impl IntoIterator<Item = u64>) -> Counts {
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = seeds.len().div_ceil(cores).max(1);
    let mut sum = Counts::default();
    thread::scope(|scope| {
        let run_share = |share: &[u64]| {
            let mut sum = Counts::default();
            for seed in share {
                sum += &simulation.run(*seed).unwrap_or_else(|failure| panic!("{failure}")).counts;
            }
            sum
        };
        let shares: Vec<_> = seeds.chunks(share).map(|share| scope.spawn(move || run_share(share))).collect();
        for share in shares {
            sum += &share.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    sum
}

#[test]
fn p1_to_p8_and_p11_hold_under_all_faults_and_all_that_is_to_be_reached_is_reached() {
    let counts = run(&Simulation::new(), 1..=300);
    for kind in Kind::ALL {
        assert!(counts.faults(kind) > 0, "no {}", kind.name());
    }
    for reached in Reached::ALL {
        assert!(counts.reached(reached) > 0, "no {}", reached.name());
    }
}

#[test]
fn p1_to_p8_and_p11_hold_in_a_cluster_of_any_size() {
    for nodes in [1, 2, 3, 15] {
        run(&Simulation::new().nodes(nodes).storm(Duration::from_secs(20)), 1..=10);
    }
}

#[test]
fn p1_to_p8_and_p11_hold_with_leases_of_any_length() {
    for ttl in [1, 15, 60] {
        run(&Simulation::new().nodes(4).ttl(Duration::from_secs(ttl)), 1..=5);
    }
}

#[test]
fn the_same_seed_gives_the_same_history_and_another_seed_another() {
    let simulation = Simulation::new().nodes(5).storm(Duration::from_secs(20));
    let hash = |seed| simulation.run(seed).unwrap().hash;
    let first: Vec<u64> = (1..=10).map(hash).collect();
    let again: Vec<u64> = (1..=10).map(hash).collect();
    assert_eq!(first, again);
    let mut distinct = first;
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 10);
}

#[test]
fn telling_the_story_changes_nothing() {
    let simulation = Simulation::new().nodes(4).storm(Duration::from_secs(20));
    let (story, told) = simulation.story(3);
    assert_eq!(told.unwrap(), *simulation.run(3).as_ref().unwrap());
    assert!(story.len() > 100 && story.iter().any(|line| line.contains("elect by n")));
}

#[test]
fn each_kind_of_fault_alone_occurs_and_breaks_nothing() {
    for kind in Kind::ALL {
        let simulation = Simulation::new().nodes(4).storm(Duration::from_secs(20)).only([kind]);
        let counts = run(&simulation, 1..=4);
        assert!(counts.faults(kind) > 0, "no {}", kind.name());
        assert!(Kind::ALL.iter().all(|other| *other == kind || counts.faults(*other) == 0));
    }
}

#[test]
fn without_faults_there_is_one_leader_and_no_session_is_lost() {
    let counts = run(&Simulation::new().only([]), 1..=5);
    assert_eq!(counts.reached(Reached::Election), 5);
    assert_eq!(counts.reached(Reached::SessionLost), 0);
}

/// Seeds that found something once. What a seed draws changes with the simulation: what older seeds found, and do not find any
/// more, is planted instead, in `planted/` of this crate.
#[test]
fn what_was_found_once_is_not_found_again() {
    let found = [
        // P8: a leader resigned, and the store was restored to the moment before: it neither led nor resigned again.
        6630,
    ];
    run(&Simulation::new(), found);
}

#[test]
fn p8_a_change_that_waits_for_its_turn_to_be_published_is_no_failure() {
    // The metadata changes again and again, so that the gap between two versions grows to its longest. The last change comes
    // just before the end of the storm: the newest version is stable, and the next one is seconds away.
    let update = |ms: u64, node| Fault {
        at: Moment::from_nanos(ms * 1_000_000),
        kind: Kind::Update,
        node,
        lasts: Duration::ZERO,
        choice: ms,
        upon: None,
    };
    let changes = (0..80).map(|n| update(5_000 + 400 * n, (n % 3) as usize)).chain([update(39_990, 0)]);
    let simulation = Simulation::new()
        .nodes(3)
        .ttl(Duration::from_secs(1))
        .storm(Duration::from_secs(40))
        .planned(changes);
    run(&simulation, 1..=20);
}
