use std::io;

use rustix::process::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Signals that the command handles or passes on to the program.
pub(crate) struct Signals {
    received: mpsc::UnboundedReceiver<Signal>,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let kinds = [
            (SignalKind::hangup(), Signal::HUP),
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::quit(), Signal::QUIT),
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::user_defined1(), Signal::USR1),
            (SignalKind::user_defined2(), Signal::USR2),
            (SignalKind::window_change(), Signal::WINCH),
            (SignalKind::from_raw(Signal::TSTP.as_raw()), Signal::TSTP),
            (SignalKind::from_raw(Signal::CONT.as_raw()), Signal::CONT),
        ];
        let (tell, received) = mpsc::unbounded_channel();
        for (kind, passed) in kinds {
            let mut signals = signal(kind)?;
            let tell = tell.clone();
            tokio::spawn(async move { while signals.recv().await.is_some() && tell.send(passed).is_ok() {} });
        }
        Ok(Signals { received })
    }

    /// Waits for the next signal. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.received.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}
