use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket},
};

use super::*;
use crate::runtime::StartError;

#[tokio::test]
async fn a_connection_gets_one_line_and_stays_open() {
    let (address, serving) = listen(1);
    let (mut stream, found) = connect(address).await;
    assert_eq!(found, process(1));
    assert!(stays_silent(&mut stream).await);
    serving.abort();
    soon("the end of the connection", closed(&mut stream)).await;
}

#[tokio::test]
async fn by_default_the_port_is_free_and_open_for_ipv4_and_ipv6() {
    let listener = Listener::open(None).unwrap();
    let port = listener.port();
    assert_ne!(port, 0);
    tokio::spawn(listener.serve(Hello::of(process(1))));
    assert_eq!(connect(SocketAddr::from(([127, 0, 0, 1], port))).await.1, process(1));
    // Machines without IPv6 cannot even have a client's socket.
    if std::net::UdpSocket::bind("[::1]:0").is_ok() {
        let local: SocketAddr = format!("[::1]:{port}").parse().unwrap();
        assert_eq!(connect(local).await.1, process(1));
    }
}

#[tokio::test]
async fn a_given_address_is_used() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(free) = std::net::TcpListener::bind(address) else { continue };
        let address = free.local_addr().unwrap();
        drop(free);
        let listener = Listener::open(Some(address)).unwrap();
        assert_eq!(listener.port(), address.port());
        tokio::spawn(listener.serve(Hello::of(process(1))));
        assert_eq!(connect(address).await.1, process(1));
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_refused_with_advice() {
    let other = TcpListener::bind(LOOPBACK).await.unwrap();
    let taken = other.local_addr().unwrap();
    let error = Listener::open(Some(taken)).unwrap_err();
    let StartError::Listen { address, .. } = &error else { panic!("{error}") };
    assert_eq!(*address, taken);
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot listen on {taken} for crash detection: ")), "{text}");
    assert!(
        text.ends_with("choose a port that no other program uses, or port 0 for any free port"),
        "{text}"
    );

    // A network that is reserved for documentation.
    let error = Listener::open(Some("192.0.2.1:0".parse().unwrap())).unwrap_err();
    assert!(error.to_string().contains("choose an address of this machine"), "{error}");
}

#[tokio::test]
async fn a_process_can_listen_at_the_port_of_its_predecessor_at_once() {
    let (address, serving) = listen(1);
    let (mut stream, _) = connect(address).await;
    serving.abort();
    soon("the end of the connection", closed(&mut stream)).await;
    // The connection of the predecessor is half closed.
    let listener = Listener::open(Some(address)).unwrap();
    tokio::spawn(listener.serve(Hello::of(process(2))));
    assert_eq!(connect(address).await.1, process(2));
}

#[tokio::test]
async fn a_stranger_who_sends_too_much_is_disconnected() {
    let (address, _serving) = listen(1);
    let (mut stranger, _) = connect(address).await;
    stranger.write_all(&[b'x'; MAX_RECEIVED]).await.unwrap();
    assert!(stays_silent(&mut stranger).await, "a little does no harm");
    stranger.write_all(b"x").await.unwrap();
    soon("the end of the connection", closed(&mut stranger)).await;

    // A client that keeps sending soon gets an error, because its connection was closed.
    let (mut flood, _) = connect(address).await;
    let flooded = async { while flood.write_all(&[b'x'; 1024]).await.is_ok() {} };
    soon("the end of the flood", flooded).await;
    assert_eq!(connect(address).await.1, process(1));
}

#[tokio::test]
async fn ten_thousand_connections_that_never_read_leave_room_for_a_watcher() {
    let (address, _serving) = listen(1);
    // Number of connections that the stranger keeps open at its end, which the open files of the test limit.
    const KEPT: usize = 400;
    let mut strangers = std::collections::VecDeque::new();
    for _ in 0..10_000 {
        strangers.push_back(soon("a connection", TcpStream::connect(address)).await.unwrap());
        if strangers.len() > KEPT {
            strangers.pop_front();
        }
    }
    let (mut watcher, found) = connect(address).await;
    assert_eq!(found, process(1));
    assert!(stays_silent(&mut watcher).await);
    let mut open = 0;
    for mut stranger in strangers {
        let _ = soon("the hello", greet(&mut stranger)).await;
        open += usize::from(timeout(Duration::from_millis(1), closed(&mut stranger)).await.is_err());
    }
    assert_eq!(open, MAX_CONNECTIONS - 1);
}

/// The whole of 127.0.0.0/8 is local on Linux only.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_stranger_with_many_connections_closes_its_own_and_not_those_of_others() {
    let (address, _serving) = listen(1);
    let (mut watcher, _) = connect(address).await;
    let mut strangers = Vec::new();
    for _ in 0..4 * MAX_CONNECTIONS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stranger = soon("a connection", socket.connect(address)).await.unwrap();
        soon("the hello", greet(&mut stranger)).await.unwrap();
        strangers.push(stranger);
    }
    assert!(stays_silent(&mut watcher).await);
    for stranger in &mut strangers[..3 * MAX_CONNECTIONS] {
        soon("the end of the connection", closed(stranger)).await;
    }
}
