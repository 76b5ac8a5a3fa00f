//! Tests of the machine: one file per input.
//!
//! A test builds a state, gives the machine one input (or the few that belong together), and compares all outputs, in
//! order and rendered as one line each. [`bench`] has the harness. [`invariants`] are checked after every input of
//! every test. [`walk`] and [`fuzz`] generate inputs at random. [`world`] runs several machines against one store
//! under faults.

mod actions;
mod bench;
mod expect;
mod invariants;
mod model;
mod render;

mod announced;
mod assignment;
mod batch_garbage;
mod batch_leader;
mod batch_membership;
mod batch_ready;
mod batch_request;
mod batch_stable;
mod batch_version;
mod candidates;
mod commit_as_leader;
mod commit_as_owner;
mod committed;
mod crashes;
mod formation;
mod fuzz;
mod granted;
mod hand_over;
mod health;
mod history;
mod keeping;
mod layers;
mod leave;
mod own_acknowledgement;
mod ownership;
mod read;
mod reclaim;
mod records;
mod register;
mod renewed;
mod request_version;
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
mod world;
