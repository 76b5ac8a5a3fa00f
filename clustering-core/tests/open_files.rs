//! Crash detection of a process that has run out of file descriptors. This test runs in its own process, because the
//! limit applies to the whole process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::{
    io::{self, Write},
    time::Duration,
};

use clustering_core::{Clustering, CrashDetection};
use clustering_memory::MemoryStore;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{io::AsyncReadExt, net::TcpSocket, sync::mpsc, time::timeout};
use tracing_subscriber::fmt::MakeWriter;

/// Time limit for each step, long enough for a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// Time in which a listener that keeps trying fails several times.
const SEVERAL_FAILURES: Duration = Duration::from_millis(300);

const HELLO_LENGTH: usize = 40;

/// Sends each line of the log to the test.
#[derive(Clone)]
struct Log(mpsc::UnboundedSender<String>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // An error only means that the test has ended.
        let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn a_process_answers_its_watchers_again_once_it_has_free_descriptors() {
    let (log, mut lines) = mpsc::unbounded_channel();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(Log(log)).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let detection = CrashDetection::new().listen("127.0.0.1:0".parse().unwrap()).advertise("127.0.0.1");
    let node = Clustering::builder(MemoryStore::new())
        .namespace("test")
        .name("a")
        .uri("http://127.0.0.1:1")
        .detect_crashes(detection)
        .start()
        .await
        .unwrap();
    let address = node.nodes()[0].endpoint.as_ref().unwrap().address.parse().unwrap();

    let socket = TcpSocket::new_v4().unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: limit.maximum }).unwrap();
    // The kernel establishes the connection, whether or not the process accepts it.
    let mut stream = timeout(LONG, socket.connect(address)).await.unwrap().unwrap();
    let warning = timeout(LONG, lines.recv()).await.unwrap().unwrap();
    assert!(warning.contains("cannot accept connections for crash detection"), "{warning}");
    let mut line = [0; HELLO_LENGTH];
    assert!(timeout(SEVERAL_FAILURES, stream.read(&mut line)).await.is_err(), "nobody answers");
    assert!(lines.try_recv().is_err(), "only the first failure is logged");

    setrlimit(Resource::Nofile, limit).unwrap();
    timeout(LONG, stream.read_exact(&mut line)).await.unwrap().unwrap();
    assert!(line.starts_with(b"clustering/1 "), "{}", line.escape_ascii());
    node.stop().await.unwrap();
}
