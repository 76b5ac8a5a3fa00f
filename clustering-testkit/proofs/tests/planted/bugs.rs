//! Faults in the protocol that the simulation must find with its default settings.
//!
//! The faults are imitated at the boundary of the machine: inputs and outputs are falsified as a fault inside the
//! machine would do. So they do not depend on the machine's internal structure.

use clustering_core::machine::Purpose;
use clustering_proofs::sim::{Simulation, Tamper};

use super::{planted::*, tampers::*};

/// A fault in the protocol.
pub(crate) struct Bug {
    /// Name of the fault.
    pub(crate) name: &'static str,
    /// Description of the node's wrong behaviour.
    pub(crate) what: &'static str,
    /// Seed that finds the fault. What seeds draw changes with the simulation, so this is only the first seed to try.
    pub(crate) seed: u64,
    /// Accepted prefixes of the simulation's report.
    pub(crate) says: &'static [&'static str],
    /// Creates the fault for a run.
    pub(crate) make: fn() -> Box<dyn Tamper>,
}

impl Bug {
    /// Adds the fault to a simulation.
    pub(crate) fn planted_in(&self, simulation: Simulation) -> Simulation {
        simulation.tampered(self.make)
    }

    /// True if the report is an expected one for this fault.
    pub(crate) fn is_reported_as(&self, broken: &str) -> bool {
        self.says.iter().any(|says| broken.starts_with(says))
    }
}

macro_rules! bugs {
    ($($name:ident: $what:literal, $seed:literal, $says:expr, $make:expr;)+) => {
        /// All faults.
        pub(crate) const BUGS: &[Bug] = &[$(Bug {
            name: stringify!($name),
            what: $what,
            seed: $seed,
            says: &$says,
            make: || Box::new($make),
        }),+];

        #[cfg(test)]
        mod each {
            $(#[test]
            fn $name() {
                super::super::is_found(stringify!($name));
            })+
        }
    };
}

/// Drops the guards on keys with these prefixes from commits with this purpose.
const fn unguarded(purpose: Purpose, keys: &'static [&'static str]) -> Unguarded {
    Unguarded { purpose, keys }
}

