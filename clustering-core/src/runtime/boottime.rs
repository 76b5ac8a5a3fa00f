//! A timer that keeps counting while the machine is suspended.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use tokio::sync::Notify;

use super::clock::Clock;
use crate::time::Timestamp;

/// Delay after tokio's timer. While the machine is awake, tokio's timer fires first, and the thread keeps sleeping.
const SLACK: Duration = Duration::from_millis(5);

/// Stack size of the thread, which only reads and notifies.
const STACK: usize = 64 * 1024;

/// A `timerfd` of `CLOCK_BOOTTIME` and a thread that waits for it.
///
/// The thread replaces tokio's I/O driver, which panics if it is not enabled on the service's runtime.
#[derive(Debug)]
pub(super) struct BoottimeTimer {
    fd: Arc<OwnedFd>,
    shared: Arc<Shared>,
    armed: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Shared {
    fired: Notify,
    closed: AtomicBool,
}

impl BoottimeTimer {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The error of the operating system, if it cannot create another timer or thread.
    pub(super) fn start() -> io::Result<Self> {
        let fd = Arc::new(timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?);
        let timer = BoottimeTimer { fd: fd.clone(), shared: Arc::default(), armed: None };
        let shared = timer.shared.clone();
        thread::Builder::new()
            .name("clustering-alarm".to_owned())
            .stack_size(STACK)
            .spawn(move || notify(&fd, &shared))?;
        Ok(timer)
    }

    /// Waits until `time` by the clock that counts suspends, or a little longer. May return early, so the caller checks
    /// the clock.
    pub(super) async fn wait_until(&mut self, clock: &Clock, time: Timestamp) {
        if self.armed != Some(time) {
            self.arm(time.since(clock.now()) + SLACK);
            self.armed = Some(time);
        }
        self.shared.fired.notified().await;
        self.armed = None;
    }

    fn arm(&self, after: Duration) {
        // A year is as good as never, and cannot overflow on any system.
        let after = after.min(Duration::from_secs(60 * 60 * 24 * 365));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec::try_from(after).unwrap_or(zero);
        let once = Itimerspec { it_interval: zero, it_value: value };
        // Fails only if the descriptor is not a timer.
        let _ = timerfd_settime(&*self.fd, TimerfdTimerFlags::empty(), &once);
    }
}

impl Drop for BoottimeTimer {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.arm(Duration::from_nanos(1));
    }
}

/// Notifies whenever the timer fires, until it is closed.
fn notify(fd: &OwnedFd, shared: &Shared) {
    let mut count = [0; 8];
    while !shared.closed.load(Ordering::Acquire) {
        match rustix::io::read(fd, &mut count) {
            Ok(_) => shared.fired.notify_one(),
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_timer_fires_at_its_time_however_often_the_time_is_moved() {
        let clock = Clock::start();
        let mut timer = BoottimeTimer::start().unwrap();
        for (first, then) in [(3600, 1), (1, 20), (20, 1)] {
            let at = |millis| clock.now() + Duration::from_millis(millis);
            let abandoned = timeout(Duration::ZERO, timer.wait_until(&clock, at(first * 1_000)));
            assert!(abandoned.await.is_err());
            let time = at(then);
            while clock.now() < time {
                timeout(SOON, timer.wait_until(&clock, time)).await.expect("it fires");
            }
        }
    }

    #[test]
    fn the_timer_works_on_a_runtime_without_an_io_driver_and_its_thread_ends_with_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let clock = Clock::start();
            let mut timer = BoottimeTimer::start().unwrap();
            let time = clock.now() + Duration::from_millis(1);
            timeout(SOON, timer.wait_until(&clock, time)).await.expect("it fires");
            let shared = Arc::downgrade(&timer.shared);
            drop(timer);
            let ended = async {
                while shared.strong_count() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            timeout(SOON, ended).await.expect("the thread ends");
        });
    }
}
