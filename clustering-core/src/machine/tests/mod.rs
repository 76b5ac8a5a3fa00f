//! Tests of the machine: one file per input.
//!
//! Each builds a state, gives one input (or the few that belong together), and compares all that the machine puts out,
//! in order, a line for each. [`bench`] says how; [`invariants`] says what is checked in every step besides;
//! [`world`] lets several machines play together under faults.

mod bench;
mod handed;
mod hands;
mod invariants;
mod look;
mod model;
mod render;

mod announced;
mod ask;
mod batch_garbage;
mod batch_leader;
mod batch_membership;
mod batch_ready;
mod batch_request;
mod batch_stable;
mod batch_version;
mod check;
mod committed;
mod fence;
mod fuzz;
mod granted;
mod health;
mod history;
mod layers;
mod leave;
mod read;
mod register;
mod renewed;
mod resign;
mod revoked;
mod sizes;
mod stabilized;
mod stop;
mod tick;
mod unregister;
mod update;
mod walk;
mod watch_ended;
mod watch_opened;
mod wire;
mod world;
