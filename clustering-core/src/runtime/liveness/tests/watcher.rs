use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket},
};

use super::{
    super::watcher::{Finding, find_among, is_own},
    *,
};

/// Reply of a program to a connection.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Nothing,
    Close,
    Bytes(&'static [u8]),
    Hello(u128),
}

impl Answer {
    /// Accepts a connection and answers. Returns the connection unless it was closed.
    async fn to_next(self, listener: &TcpListener) -> Option<TcpStream> {
        let (mut stream, _) = soon("a connection", listener.accept()).await.unwrap();
        match self {
            Answer::Nothing => {}
            Answer::Close => return None,
            Answer::Bytes(bytes) => stream.write_all(bytes).await.unwrap(),
            Answer::Hello(number) => stream.write_all(Hello::of(process(number)).as_bytes()).await.unwrap(),
        }
        Some(stream)
    }
}

async fn program() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Returns an address at which nobody listens.
async fn nobody() -> SocketAddr {
    program().await.1
}

fn watch(endpoint: &Endpoint) -> Watcher {
    let mut watcher = Watcher::new();
    watcher.watch(vec![endpoint.clone()]);
    watcher
}

async fn report(watcher: &mut Watcher) -> (ProcessId, Evidence) {
    match soon("a report", watcher.next_report()).await {
        Input::ProcessGone { process, evidence } => (process, evidence),
        other => panic!("{other:?}"),
    }
}

async fn reports_nothing(watcher: &mut Watcher) -> bool {
    timeout(QUIET, watcher.next_report()).await.is_err()
}

#[tokio::test]
async fn a_process_is_gone_if_connections_to_its_address_are_refused() {
    let mut watcher = watch(&endpoint(nobody().await, 1));
    assert_eq!(report(&mut watcher).await, (process(1), Evidence::Refused));
}

#[tokio::test]
async fn a_process_at_whose_address_another_one_answers_is_gone() {
    let (address, _serving) = listen(2);
    let mut watcher = watch(&endpoint(address, 1));
    assert_eq!(report(&mut watcher).await, (process(1), Evidence::Replaced));
}

#[tokio::test]
async fn the_end_of_a_process_is_noticed_at_once() {
    let (program, address) = program().await;
    let mut watcher = watch(&endpoint(address, 1));
    let connection = Answer::Hello(1).to_next(&program).await;
    assert!(reports_nothing(&mut watcher).await);
    let ended = Instant::now();
    drop((program, connection));
    assert_eq!(report(&mut watcher).await, (process(1), Evidence::Refused));
    assert!(ended.elapsed() < Duration::from_millis(500), "{:?}", ended.elapsed());
}

#[tokio::test]
async fn a_process_whose_successor_listens_already_is_gone() {
    let (program, address) = program().await;
    let mut watcher = watch(&endpoint(address, 1));
    let connection = Answer::Hello(1).to_next(&program).await;
    drop(connection);
    let _successor = Answer::Hello(2).to_next(&program).await;
    assert_eq!(report(&mut watcher).await, (process(1), Evidence::Replaced));
}

#[tokio::test]
async fn a_process_that_accepts_while_it_ends_is_noticed_quickly() {
    let (program, address) = program().await;
    let mut watcher = watch(&endpoint(address, 1));
    let connection = Answer::Hello(1).to_next(&program).await;
    let ended = Instant::now();
    drop(connection);
    Answer::Close.to_next(&program).await;
    Answer::Close.to_next(&program).await;
    drop(program);
    assert_eq!(report(&mut watcher).await, (process(1), Evidence::Refused));
    assert!(ended.elapsed() < Duration::from_millis(500), "{:?}", ended.elapsed());
}

#[tokio::test]
async fn a_process_that_answers_again_after_a_broken_connection_is_alive() {
    let (program, address) = program().await;
    let mut watcher = watch(&endpoint(address, 1));
    for _ in 0..3 {
        drop(Answer::Hello(1).to_next(&program).await);
    }
    let mut connection = Answer::Hello(1).to_next(&program).await.unwrap();
    assert!(reports_nothing(&mut watcher).await);
    assert!(stays_silent(&mut connection).await, "an idle connection costs no bytes");
}

#[tokio::test]
async fn a_reset_connection_proves_nothing_by_itself() {
    let (program, address) = program().await;
    let mut watcher = watch(&endpoint(address, 1));
    let connection = Answer::Hello(1).to_next(&program).await.unwrap();
    socket2::SockRef::from(&connection).set_linger(Some(Duration::ZERO)).unwrap();
    drop(connection);
    let _connection = Answer::Hello(1).to_next(&program).await.unwrap();
    assert!(reports_nothing(&mut watcher).await);
}

