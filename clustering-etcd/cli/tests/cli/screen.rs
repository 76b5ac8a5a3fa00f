//! `watch` on a terminal: the content of the screen, the number of bytes written, and the state of the terminal
//! afterwards.

use std::{
    fs,
    num::NonZeroU16,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, Mutex},
    time::Duration,
};

use clustering_core::store::{CoordinationStore, Txn};
use clustering_testkit::{etcd::EtcdServer, process::Folder};
use pty_process::{OwnedWritePty, Size};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Child,
    sync::watch,
};
use vt100::{Parser, Screen};

use crate::harness::{by_hand, crowd, node, nodes, soon, stop, store};

const ROWS: u16 = 40;
const COLUMNS: u16 = 160;

/// Longer than a redraw takes, and shorter than the redraw interval of running timers.
const MOMENT: Duration = Duration::from_millis(400);

/// Prints the terminal's settings before and after the command, and its exit code.
const SCRIPT: &str = r#"stty -g
sh -c 'echo $$ > "$1" && exec "$0" watch -n c --endpoints "$2"' "$0" "$1" "$2"
echo "ended with $?"
stty -g"#;

/// A terminal with a shell that runs `clustering watch`.
struct Terminal {
    shell: Child,
    keyboard: OwnedWritePty,
    seen: Arc<Mutex<Seen>>,
    /// Number of bytes written so far.
    written: watch::Receiver<usize>,
    pid: PathBuf,
    _folder: Folder,
}

/// The content of the screen.
struct Seen {
    parser: Parser,
    bytes: usize,
}

/// Returns the lines without trailing blanks.
fn shown(screen: &Screen) -> String {
    let (_, columns) = screen.size();
    screen.rows(0, columns.get()).map(|line| format!("{}\n", line.trim_end())).collect()
}

fn size(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

impl Terminal {
    fn watching(endpoint: &str) -> Self {
        let folder = Folder::new().unwrap();
        let pid = folder.path().join("pid");
        let (pty, pts) = pty_process::open().unwrap();
        pty.resize(Size::new(ROWS, COLUMNS)).unwrap();
        let shell = pty_process::Command::new("sh").env_clear().kill_on_drop(true);
        let shell = shell.env("PATH", std::env::var_os("PATH").unwrap()).env("TERM", "xterm-256color");
        let shell = shell.args(["-c", SCRIPT, env!("CARGO_BIN_EXE_clustering")]).arg(&pid).arg(endpoint);
        let shell = shell.spawn(pts).unwrap();
        let (mut screen, keyboard) = pty.into_split();
        let parser = Parser::new(size(ROWS), size(COLUMNS), 0);
        let seen = Arc::new(Mutex::new(Seen { parser, bytes: 0 }));
        let (tell, written) = watch::channel(0);
        tokio::spawn({
            let seen = seen.clone();
            async move {
                let mut part = vec![0; 64 * 1024];
                // Reading fails once the last process that writes to the terminal has ended.
                while let Ok(count @ 1..) = screen.read(&mut part).await {
                    let mut seen = seen.lock().unwrap();
                    seen.parser.process(&part[..count]);
                    seen.bytes += count;
                    tell.send_replace(seen.bytes);
                }
            }
        });
        Terminal { shell, keyboard, seen, written, pid, _folder: folder }
    }

    fn look<T>(&self, at: impl FnOnce(&Screen) -> T) -> T {
        at(self.seen.lock().unwrap().parser.screen())
    }

    fn text(&self) -> String {
        self.look(shown)
    }

    fn bytes(&self) -> usize {
        self.seen.lock().unwrap().bytes
    }

    /// Waits until the condition holds for the screen, and returns its text.
    async fn until(&mut self, what: &str, is_wanted: impl Fn(&Screen) -> bool) -> String {
        let waiting = async {
            while !self.look(&is_wanted) {
                self.written.changed().await.expect("the command runs");
            }
        };
        let came = tokio::time::timeout(crate::harness::LONG, waiting).await;
        assert!(came.is_ok(), "{what} did not come:\n{}", self.text());
        self.text()
    }

    /// Waits until the screen contains all parts.
    async fn shows(&mut self, parts: &[&str]) -> String {
        let all = |screen: &Screen| {
            let text = shown(screen);
            parts.iter().all(|part| text.contains(part))
        };
        self.until(&format!("{parts:?}"), all).await
    }

    /// Waits until nothing has been written for a moment, and returns the number of bytes.
    async fn rests(&mut self) -> usize {
        while let Ok(more) = tokio::time::timeout(MOMENT, self.written.changed()).await {
            more.expect("the command runs");
        }
        self.bytes()
    }

    async fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).await.unwrap();
    }

    /// Resizes the terminal, and waits until the screen is drawn up to its corners, without any event of the cluster.
    async fn resized(&mut self, rows: u16, columns: u16) -> String {
        self.seen.lock().unwrap().parser.set_size(size(rows), size(columns));
        self.keyboard.resize(Size::new(rows, columns)).unwrap();
        let has_corners = |screen: &Screen| {
            let cell = |row, column| screen.cell(row, column).unwrap().contents().to_owned();
            cell(rows - 2, columns - 1) == "┘" && cell(rows - 2, 0) == "└" && cell(rows - 1, 1) == "q"
        };
        self.until(&format!("{rows} rows of {columns}"), has_corners).await
    }

    fn kill(&self, signal: &str) {
        let pid = fs::read_to_string(&self.pid).unwrap();
        let status = std::process::Command::new("kill").args(["-s", signal, pid.trim()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end of the command, and checks that the terminal is restored and shows these lines.
    async fn ends(mut self, says: &[&str]) {
        let status: ExitStatus = soon("the end of the command", self.shell.wait()).await.unwrap();
        assert!(status.success(), "{status}");
        // The sender is dropped after all output has been read.
        soon("the rest of the output", async { while self.written.changed().await.is_ok() {} }).await;
        let text = self.text();
        let lines: Vec<_> = text.trim_end().lines().collect();
        let (before, after) = (lines[0], lines[lines.len() - 1]);
        assert!(before.contains(':') && before == after, "the settings differ:\n{text}");
        assert_eq!(lines[1..lines.len() - 1], *says);
        self.look(|screen| {
            assert!(!screen.alternate_screen() && !screen.hide_cursor(), "the screen is not restored");
            assert!(!screen.bracketed_paste() && !screen.application_cursor());
        });
    }
}

#[tokio::test]
async fn the_screen_follows_the_cluster() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut terminal = Terminal::watching(&etcd.endpoint());
    terminal.shows(&[" c\n", "no cluster yet", "q quits"]).await;
    terminal.until("no cursor", |screen| screen.alternate_screen() && screen.hide_cursor()).await;

    let mut nodes = nodes(&etcd, &["a", "b"]).await;
    let term = format!(" leader  a, term {}\n", nodes[0].term().unwrap());
    let text = terminal
        .shows(&[&term, " stable, all 2 nodes are ready\n", "stable at ", "2 nodes   b joined"])
        .await;
    for part in [
        "nodes: 2 of 2 ready",
        "●★a http://a.test:80",
        "● b http://b.test:80",
        " a is present at http://a.test:80",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }

    nodes.push(
        node(&etcd, "c").stabilize(|_| async { Err::<(), _>("its disk is full") }).start().await.unwrap(),
    );
    let parts = [
        ": waiting for 1 of 3 nodes\n c refused: its disk is full\n",
        "nodes: 2 of 3 ready",
        "so far 3 nodes   c joined",
    ];
    let text = terminal.shows(&parts).await;
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text}"));
    assert!(place("✗ c refused: its disk is full") < place("●★a http"), "unready nodes come first: {text}");

    nodes.pop().unwrap().stop().await.unwrap();
    terminal.shows(&[" stable, all 2 nodes are ready\n", "c is gone", "2 nodes   c left"]).await;
    for (rows, columns) in [(20, 90), (50, 200)] {
        let text = terminal.resized(rows, columns).await;
        assert!(text.contains("●★a http://a.test:80"), "{text}");
    }

    etcd.kill().await.unwrap();
    terminal.shows(&["etcd does not answer; the last known state is shown: ", "●★a http://a.test:80"]).await;
    etcd.restart().await.unwrap();
    terminal.until("etcd is back", |screen| !shown(screen).contains("etcd does not answer")).await;
    terminal.types("q").await;
    terminal.ends(&["ended with 0"]).await;
    stop(nodes).await;
}

