//! x

pub mod config;
pub mod discovery;
pub mod event;
mod fold;
pub mod keyspace;
pub mod machine;
pub mod name;
pub mod node;
pub mod outcome;
pub mod placement;
mod record;
pub mod runtime;
pub mod store;
pub mod time;
pub mod version;
pub mod view;

pub use self::{
    config::{Backoff, Config, InvalidConfig, Laggards, NameConflict},
    discovery::Discovery,
    event::{Event, StopReason},
    keyspace::Keyspace,
    name::{Incarnation, InvalidInput, Namespace, NodeName, NodeUri},
    node::{Metadata, Node},
    outcome::{IntoOutcome, Outcome},
    record::Cause,
    runtime::{
        Builder, Clustering, Ended, Events, EventsError, Stabilization, Stable, StartError, Status,
        StopError, UpdateError,
    },
    version::{Term, Version},
    view::{Diff, View},
};
