//! Work on keys that nodes hold exclusively (P12), recorded so that it can be judged afterwards.
//!
//! ```text
//!   node process ── worker of each key ── log ───────────────┐
//!                        │ commit_as_owner ──▶ counter ──────┼──▶ Judge
//!                        └ token ────────────▶ FencedFile ───┘
//! ```
//!
//! Each node of a test tries to hold all keys. While it holds a key, it increments two counters of the key: one in the
//! store, through [`commit_as_owner`](clustering_core::Clustering::commit_as_owner), and one in a [`FencedFile`], which
//! is independent of the cluster and compares fencing tokens. The worker computes the next value from its memory, like
//! a service that has loaded its state, so that a second worker would overwrite increments.
//!
//! [`Judge`] finds times at which two processes held a key, and increments that were lost or made twice.

mod counter;
mod fenced;
mod judge;
mod log;
mod worker;

pub(crate) use self::worker::Workers;
pub use self::{
    counter::{Counted, counts},
    fenced::FencedFile,
    judge::{Judge, Judged},
    log::{Event, Line, Log, Place},
    worker::{Breach, WorkSpec},
};
