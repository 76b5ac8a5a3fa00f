//! Tests of the machine: one file per input.
//!
//! Each builds a state, gives one input (or the few that belong together), and compares all that the machine puts out,
//! in order, a line for each. [`bench`] says how; [`invariants`] says what is checked in every step besides.

mod bench;
mod invariants;
mod model;
mod render;

mod batch_garbage;
mod batch_leader;
mod batch_membership;
mod batch_ready;
mod batch_request;
mod batch_stable;
mod batch_version;
mod granted;
mod read;
mod renewed;
mod revoked;
mod tick;
mod announced;
mod ask;
mod committed;
mod fence;
mod register;
mod resign;
mod stabilized;
mod stop;
mod unregister;
mod update;
mod watch_ended;
mod watch_opened;