#[tokio::test]
async fn programs_that_are_no_process_of_this_library_prove_nothing() {
    for answer in [
        Answer::Close,
        Answer::Bytes(b"220 mail.example.com ESMTP\r\n"),
        Answer::Bytes(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        // A later version of this library.
        Answer::Bytes(b"clustering/2 00000000000000000000000001\n"),
        Answer::Nothing,
    ] {
        let (program, address) = program().await;
        let mut watcher = watch(&endpoint(address, 1));
        // The watcher connects again and again, from the second time at the latest after all limits have passed.
        let mut connections = Vec::new();
        for _ in 0..2 {
            connections.push(answer.to_next(&program).await);
        }
        assert!(reports_nothing(&mut watcher).await, "{answer:?}");
    }
}

#[tokio::test]
async fn a_port_that_another_program_has_taken_over_proves_nothing() {
    let (program, address) = program().await;
    let mut watcher = watch(&endpoint(address, 1));
    let mut connection = Answer::Hello(1).to_next(&program).await;
    for answer in [Answer::Close, Answer::Bytes(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")] {
        drop(connection);
        connection = answer.to_next(&program).await;
        assert!(reports_nothing(&mut watcher).await, "{answer:?}");
    }
}

#[tokio::test]
async fn a_paused_process_is_not_gone() {
    let (program, address) = program().await;
    let mut watcher = watch(&endpoint(address, 1));
    let connection = Answer::Hello(1).to_next(&program).await;
    assert!(reports_nothing(&mut watcher).await, "its connections stay open");
    // A middlebox drops the connection, and the paused process cannot answer at another one.
    drop(connection);
    let _first = Answer::Nothing.to_next(&program).await;
    let _second = Answer::Nothing.to_next(&program).await;
    assert!(reports_nothing(&mut watcher).await);
}

#[tokio::test]
async fn a_host_that_cannot_be_resolved_proves_nothing() {
    let unknown = Endpoint { address: "crashed.invalid:4000".to_owned(), process: process(1) };
    assert!(reports_nothing(&mut watch(&unknown)).await);
    let invalid = Endpoint { address: "no port".to_owned(), process: process(1) };
    assert!(reports_nothing(&mut watch(&invalid)).await);
}

#[tokio::test]
async fn a_host_with_several_addresses_is_alive_at_one_and_gone_only_at_all() {
    let (alive, _serving) = listen(1);
    let (other, _serving) = listen(2);
    let (silent, silent_address) = program().await;
    let nobody = nobody().await;
    let find = async |addresses: &[SocketAddr]| match find_among(addresses.iter().copied(), process(1)).await
    {
        Finding::Alive(_) => "alive",
        Finding::Gone(Evidence::Refused) => "refused",
        Finding::Gone(Evidence::Replaced) => "replaced",
        Finding::Unknown(_) => "unknown",
    };
    assert_eq!(find(&[nobody, alive]).await, "alive");
    assert_eq!(find(&[other, alive]).await, "alive");
    assert_eq!(find(&[nobody, nobody]).await, "refused");
    assert_eq!(find(&[other, nobody]).await, "replaced");
    assert_eq!(find(&[nobody, silent_address]).await, "unknown");
    assert_eq!(find(&[silent_address, other]).await, "unknown");
    assert_eq!(find(&[]).await, "unknown");
    drop(silent);
}

/// Linux lists connections with their active timers in `/proc/net/tcp`.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn both_processes_have_the_kernel_probe_an_idle_connection() {
    const ESTABLISHED: &str = "01";
    const KEEP_ALIVE: &str = "02:";
    let (address, _serving) = listen(1);
    let Finding::Alive(_stream) = find_among([address].into_iter(), process(1)).await else {
        panic!("the process is alive");
    };
    let port = format!(":{:04X}", address.port());
    let all_are_probed = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let own =
            rows.filter(|row| row[3] == ESTABLISHED && (row[1].ends_with(&port) || row[2].ends_with(&port)));
        let timers: Vec<_> = own.map(|row| row[5].to_owned()).collect();
        timers.len() == 2 && timers.iter().all(|timer| timer.starts_with(KEEP_ALIVE))
    };
    // Until the hello is acknowledged, the kernel shows the retransmission timer instead.
    let probed = async {
        while !all_are_probed() {
            tokio::task::yield_now().await;
        }
    };
    soon("keep-alive on both ends", probed).await;
}

#[tokio::test]
async fn a_socket_that_is_connected_to_itself_is_recognized() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(LOOPBACK.parse().unwrap()).unwrap();
    let own = socket.local_addr().unwrap();
    assert!(is_own(&socket.connect(own).await.unwrap()));
    let (address, _serving) = listen(1);
    assert!(!is_own(&TcpStream::connect(address).await.unwrap()));
}

#[tokio::test]
async fn a_process_is_reported_once_until_it_is_watched_anew() {
    let gone = endpoint(nobody().await, 1);
    let mut watcher = watch(&gone);
    report(&mut watcher).await;
    watcher.watch(vec![gone.clone()]);
    assert!(reports_nothing(&mut watcher).await);
    watcher.watch(vec![]);
    watcher.watch(vec![gone]);
    report(&mut watcher).await;
}

#[tokio::test]
async fn connections_to_processes_that_are_no_longer_watched_are_closed() {
    let (first, second) = (program().await, program().await);
    let (one, two) = (endpoint(first.1, 1), endpoint(second.1, 2));
    let mut watcher = Watcher::new();
    watcher.watch(vec![one, two.clone()]);
    let mut to_first = Answer::Hello(1).to_next(&first.0).await.unwrap();
    let mut to_second = Answer::Hello(2).to_next(&second.0).await.unwrap();
    watcher.watch(vec![two]);
    soon("the end of the first connection", closed(&mut to_first)).await;
    assert!(stays_silent(&mut to_second).await, "the other connection stays");
    watcher.end().await;
    soon("the end of the second connection", closed(&mut to_second)).await;
    assert!(timeout(QUIET, first.0.accept()).await.is_err(), "nobody connects again");
}

#[tokio::test]
async fn a_watcher_is_not_misled_by_strangers_on_its_own_host() {
    let (address, serving) = listen(1);
    let mut watcher = watch(&endpoint(address, 1));
    for _ in 0..1_000 {
        let (_stranger, found) = connect(address).await;
        assert_eq!(found, process(1));
    }
    assert!(reports_nothing(&mut watcher).await);
    serving.abort();
    assert_eq!(report(&mut watcher).await, (process(1), Evidence::Refused));
}
