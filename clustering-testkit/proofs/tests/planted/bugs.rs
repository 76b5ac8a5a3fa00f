//! Faults of the protocol that the simulation has to find as it is run by default, each by its name.
//!
//! They are planted at the boundary of the machine: what goes in and out is falsified as a fault inside would falsify it. So
//! they do not depend on how the machine is built inside.

use clustering_core::machine::Purpose;
use clustering_proofs::sim::{Simulation, Tamper};

use super::{planted::*, tampers::*};

/// A fault of the protocol.
pub(crate) struct Bug {
    /// Its name.
    pub(crate) name: &'static str,
    /// Description of the node's wrong behaviour.
    pub(crate) what: &'static str,
    /// A seed that finds it. What seeds draw changes with the simulation, so it is only where to look first.
    pub(crate) seed: u64,
    /// Accepted prefixes of the breach that the simulation reports.
    pub(crate) says: &'static [&'static str],
    /// Makes the fault for a run.
    pub(crate) make: fn() -> Box<dyn Tamper>,
}

impl Bug {
    /// The simulation with this fault.
    pub(crate) fn planted_in(&self, simulation: Simulation) -> Simulation {
        simulation.tampered(self.make)
    }

    /// True if that is the breach that the fault should be reported as.
    pub(crate) fn is_said_by(&self, broken: &str) -> bool {
        self.says.iter().any(|says| broken.starts_with(says))
    }
}

macro_rules! bugs {
    ($($name:ident: $what:literal, $seed:literal, $says:expr, $make:expr;)+) => {
        /// All of them.
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

/// A commit without its guards on keys that begin like that.
const fn unguarded(purpose: Purpose, keys: &'static [&'static str]) -> Unguarded {
    Unguarded { purpose, keys }
}

bugs! {
    acknowledged_view_survives_the_session:
        "The status of a node shows the view that it acknowledged in a session that is over.",
        1, ["P4, an acknowledged view"], AcknowledgedSurvives::default();
    stale_acknowledgements_after_a_read:
        "A leader that reads ready/ again keeps acknowledgements that are no longer there.",
        462, ["P4", "P8"], KeepsWhatIsGone::default();
    stale_weights:
        "A node places keys by the weights of an older view with the same names.",
        9, ["P1"], OldWeights::default();
    announcement_not_told_of_a_rewind:
        "After a restore of the store a leader takes versions for announced because their revisions are low.",
        40, ["P4, an on_stable"], RemembersAnnouncements::default();
    rewrite_leaves_the_acknowledgement:
        "A node that changes its metadata leaves the acknowledgement standing.",
        642, ["P4"], LeavesItStanding;
    confirm_while_reading_again:
        "A leader whose watch of ready/ ended records stability by what it knew before.",
        72, ["P4"], ConfirmsWhileReading::default();
    leaver_deletes_the_election_key_unguarded:
        "A leader that leaves deletes the election key, whoever holds it.",
        308, ["P5"], unguarded(Purpose::Leave, &["c/view/leader"]);
    elect_without_the_own_record:
        "A candidate is elected though its record is gone or another's.",
        192, ["P5"], unguarded(Purpose::Elect, &["c/view/nodes/"]);
    take_over_leaves_the_lead:
        "A node takes the name of a leader over, and the other one leads on.",
        8, ["P5"], LeavesTheLead;
    labels_by_the_wall_clock:
        "A leader mints labels by its wall clock, and not above those that it saw.",
        4, ["P2"], LabelsByWallClock;
    leader_news_ignored_while_suspended:
        "A suspended leader takes no notice of a new leader.",
        353, ["P10"], DeafWhileSuspended::default();
    lost_acknowledgements_of_departed_nodes:
        "A leader keeps lost acknowledgements of nodes that are gone, and names them as causes.",
        6, ["a cause"], MournsTheDeparted::default();
    watch_dropped_while_it_opens:
        "A watch that is dropped before it is open is never closed.",
        6, ["a leak"], LeaksOpeningWatches::default();
    suspends_not_counted:
        "The node's clock stands still while the system is suspended.",
        2, ["P6"], StandsStill;
    confirm_without_waiting_for_all:
        "A leader records stability as soon as half of the nodes have acknowledged.",
        1, ["P4"], HalfIsEnough;
    publish_by_a_deposed_leader:
        "A version is published without a guard on the term.",
        54, ["P5"], unguarded(Purpose::Publish, &["c/view/leader"]);
    acts_after_its_deadline:
        "A leader counts its deadline from too late a moment.",
        1, ["P6"], CountsAnEarlierReply::default();
    two_stabilizes_at_once:
        "A stabilize that was superseded is taken for one that has ended.",
        1, ["P3"], DoesNotWait::default();
    confirm_by_a_deposed_leader:
        "Stability is recorded without a guard on the term.",
        59, ["P5"], unguarded(Purpose::Confirm, &["c/view/leader"]);
    confirm_of_an_older_version:
        "Stability is recorded without a guard on the version.",
        67, ["P4"], unguarded(Purpose::Confirm, &["c/view/version"]);
    confirm_twice:
        "Stability is recorded without a guard on the record of it.",
        4, ["P4"], unguarded(Purpose::Confirm, &["c/view/stable"]);
    late_acknowledgement:
        "An acknowledgement is written without a guard on the version.",
        4, ["P4"], unguarded(Purpose::Acknowledge, &["c/view/version"]);
    acknowledgement_without_the_own_record:
        "An acknowledgement is written without a guard on the node's record.",
        12, ["P4"], unguarded(Purpose::Acknowledge, &["c/view/nodes/"]);
    join_over_another:
        "A node joins without looking whether its name is held.",
        6, ["P7"], unguarded(Purpose::Join, &["c/view/nodes/"]);
    eviction_by_a_deposed_leader:
        "A laggard is evicted without a guard on the term.",
        17, ["P5"], unguarded(Purpose::Evict, &["c/view/leader"]);
    resignation_of_another:
        "A leader that resigns deletes the election key, whoever holds it.",
        10, ["P5", "P6"], unguarded(Purpose::Resign, &["c/view/leader"]);
    write_by_a_deposed_leader:
        "A user's write is committed without a guard on the term.",
        4, ["P5"], unguarded(Purpose::LeaderCommit, &["c/view/leader"]);
    election_over_another:
        "An election looks at neither leader nor version.",
        1, ["P2", "P5"], unguarded(Purpose::Elect, &["c/view/leader", "c/view/version"]);
    rewrite_of_another:
        "A node changes its record without looking whose it is.",
        39, ["P7"], unguarded(Purpose::Rewrite, &["c/view/nodes/"]);
    leave_of_another:
        "A node that leaves deletes the record under its name, whoever's it is.",
        82, ["P7"], unguarded(Purpose::Leave, &["c/view/nodes/"]);
    take_over_of_another:
        "A node takes a name over without looking who holds it by now.",
        23, ["P7"], unguarded(Purpose::TakeOver, &["c/view/nodes/"]);
}
