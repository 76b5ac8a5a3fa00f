//! Tells the author of a test that P12 was not judged for the service's own work, because the service has not reported
//! any.

use std::{cell::Cell, io::Write, thread};

/// What was seen of the work on keys.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    /// True if a node was exclusive.
    pub(super) exclusive: bool,
    /// True if a process has reported work.
    pub(super) work: bool,
}

thread_local! {
    /// What all clusters of the current run of seeds have seen; `None` outside of such a run.
    static SEEDS: Cell<Option<Seen>> = const { Cell::new(None) };
}

/// Handles the end of a cluster that was checked.
pub(super) fn ended(seen: Seen) {
    match SEEDS.get() {
        Some(so_far) => SEEDS.set(Some(so_far.and(seen))),
        None => seen.tell(),
    }
}

/// Runs many seeds, and reports them as one.
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

    /// Writes directly to standard error, because test runners capture what `eprintln!` prints.
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
