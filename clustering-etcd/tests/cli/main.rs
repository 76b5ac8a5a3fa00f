//! The command `clustering` against real servers.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../common/users.rs"]
mod users;

mod alone;
mod deployment;
mod features;
mod guide;
mod harness;
mod hostile;
mod keys;
mod leftovers;
mod listen;
mod past;
mod run;
mod screen;
mod status;
mod verbs;
mod watch;
