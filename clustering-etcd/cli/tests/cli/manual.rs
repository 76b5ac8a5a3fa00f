//! Commands that need no cluster: `completions`, `man`, `--version` and `--help`.

use clustering_testkit::process::Folder;

use crate::harness::{Said, command, run};

async fn alone(args: &[&str]) -> Said {
    let mut command = command();
    command.args(args);
    run(command).await
}

#[tokio::test]
async fn completions_and_manual_pages_are_printed() {
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
    alone(&["man", "--dir", "/no/such/folder"]).await.refused(2, &["cannot write the manual pages"]);
}

#[tokio::test]
async fn the_help_lists_all_commands() {
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
        "cordon",
        "uncordon",
        "drain",
        "services",
        "purge",
        "demo",
        "completions",
        "man",
    ] {
        assert!(help.ended(0).contains(&format!("\n  {command} ")), "{command} in {}", help.out);
    }
    assert!(help.out.starts_with("Show and operate clusters in etcd, and turn any program into a node\n"));
    assert!(alone(&["run", "--help"]).await.ended(0).contains("[env: ETCD_TTL] [default: 15s]"));
    // Each heading covers the options that belong to it.
    let help = alone(&["run", "--help"]).await;
    let options = |heading: &str| -> Vec<&str> {
        let below = help.ended(0).split(&format!("\n{heading}:\n")).nth(1).unwrap();
        let part = below.lines().take_while(|line| line.is_empty() || line.starts_with(' '));
        let named = part.filter_map(|line| line.strip_prefix("      --"));
        named.map(|line| line.split([' ', '[']).next().unwrap()).collect()
    };
    let health = options("Health");
    assert!(health.len() == 5 && health.iter().all(|option| option.starts_with("health")), "{health:?}");
    assert_eq!(options("Rolling updates"), ["priority", "restart-grace", "min-nodes"]);
    assert_eq!(options("Crash detection"), ["detect-crashes", "advertise", "trust-refused"]);
    alone(&[]).await.refused(2, &["Usage: clustering", "\n  status "]);
    // Environment variables do not count as arguments.
    let mut plain = command();
    plain.env("CLUSTERING_NAMESPACE", "c").env("ETCD_ENDPOINTS", "127.0.0.1:1");
    run(plain).await.refused(2, &["Usage: clustering", "\n  status "]);
    alone(&["stauts"]).await.refused(2, &["unrecognized subcommand", "status"]);
}

#[tokio::test]
async fn the_readme_shows_commands_and_options_that_exist() {
    let readme = include_str!("../../README.md");
    let block = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let lines: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("clustering ")).collect();
    assert!(lines.len() > 4, "{block}");
    for line in lines {
        let mut words = line.split_whitespace();
        let help = alone(&[words.next().unwrap(), "--help"]).await;
        for option in words.filter(|word| word.len() > 2 && word.starts_with("--")) {
            assert!(help.ended(0).contains(&format!("{option} ")), "{option} in {}", help.out);
        }
        help.ended(0);
    }
}
