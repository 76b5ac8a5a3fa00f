//! Histories of a cluster: everything that each node saw and did, and the store's own history.
//!
//! ```text
//!   node process ── Journal ── entries ─────┐
//!   node process ── Journal ── entries ─────┼──▶ promises::check ──▶ kept, or the broken promise with its timeline
//!   observer ────── ledger::follow ── pages ┘
//! ```
//!
//! - [`Observation`]: something that a node saw or did. An [`Entry`] adds the node, the life and the time. A
//!   [`Journal`] records entries in memory or in a file that survives `kill -9`.
//! - [`Ledger`]: the versions with their views, the terms, the acknowledgements and the leader commits, derived from
//!   the store's history. [`ledger::follow`] collects that history from any store.
//!
//! The checkers in [`promises`](crate::promises) use both.

mod call;
mod journal;
pub mod ledger;
mod moment;
mod observation;
mod recording;
mod timeline;

pub use self::{
    call::{Commit, Digest, StoreAnswer, StoreCall, StoredEntry},
    journal::{FileSink, Journal, Sink, read},
    ledger::{Ledger, Page},
    moment::{Clock, Moment},
    observation::{Ending, Entry, Life, Member, Missing, Observation, WriteOutcome},
    recording::RecordingStore,
    timeline::timeline,
};
