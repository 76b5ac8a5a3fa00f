//! Is a store linearizable, as rules 1 and 2 of its contract say? Random calls of several callers at once, judged
//! afterwards.
//!
//! ```text
//!   caller 1   ├─commit─┤      ├──read──┤                       is there one order of all calls
//!   caller 2        ├─────commit─────┤        ├─commit (?)       - in which each does what a single map would do,
//!   caller 3  ├─read─┤  ├──commit──┤   ├─read─┤                  - that no call contradicts which began after
//!             ─────────────── time ───────────────▶                another had ended?
//! ```
//!
//! In general that question takes a search through all orders. Here it does not: every answer bears a revision, and the
//! contract says that revisions grow with every change, so they leave no choice but among calls that cannot be told apart.
//! [`judge`](History::judge) goes through the one order that they say. A call whose outcome is unknown is looked up in
//! the store's watch: it took effect at the revision that the watch shows, at any time after it began, or not at all.
//!
//! Also what the nodes of a whole cluster asked of their store is judged so, if their journals have it:
//! [`History::of_journals`].
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