bugs! {
    acknowledged_view_survives_the_session:
        "A node's status still shows the acknowledged view of a session that has ended.",
        1, ["P4, acknowledged view"], AcknowledgedSurvives::default();
    stale_acknowledgements_after_a_read:
        "A leader that reads ready/ again keeps acknowledgements that no longer exist.",
        435, ["P4", "P8"], KeepsLostAcknowledgements::default();
    stale_weights:
        "A node assigns keys by the weights of an older view with the same names.",
        1, ["P1"], OldWeights::default();
    announcement_not_told_of_a_rewind:
        "After a restore of the store, a leader assumes that versions were announced because their revisions are low.",
        11, ["P4, missing on_stable"], RemembersAnnouncements::default();
    rewrite_leaves_the_acknowledgement:
        "A node that changes its metadata keeps its acknowledgement.",
        360, ["P4"], KeepsTheAcknowledgement;
    confirm_while_reading_again:
        "A leader whose watch of ready/ has ended records stability from what it knew before.",
        92, ["P4"], ConfirmsWhileReading::default();
    leaver_deletes_the_election_key_unguarded:
        "A leader that leaves deletes the election key even if another node holds it.",
        195, ["P5"], unguarded(Purpose::Leave, &["c/view/leader"]);
    elect_without_the_own_record:
        "A candidate is elected although its record is gone or belongs to another instance.",
        463, ["P5"], unguarded(Purpose::Elect, &["c/view/nodes/"]);
    take_over_leaves_the_lead:
        "A node takes over the name of a leader, but the other instance continues to lead.",
        1, ["P5"], LeavesTheLead;
    labels_by_the_wall_clock:
        "A leader generates labels from its wall clock, even if it has seen higher ones.",
        3, ["P2"], LabelsByWallClock;
    leader_news_ignored_while_suspended:
        "A suspended leader does not notice a new leader.",
        91, ["P10"], DeafWhileSuspended::default();
    lost_acknowledgements_of_departed_nodes:
        "A leader remembers lost acknowledgements of departed nodes and names them as causes.",
        14, ["false cause"], RemembersDepartedNodes::default();
    watch_dropped_while_it_opens:
        "A watch that is dropped before it is open is never closed.",
        3, ["leak"], LeaksOpeningWatches::default();
    suspends_not_counted:
        "The node's clock stops while the system is suspended.",
        2, ["P6"], StopsDuringSuspends;
    confirm_without_waiting_for_all:
        "A leader records stability as soon as more than half of the nodes have acknowledged.",
        1, ["P4", "P8"], HalfIsEnough;
    publish_by_a_deposed_leader:
        "A version is published without a guard on the term.",
        8, ["P5"], unguarded(Purpose::Publish, &["c/view/leader"]);
    acts_after_its_deadline:
        "A leader calculates its deadline from a time that is too late.",
        1, ["P6"], CountsAnEarlierReply::default();
    two_stabilizes_at_once:
        "A stabilize counts as ended once it is superseded.",
        1, ["P3"], DoesNotWait::default();
    confirm_by_a_deposed_leader:
        "Stability is recorded without a guard on the term.",
        83, ["P5"], unguarded(Purpose::Confirm, &["c/view/leader"]);
    confirm_of_an_older_version:
        "Stability is recorded without a guard on the version.",
        3, ["P4"], unguarded(Purpose::Confirm, &["c/view/version"]);
    confirm_twice:
        "Stability is recorded without a guard on the previous stability record.",
        56, ["P4"], unguarded(Purpose::Confirm, &["c/view/stable"]);
    late_acknowledgement:
        "An acknowledgement is written without a guard on the version.",
        2, ["P4"], unguarded(Purpose::Acknowledge, &["c/view/version"]);
    acknowledgement_without_the_own_record:
        "An acknowledgement is written without a guard on the node's record.",
        29, ["P4"], unguarded(Purpose::Acknowledge, &["c/view/nodes/"]);
    join_over_another:
        "A node joins without checking that its name is free.",
        124, ["P7"], unguarded(Purpose::Join, &["c/view/nodes/"]);
    eviction_by_a_deposed_leader:
        "A laggard is evicted without a guard on the term.",
        292, ["P5"], unguarded(Purpose::Evict, &["c/view/leader"]);
    removal_of_another_process:
        "A node whose process is gone is removed without a guard on its record.",
        8, ["P7, removal"], unguarded(Purpose::RemoveCrashed, &["c/view/nodes/"]);
    removal_of_a_leader_that_keeps_the_lead:
        "A node whose process is gone is removed without a guard on the leader.",
        66, ["P5, leadership of a removed node"], unguarded(Purpose::RemoveCrashed, &["c/view/leader"]);
    resignation_of_another:
        "A leader that resigns deletes the election key even if another node holds it.",
        21, ["P5", "P6"], unguarded(Purpose::Resign, &["c/view/leader"]);
    write_by_a_deposed_leader:
        "A leader commit is made without a guard on the term.",
        4, ["P5"], unguarded(Purpose::LeaderCommit, &["c/view/leader"]);
    permit_by_a_deposed_leader:
        "The acquisition of slots is permitted without a guard on the term.",
        62, ["P5"], unguarded(Purpose::Permit, &["c/view/leader"]);
    owner_commit_without_a_fence:
        "A commit as owner is made without a guard on the version.",
        54, ["P12"], unguarded(Purpose::OwnerCommit, &["c/view/version"]);
    holds_forgotten_at_once:
        "A node assumes that holds were dropped as soon as it has retracted them.",
        3, ["P12"], ForgetsHolds;
    release_not_repeated:
        "A node counts a refused release as done.",
        137, ["P12"], ReleasesOnce;
    election_over_another:
        "A node is elected without guards on the leader and the version.",
        1, ["P2", "P5"], unguarded(Purpose::Elect, &["c/view/leader", "c/view/version"]);
    rewrite_of_another:
        "A node rewrites its record without checking that it is its own.",
        8, ["P7"], unguarded(Purpose::Rewrite, &["c/view/nodes/"]);
    leave_of_another:
        "A node that leaves deletes the record under its name even if it belongs to another instance.",
        343, ["P7"], unguarded(Purpose::Leave, &["c/view/nodes/"]);
    take_over_of_another:
        "A node takes over a name without checking that the same instance still holds it.",
        124, ["P7"], unguarded(Purpose::TakeOver, &["c/view/nodes/"]);
}
