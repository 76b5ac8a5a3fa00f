//! Processes for tests, which end with the test.
//!
//! A test that panics, times out or is killed must not leave any processes or folders behind. Dropping a [`Process`] or
//! a [`Folder`] removes it. If a test process ends without dropping them, its *guardian* removes them. The guardian is
//! a small shell that is started with the first process or folder and waits for the end of its input. This works on
//! Unix only.
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
mod port;

#[cfg(any(feature = "etcd", feature = "postgres"))]
pub(crate) use self::child::excerpt;
pub(crate) use self::folder::random;
#[cfg(any(feature = "container", feature = "postgres"))]
pub(crate) use self::guardian::{Kept, keep, release};
pub use self::{
    child::{Process, ProcessBuilder},
    folder::{FOLDER_PREFIX, Folder},
    port::Port,
};

/// Returns the process id of this process's guardian, which ends after it has cleaned up.
pub fn guardian() -> std::io::Result<u32> {
    guardian::pid()
}
