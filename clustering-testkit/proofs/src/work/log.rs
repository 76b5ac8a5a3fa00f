use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use clustering_core::Version;
use clustering_testkit::history::{Clock, Moment, WriteOutcome};
use serde::{Deserialize, Serialize};

/// An event with its time on the clock that all processes of the machine share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Time of the event.
    pub at: Moment,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// Events of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The worker took a hold of the key. The time was taken afterwards.
    Began {
        /// The key.
        key: String,
        /// Fencing token of the hold.
        token: u64,
    },
    /// The hold was valid. The time was taken before the check.
    Valid {
        /// The key.
        key: String,
    },
    /// The worker is about to drop its hold.
    Ended {
        /// The key.
        key: String,
    },
    /// An increment is about to be made.
    Trying {
        /// The key.
        key: String,
        /// Place of the counter.
        place: Place,
        /// Unique id of the increment.
        id: String,
    },
    /// Result of an increment.
    Tried {
        /// The key.
        key: String,
        /// Place of the counter.
        place: Place,
        /// Unique id of the increment.
        id: String,
        /// Result of the increment.
        outcome: WriteOutcome,
    },
    /// Another process has changed the counter while the worker held the key.
    Surprised {
        /// The key.
        key: String,
        /// Description of the change.
        what: String,
    },
    /// The slots that the node holds, and those that its newest version assigns to it, have changed.
    Slots {
        /// The newest version that the node knows.
        version: Version,
        /// The slots that the node holds.
        held: Vec<u16>,
        /// The slots that the version assigns to the node.
        owned: Vec<u16>,
    },
}

/// Place of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The cluster's own store.
    Store,
    /// A file that refuses smaller fencing tokens.
    File,
}

/// Log of the workers of one process. Each line is written with a single call, so that it survives `kill -9`.
#[derive(Clone, Debug)]
pub struct Log {
    clock: Clock,
    file: Arc<Mutex<File>>,
}

impl Log {
    /// Opens the log for appending, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns the file system's error.
    pub fn append(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Log { clock: Clock::boot(), file: Arc::new(Mutex::new(file)) })
    }

    /// Reads a log. An incomplete last line, left by a killed writer, is ignored.
    ///
    /// # Errors
    ///
    /// Returns the file system's error, or [`io::ErrorKind::InvalidData`] for a complete line that is not an event.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<Line>> {
        let mut reader = BufReader::new(File::open(path)?);
        let (mut lines, mut line) = (Vec::new(), String::new());
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            lines.push(serde_json::from_str(&line)?);
            line.clear();
        }
        Ok(lines)
    }

    /// Returns the current time.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Records an event with the current time.
    ///
    /// # Panics
    ///
    /// Panics if the log cannot be written.
    pub fn note(&self, event: Event) {
        self.note_at(self.now(), event);
    }

    /// Records an event with an earlier time.
    ///
    /// # Panics
    ///
    /// Panics if the log cannot be written.
    pub fn note_at(&self, at: Moment, event: Event) {
        let mut line = serde_json::to_vec(&Line { at, event }).expect("events are plain objects");
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).expect("writing to the log failed");
    }
}
