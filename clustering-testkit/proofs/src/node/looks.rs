use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use clustering_core::Clustering;

use clustering_testkit::history::{Journal, Moment, Observation};

/// Interval between two looks.
const EVERY: Duration = Duration::from_millis(20);

/// Gap between two looks that shows that the process was paused.
const GAP: Duration = Duration::from_millis(500);

/// Interval at which an unchanged state is recorded again.
const AGAIN: Duration = Duration::from_millis(200);

/// Thread that repeatedly asks a node if it may act as leader. After a pause of the process, this thread asks as soon
/// as the node could notice the pause.
///
/// A change is recorded together with the last look before it. The first look after a gap is always recorded.
pub(super) struct Looks {
    end: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Looks {
    pub(super) fn begin(journal: &Journal, node: &Clustering) -> Self {
        let end = Arc::<AtomicBool>::default();
        let (journal, node, until) = (journal.clone(), node.downgrade(), end.clone());
        let thread = thread::spawn(move || {
            let mut taken = Taken::default();
            while !until.load(Ordering::Relaxed) {
                let Some(node) = node.upgrade() else { return };
                let look = journal.look(&node);
                taken.consider(&journal, look);
                taken.consider_stale(&journal, &node);
                drop(node);
                thread::sleep(EVERY);
            }
        });
        Looks { end, thread }
    }

    pub(super) fn end(self) {
        self.end.store(true, Ordering::Relaxed);
        // The thread panics only if the journal cannot be written.
        let _ = self.thread.join();
    }
}

type Look = (Moment, Observation);

#[derive(Default)]
struct Taken {
    /// The last look, and true if it was recorded.
    last: Option<(Look, bool)>,
    noted: Moment,
    noted_stale: Moment,
}

impl Taken {
    fn consider(&mut self, journal: &Journal, look: Look) {
        let changed = self
            .last
            .as_ref()
            .is_none_or(|((at, last), _)| term(last) != term(&look.1) || look.0.since(*at) > GAP);
        if changed && let Some(((at, last), false)) = self.last.take() {
            journal.note_at(at, last);
        }
        let note = changed || look.0.since(self.noted) > AGAIN && term(&look.1).is_some();
        if note {
            journal.note_at(look.0, look.1.clone());
            self.noted = look.0;
        }
        self.last = Some((look, note));
    }
}

impl Taken {
    /// Records what the node still knows while the store is away.
    fn consider_stale(&mut self, journal: &Journal, node: &Clustering) {
        let now = journal.clock().now();
        let status = node.status().get();
        if let Some(away) = node.stale_for()
            && now.since(self.noted_stale) > AGAIN
        {
            let newest = status.newest.as_ref().map(|view| view.version());
            journal.note(Observation::Stale { away, newest, present: node.nodes().len() });
            self.noted_stale = now;
        }
    }
}

fn term(look: &Observation) -> Option<u64> {
    match look {
        Observation::AskedLeader { term, .. } => term.map(|term| term.get()),
        _ => None,
    }
}
