//! Processes for tests, which end with the test.
//!
//! A test that panics, runs into its time limit or is killed must leave nothing behind, neither processes nor folders.
//! Dropping a [`Process`] or a [`Folder`] takes it away. When a test process ends without dropping anything, its
//! *guardian* does: a small shell, started with the first thing to look after, that waits for the end of its input.
//! So this works on Unix only.
//!
//! ```
//! use clustering_testkit::process::Process;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let node = Process::builder("sleep").arg("1000").spawn()?;
//! node.pause()?;
//! node.resume()?;
//! let status = node.kill().await?;
//! assert!(!status.success());
//! # Ok(())
//! # }
//! ```

mod child;
mod folder;
mod guardian;

pub use self::{
    child::{Process, ProcessBuilder},
    folder::{FOLDER_PREFIX, Folder},
};

#[cfg(feature = "etcd")]
pub(crate) use self::child::excerpt;
#[cfg(any(feature = "etcd", feature = "nodes"))]
pub(crate) use self::folder::random;
#[cfg(feature = "container")]
pub(crate) use self::guardian::{Kept, keep, release};

/// The process id of this process's guardian, which ends when it has cleaned up.
pub fn guardian() -> std::io::Result<u32> {
    guardian::pid()
}
