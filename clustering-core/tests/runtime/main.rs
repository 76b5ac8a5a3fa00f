//! The runtime and the public API on the memory store, under paused time: the promises as a service sees them.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test, in helpers too")]

mod announce;
mod by_hand;
mod common;
mod cost;
mod crashes;
mod departures;
mod determinism;
mod discovery;
mod eviction;
mod formation;
mod garbage;
mod guards;
mod hand_over;
mod handover_cost;
mod harness;
mod health;
mod history;
mod holds;
mod input;
mod lifecycle;
mod lost_replies;
mod outages;
mod promises;
mod reporting;
mod restarts;
mod routes;
mod sessions;
mod stability;
mod stabilize;
mod storms;
mod suspends;
mod threads;
mod waiting;
