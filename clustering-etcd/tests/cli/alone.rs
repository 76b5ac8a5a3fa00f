//! What needs no cluster: `completions`, `man`, `--version`, `--help`, and the `demo`.

use clustering_testkit::process::{Folder, Process};

use crate::harness::{command, run};

async fn alone(args: &[&str]) -> crate::harness::Said {
    let mut command = command();
    command.args(args);
    run(command).await
}

#[tokio::test]
async fn installers_get_completions_and_pages() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = alone(&["completions", shell]).await;
        assert!(script.ended(0).contains("clustering") && script.out.contains("placement"), "{shell}");
    }
    let page = alone(&["man"]).await;
    assert!(
        page.ended(0).contains(".TH clustering 1") && page.out.contains("CLUSTERING_NAMESPACE"),
        "{page:?}"
    );
    let folder = Folder::new().unwrap();
    alone(&["man", "--dir", folder.path().to_str().unwrap()]).await.ended(0);
    for page in ["clustering.1", "clustering-status.1", "clustering-run.1"] {
        assert!(std::fs::read_to_string(folder.path().join(page)).unwrap().contains(".TH"), "{page}");
    }
    alone(&["man", "--dir", "/no/such/folder"]).await.refused(2, &["cannot be written"]);
}

#[tokio::test]
async fn it_says_what_it_is_and_what_it_can() {
    let version = alone(&["--version"]).await;
    assert_eq!(version.ended(0), format!("clustering {}\n", env!("CARGO_PKG_VERSION")));
    let help = alone(&["--help"]).await;
    for command in [
        "status",
        "watch",
        "run",
        "find",
        "history",
        "why",
        "placement",
        "wait",
        "change",
        "resign",
        "evict",
        "services",
        "purge",
        "demo",
        "completions",
        "man",
    ] {
        assert!(help.ended(0).contains(&format!("\n  {command} ")), "{command} in {}", help.out);
    }
    // What a heading stands over is of that kind.
    let help = alone(&["run", "--help"]).await;
    let health = help.ended(0).split("\nHealth:\n").nth(1).unwrap().split("\nConnection:\n").next().unwrap();
    let options: Vec<_> = health.lines().filter_map(|line| line.strip_prefix("      --")).collect();
    assert!(options.len() == 5 && options.iter().all(|option| option.starts_with("health")), "{options:?}");
    alone(&[]).await.refused(2, &["Usage: clustering", "\n  status "]);
    // What the environment has is no argument.
    let mut plain = command();
    plain.env("CLUSTERING_NAMESPACE", "c").env("ETCD_ENDPOINTS", "127.0.0.1:1");
    run(plain).await.refused(2, &["Usage: clustering", "\n  status "]);
    alone(&["stauts"]).await.refused(2, &["unrecognized subcommand", "status"]);
}

#[tokio::test]
async fn the_demo_shows_it_all_and_leaves_nothing_behind() {
    let folder = Folder::new().unwrap();
    // Meant for another node: those of the demo do not listen.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = command();
    command.arg("demo").env("TMPDIR", folder.path());
    command.env("CLUSTERING_LISTEN", taken.local_addr().unwrap().to_string());
    if let Some(binary) = std::env::var_os("CLUSTERING_ETCD_BIN") {
        command.env("CLUSTERING_ETCD_BIN", binary);
    }
    let said = run(command).await;
    let out = said.ended(0);
    for part in [
        "── 3 nodes join ──",
        "node-3 is ready at",
        "── one leaves in order ──",
        "── the leader is killed",
        "leads, term",
        "somebody asks for a new version (a rebalance by hand)",
        "nothing is left behind",
    ] {
        assert!(out.contains(part), "no {part:?} in {out}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_demo_that_is_killed_leaves_nothing_behind_either() {
    let folder = Folder::new().unwrap();
    let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env().env("TMPDIR", folder.path());
    let builder = match std::env::var_os("CLUSTERING_ETCD_BIN") {
        Some(binary) => builder.env("CLUSTERING_ETCD_BIN", binary),
        None => builder,
    };
    let demo = builder.arg("demo").spawn().unwrap();
    crate::watch::printed(&demo, &["stable at"]).await;
    demo.kill().await.unwrap();
    let mine = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        let needle = folder.path().to_str().unwrap().as_bytes();
        lines.filter(|line| line.windows(needle.len()).any(|part| part == needle)).count()
    };
    crate::harness::soon("the end of what it started", async {
        while mine() > 0 || std::fs::read_dir(folder.path()).unwrap().count() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_demo_without_an_etcd_says_how_to_get_one() {
    let mut command = command();
    command.args(["demo", "--etcd", "/no/such/etcd"]);
    run(command).await.refused(2, &["cannot start /no/such/etcd", "apt-get install etcd-server"]);
}