#[tokio::test]
async fn the_terminal_is_restored_after_every_kind_of_end() {
    let etcd = EtcdServer::start().await.unwrap();
    for key in ["q", "\x03", "\x1b"] {
        let mut terminal = Terminal::watching(&etcd.endpoint());
        terminal.shows(&["no cluster yet"]).await;
        terminal.types(key).await;
        terminal.ends(&["ended with 0"]).await;
    }
    for signal in ["TERM", "INT"] {
        let mut terminal = Terminal::watching(&etcd.endpoint());
        terminal.shows(&["no cluster yet"]).await;
        terminal.kill(signal);
        terminal.ends(&["ended with 0"]).await;
    }
    // A command that fails before it draws anything leaves the terminal alone.
    let hint = "  is etcd running, and are these its endpoints? See --endpoints or ETCD_ENDPOINTS";
    let mut terminal = Terminal::watching("127.0.0.1:1");
    let text = terminal.shows(&["ended with 2"]).await;
    let said = text.lines().find(|line| line.starts_with("clustering: ")).unwrap();
    terminal.ends(&[said, hint, "ended with 2"]).await;
}

#[tokio::test]
async fn a_quiet_cluster_of_five_hundred_nodes_writes_little() {
    const QUIET: Duration = Duration::from_secs(3);
    let etcd = EtcdServer::start().await.unwrap();
    let version = crowd(&etcd, 500).await;
    let mut terminal = Terminal::watching(&etcd.endpoint());
    terminal.shows(&[" stable, all 500 nodes are ready\n", "nodes: 500 of 500 ready"]).await;
    let first = terminal.rests().await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(terminal.bytes() - first, 0, "there was no event");

    // If a node is not ready, only the running timer is written.
    let txn = Txn::new().delete("c/ready/ingest-0499").delete("c/view/stable");
    store(&etcd).commit(txn).await.unwrap();
    terminal
        .shows(&["waiting for 1 of 500 nodes\n ingest-0499 has not answered", "○ ingest-0499 stabilizing"])
        .await;
    let before = terminal.rests().await;
    let at_first = terminal.text();
    tokio::time::sleep(QUIET).await;
    let bytes = terminal.bytes() - before;
    assert!(bytes < 1000 && terminal.text() != at_first, "{bytes} bytes in {QUIET:?}, {first} at first");
    println!("500 nodes: {first} bytes at first, {bytes} in {QUIET:?} with a running timer");

    // Scroll to the end of the list and back.
    terminal.types("\x1b[F").await;
    terminal.until("the last node", |screen| shown(screen).contains("ingest-0498 http")).await;
    terminal.types("\x1b[H").await;
    terminal.shows(&["○ ingest-0499 stabilizing"]).await;
    let ready = format!(r#"{{"version":"{version}","outcome":"ready"}}"#);
    by_hand(&etcd, "c/ready/ingest-0499", &ready).await;
    terminal.shows(&["nodes: 500 of 500 ready"]).await;
    terminal.types("q").await;
    terminal.ends(&["ended with 0"]).await;
}
