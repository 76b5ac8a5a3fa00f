use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// Sends a GET request for `http://ADDRESS/path` and returns the body if the status is 200.
///
/// It runs on a blocking thread with timeouts in real time, because under tokio's paused clock tokio's timeouts would
/// elapse at once.
pub(super) async fn get(address: &str, path: &'static str, timeout: Duration) -> io::Result<String> {
    let address = address.to_owned();
    tokio::task::spawn_blocking(move || blocking_get(&address, path, timeout))
        .await
        .map_err(io::Error::other)?
}

fn blocking_get(address: &str, path: &str, timeout: Duration) -> io::Result<String> {
    let nowhere = || io::Error::other(format!("{address} does not resolve to an address"));
    let address = address.to_socket_addrs()?.next().ok_or_else(nowhere)?;
    let mut connection = TcpStream::connect_timeout(&address, timeout)?;
    connection.set_read_timeout(Some(timeout))?;
    connection.set_write_timeout(Some(timeout))?;
    // With HTTP/1.0 the reply is not chunked and ends when the connection is closed.
    connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut reply = String::new();
    connection.read_to_string(&mut reply)?;
    let (head, body) = reply
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other(format!("the reply to GET {path} is not HTTP: {reply:?}")))?;
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("GET {path} returned {status}: {}", body.trim()))),
    }
}
