//! Tests the linearizability of a store (rules 1 and 2 of the contract): several concurrent callers make random calls,
//! and their answers are judged afterwards.
//!
//! ```text
//!   caller 1   ├─commit─┤      ├──read──┤                       is there one order of all calls
//!   caller 2        ├─────commit─────┤        ├─commit (?)       - in which each does what a single map would do,
//!   caller 3  ├─read─┤  ├──commit──┤   ├─read─┤                  - that no call contradicts which began after
//!             ─────────────── time ───────────────▶                another had ended?
//! ```
//!
//! In general this question requires a search through all orders. Here it does not, because every answer has a revision
//! and the contract requires that revisions grow with every change. The revisions determine the order, except among
//! calls that cannot be told apart. [`judge`](History::judge) replays the calls in that order. A call with an unknown
//! outcome is looked up in the store's watch: it took effect at the revision shown there, at any time after it began,
//! or not at all.
//!
//! [`History::of_journals`] builds such a history from the journals of a whole cluster's nodes.
//!
//! ```
//! use std::sync::Arc;
//!
//! use clustering_core::store::CoordinationStore;
//! use clustering_memory::MemoryStore;
//! use clustering_testkit::linearizability::{Plan, play};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let store = MemoryStore::new();
//! let open = async |_caller| Arc::new(store.clone()) as Arc<dyn CoordinationStore>;
//! let history = play(&Plan { seed: 7, ..Plan::default() }, open).await;
//! history.judge().unwrap();
//! # }
//! ```

mod history;
mod journals;
mod judge;
mod play;

pub use self::{
    history::{Answer, Call, History, Operation},
    judge::NotLinearizable,
    play::{Plan, play},
};
