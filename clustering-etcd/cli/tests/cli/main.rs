//! Tests of the command `clustering` on real etcd servers.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[allow(dead_code, reason = "tests of clustering-etcd use the rest")]
#[path = "../../../tests/common/users.rs"]
mod users;

mod demo;
mod deployment;
mod exclusive;
mod features;
mod guide;
mod harness;
mod health;
mod history;
mod hooks;
mod hostile;
mod listen;
mod manual;
mod operate;
mod page;
mod placement;
mod rollout;
mod run;
mod screen;
mod services;
mod slots;
mod status;
mod watch;
