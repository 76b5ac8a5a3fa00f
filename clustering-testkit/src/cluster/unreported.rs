//! Tells the author of a test that P12 was not judged for the service's own work, because the service has not reported
//! any.

use std::{cell::Cell, io::Write, thread};

/// Work on keys that was seen in one or more clusters.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    /// True if a node was exclusive.
    pub(super) exclusive: bool,
    /// True if a process has reported work.
    pub(super) work: bool,
}

thread_local! {
    /// Work seen in all clusters of the current run of seeds; `None` outside of such a run.
    static SEEDS: Cell<Option<Seen>> = const { Cell::new(None) };
}

/// Records the work of a cluster that was checked and has ended. Outside of a run of seeds, tells the author at once.
pub(super) fn ended(seen: Seen) {
    match SEEDS.get() {
        Some(so_far) => SEEDS.set(Some(so_far.and(seen))),
        None => seen.tell(),
    }
}

/// Runs many seeds, and tells the author only once for all of them.
pub(super) fn together<T>(run: impl FnOnce() -> T) -> T {
    /// Also ends the run of seeds if it panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            if let Some(seen) = SEEDS.take() {
                seen.tell();
            }
        }
    }
    SEEDS.set(Some(Seen::default()));
    let _end = End;
    run()
}

impl Seen {
    fn and(self, other: Seen) -> Seen {
        Seen { exclusive: self.exclusive || other.exclusive, work: self.work || other.work }
    }

    /// Writes the line directly to standard error, because the test harness captures the output of `eprintln!`.
    fn tell(self) {
        if !self.exclusive || self.work || thread::panicking() {
            return;
        }
        let thread = thread::current();
        let test = thread.name().filter(|name| *name != "main").map(|name| format!(" in {name}"));
        let _ = writeln!(
            std::io::stderr(),
            "NOT JUDGED: P12 for the work of the service{}: no process has called Process::working_on. If the \
             service does call it: lines under #[cfg(test)] are not built into a library that is tested from \
             tests/*.rs, and Process::current() is None in tasks of tokio::spawn",
            test.unwrap_or_default()
        );
    }
}
