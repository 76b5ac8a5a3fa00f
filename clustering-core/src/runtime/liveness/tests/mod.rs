//! The listener and the watcher on real sockets of the loopback interface, in real time.

mod listener;
mod watcher;

use std::{future::Future, net::SocketAddr, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    Hello, Listener, Watcher,
    listener::{MAX_CONNECTIONS, MAX_RECEIVED},
};
use crate::{
    event::Evidence,
    machine::Input,
    node::{Endpoint, ProcessId},
};

/// Longer than any step takes, even on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// Time for which nothing must happen.
const QUIET: Duration = Duration::from_millis(300);

const LOOPBACK: &str = "127.0.0.1:0";

fn process(number: u128) -> ProcessId {
    ProcessId::from_u128(number)
}

fn endpoint(address: SocketAddr, number: u128) -> Endpoint {
    Endpoint { address: address.to_string(), process: process(number) }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Starts a listener on the loopback interface. Aborting the task is what the end of a process does.
fn listen(number: u128) -> (SocketAddr, JoinHandle<()>) {
    let any: SocketAddr = LOOPBACK.parse().unwrap();
    let listener = Listener::open(Some(any)).unwrap();
    let address = SocketAddr::new(any.ip(), listener.port());
    (address, tokio::spawn(listener.serve(Hello::of(process(number)))))
}

/// Connects and reads the hello.
async fn connect(address: SocketAddr) -> (TcpStream, ProcessId) {
    let mut stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
    let process = soon("the hello", greet(&mut stream)).await.unwrap();
    (stream, process)
}

/// Reads the hello; `None` if the connection is closed first.
async fn greet(stream: &mut TcpStream) -> Option<ProcessId> {
    let mut line = [0; Hello::LEN];
    stream.read_exact(&mut line).await.ok()?;
    Some(Hello::parse(&line).unwrap())
}

/// Waits until the peer closes or resets the connection.
async fn closed(stream: &mut TcpStream) {
    while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
}

/// Returns true if the peer neither closes the connection nor sends anything for a while.
async fn stays_silent(stream: &mut TcpStream) -> bool {
    timeout(QUIET, stream.read(&mut [0; 1])).await.is_err()
}

#[test]
fn a_hello_has_one_form_only() {
    let hello = Hello::of(process(7));
    assert_eq!(hello.as_bytes(), b"clustering/1 00000000000000000000000007\n");
    let parse = |line: &[u8]| Hello::parse(line.try_into().unwrap());
    assert_eq!(parse(hello.as_bytes()), Some(process(7)));
    for other in [
        b"clustering/2 00000000000000000000000007\n",
        b"clustering/1 0000000000000000000000000\xff\n",
        b"clustering/1 0000000000000000000000000!\n",
        b"clustering/1 000000000000000000000000077",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length",
    ] {
        assert_eq!(parse(other), None, "{}", other.escape_ascii());
    }
}
