//! The runtime: the loop that drives the [machine](crate::machine), and [`Clustering`], the handle to a node.

mod alarm;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod boottime;
mod builder;
mod callbacks;
mod clock;
mod cluster;
mod driver;
mod error;
mod events;
mod holds;
mod liveness;
mod meter;
mod own;
mod ownership;
#[cfg(feature = "test-util")]
pub mod process;
mod repliers;
mod shared;
mod spawn;
mod status;
mod trace;
mod watches;

#[cfg(feature = "probes")]
pub(crate) use self::status::Known;
pub use self::{
    builder::Builder,
    callbacks::{Release, Stabilization, Stable},
    cluster::{Clustering, WeakClustering},
    error::{Ended, InCallback, StartError, StopError, UpdateError, WaitError},
    events::{Events, EventsError},
    holds::{HeldTasks, Hold, NotHeld, WorkError},
    status::StatusWatch,
};
pub(crate) use self::{
    builder::{id_generator, spawn},
    callbacks::Callbacks,
    clock::Clock,
    driver::Started,
    events::Hub,
    shared::{Handle, Shared},
};
#[cfg(feature = "test-util")]
pub use self::{callbacks::Callback, clock::SimulatedSuspends};
pub use crate::machine::Status;
