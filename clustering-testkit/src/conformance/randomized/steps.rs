use proptest::{prelude::*, strategy::Union};
use proptest_state_machine::ReferenceStateMachine;

/// Names of the keys that a case uses: a prefix, keys below it and their neighbours.
pub(super) const KEYS: [&str; 8] = ["a", "a/", "a/b", "a/c", "a/\u{10ffff}", "a/\u{10ffff}/d", "a0", "b"];

/// Prefixes that a case reads and watches.
pub(super) const PREFIXES: [&str; 7] = ["", "a", "a/", "a/c", "a/\u{10ffff}", "b", "c"];

/// One step of a case. Leases and watches are numbered in the order in which the case creates them.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Grant {
        handle: usize,
        ttl: u32,
    },
    Renew {
        handle: usize,
        lease: usize,
    },
    Revoke {
        handle: usize,
        lease: usize,
    },
    Commit {
        handle: usize,
        guards: Vec<Guarded>,
        operations: Vec<Written>,
    },
    Read {
        handle: usize,
        prefix: usize,
    },
    Watch {
        handle: usize,
        prefix: usize,
        from: From,
    },
    Drain {
        watch: usize,
    },
    Drop {
        watch: usize,
    },
    /// Lets time pass, in twentieths of the smallest TTL.
    Advance {
        steps: u32,
    },
    /// Compacts up to a change, counted back from the newest.
    Compact {
        back: usize,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Guarded {
    pub(super) key: usize,
    pub(super) created: bool,
    pub(super) at: At,
}

/// Revision in a guard.
#[derive(Clone, Debug)]
pub(super) enum At {
    /// The revision at which the guard holds.
    Right,
    Absent,
    /// The revision of an earlier change, counted back from the newest. It may be right by chance.
    Past(usize),
    Ahead,
}

#[derive(Clone, Debug)]
pub(super) enum Written {
    Put {
        key: usize,
        value: u8,
        lease: Under,
    },
    Delete {
        key: usize,
    },
    /// A value that exceeds the size limit.
    TooLarge {
        key: usize,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Under {
    None,
    /// A lease of the case, live or dead.
    Lease(usize),
    /// The id of a lease that never existed.
    Unknown(u64),
}

/// Revision from which a watch starts.
#[derive(Clone, Debug)]
pub(super) enum From {
    Now,
    Beginning,
    /// The revision of an earlier change, counted back from the newest. The watch does not yield that change.
    Past(usize),
    /// The revision just before an earlier change, counted back from the newest. The watch yields that change.
    Before(usize),
    Beyond,
}

/// Number of leases and watches that the case has created so far. They limit the possible next steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Made {
    leases: usize,
    watches: usize,
}

fn steps(made: &Made, time: bool) -> BoxedStrategy<Step> {
    let (leases, watches) = (made.leases, made.watches);
    let handle = || 0..2_usize;
    let prefix = || 0..PREFIXES.len();
    let back = || 0..12_usize;
    let mut all: Vec<(u32, BoxedStrategy<Step>)> = vec![
        (3, (handle(), 1..5_u32).prop_map(|(handle, ttl)| Step::Grant { handle, ttl }).boxed()),
        (14, commit(leases)),
        (2, (handle(), prefix()).prop_map(|(handle, prefix)| Step::Read { handle, prefix }).boxed()),
        (
            4,
            (handle(), prefix(), from())
                .prop_map(|(handle, prefix, from)| Step::Watch { handle, prefix, from })
                .boxed(),
        ),
    ];
    if leases > 0 {
        let lease = || (handle(), 0..leases);
        all.push((3, lease().prop_map(|(handle, lease)| Step::Renew { handle, lease }).boxed()));
        all.push((2, lease().prop_map(|(handle, lease)| Step::Revoke { handle, lease }).boxed()));
    }
    if watches > 0 {
        all.push((3, (0..watches).prop_map(|watch| Step::Drain { watch }).boxed()));
        all.push((1, (0..watches).prop_map(|watch| Step::Drop { watch }).boxed()));
    }
    if time {
        all.push((5, (1..70_u32).prop_map(|steps| Step::Advance { steps }).boxed()));
        all.push((1, back().prop_map(|back| Step::Compact { back }).boxed()));
    }
    Union::new_weighted(all).boxed()
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        2 => Just(From::Now),
        1 => Just(From::Beginning),
        3 => (0..12_usize).prop_map(From::Past),
        2 => (0..12_usize).prop_map(From::Before),
        1 => Just(From::Beyond),
    ]
}

fn commit(leases: usize) -> BoxedStrategy<Step> {
    let at = prop_oneof![
        8 => Just(At::Right),
        1 => Just(At::Absent),
        2 => (0..12_usize).prop_map(At::Past),
        1 => Just(At::Ahead),
    ];
    let guard =
        (0..KEYS.len(), any::<bool>(), at).prop_map(|(key, created, at)| Guarded { key, created, at });
    let unknown = || prop::sample::select(vec![0, 0x7fff_ffff_ffff_fff1, u64::MAX]).prop_map(Under::Unknown);
    let under = if leases == 0 {
        prop_oneof![8 => Just(Under::None), 1 => unknown()].boxed()
    } else {
        prop_oneof![8 => Just(Under::None), 12 => (0..leases).prop_map(Under::Lease), 1 => unknown()].boxed()
    };
    let operation = prop_oneof![
        30 => (0..KEYS.len(), 0..4_u8, under)
            .prop_map(|(key, value, lease)| Written::Put { key, value, lease }),
        10 => (0..KEYS.len()).prop_map(|key| Written::Delete { key }),
        1 => (0..KEYS.len()).prop_map(|key| Written::TooLarge { key }),
    ];
    let guards = prop::collection::vec(guard, 0..4);
    // Sometimes two operations name the same key, which the store must refuse.
    let operations = prop::collection::vec(operation, 0..4);
    (0..2_usize, guards, operations)
        .prop_map(|(handle, guards, operations)| Step::Commit { handle, guards, operations })
        .boxed()
}

fn possible(made: &Made, step: &Step) -> bool {
    let lease_known = |lease: &Under| !matches!(lease, Under::Lease(lease) if *lease >= made.leases);
    match step {
        Step::Renew { lease, .. } | Step::Revoke { lease, .. } => *lease < made.leases,
        Step::Drain { watch } | Step::Drop { watch } => *watch < made.watches,
        Step::Commit { operations, .. } => operations.iter().all(|operation| match operation {
            Written::Put { lease, .. } => lease_known(lease),
            _ => true,
        }),
        _ => true,
    }
}

fn after(mut made: Made, step: &Step) -> Made {
    match step {
        Step::Grant { .. } => made.leases += 1,
        Step::Watch { .. } => made.watches += 1,
        _ => {}
    }
    made
}

macro_rules! machine {
    ($(#[$doc:meta])* $name:ident, $time:literal) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl ReferenceStateMachine for $name {
            type State = Made;
            type Transition = Step;

            fn init_state() -> BoxedStrategy<Made> {
                Just(Made::default()).boxed()
            }

            fn transitions(made: &Made) -> BoxedStrategy<Step> {
                steps(made, $time)
            }

            fn preconditions(made: &Made, step: &Step) -> bool {
                possible(made, step)
            }

            fn apply(made: Made, step: &Step) -> Made {
                after(made, step)
            }
        }
    };
}

machine! {
    /// Generates steps for a store under a paused clock that has no other users.
    Paused, true
}

machine! {
    /// Generates steps that neither let time pass nor compact the history.
    Real, false
}
