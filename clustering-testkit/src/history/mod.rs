//! What happened to a cluster: what each node saw and did, and what the store's own history says.
//!
//! ```text
//!   node process ── Journal ── entries ─────┐
//!   node process ── Journal ── entries ─────┼──▶ promises::check ──▶ kept, or the story of what broke
//!   observer ────── ledger::follow ── pages ┘
//! ```
//!
//! - [`Observation`]: one thing that a node saw or did; [`Entry`]: by which life of it, and when. [`Journal`] takes them
//!   down, to memory or to a file that outlives a `kill -9`.
//! - [`Ledger`]: the versions with their cuts, the reigns, the acknowledgements, the fenced writes, as the
//!   store has them. [`ledger::follow`] collects it from any store.
//!
//! [`promises`](crate::promises) judges by both.

mod call;
mod journal;
pub mod ledger;
mod moment;
mod observation;
mod recording;
mod timeline;

pub use self::{
    call::{Commit, Digest, Standing, StoreAnswer, StoreCall},
    journal::{FileSink, Journal, Sink, read},
    ledger::{Ledger, Page},
    moment::{Clock, Moment},
    observation::{Ending, Entry, Life, Member, Missing, Observation, WriteOutcome},
    recording::RecordingStore,
    timeline::timeline,
};
