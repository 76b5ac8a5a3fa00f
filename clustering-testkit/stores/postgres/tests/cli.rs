//! The command `clustering` on PostgreSQL, with programs as nodes.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

use std::time::Duration;

use clustering_testkit::{
    postgres::PostgresServer,
    process::{Process, ProcessBuilder},
};
use serde_json::Value;

/// Returns the command without environment variables that point to another PostgreSQL server.
fn command(address: &str) -> ProcessBuilder {
    let command = Process::builder(env!("CARGO_BIN_EXE_clustering-postgres")).clean_env();
    command.env("DATABASE_URL", format!("postgresql://postgres@{address}/postgres?sslmode=disable"))
}

/// Runs a command to its end, and returns its exit code and its output.
async fn run(command: ProcessBuilder) -> (i32, String) {
    let process = command.spawn().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), process.wait()).await;
    let code = ended.expect("the command ends").unwrap().code().expect("it ends by itself");
    (code, std::fs::read_to_string(process.log_path()).unwrap())
}

#[tokio::test]
async fn a_cluster_of_programs_is_run_shown_and_operated() {
    let server = PostgresServer::start().await.unwrap();
    let address = server.address();
    let (code, out) = run(command(&address).args(["status"])).await;
    assert!(code != 0 && out.contains("--install"), "{code}: {out}");

    let node = |name: &str| {
        let command = command(&address).args([
            "--install",
            "run",
            "--name",
            name,
            "--ttl",
            "3s",
            "--uri",
            "http://127.0.0.1:1",
        ]);
        command.args(["--", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]).spawn().unwrap()
    };
    // Both create the tables at the same time.
    let [a, b] = ["a", "b"].map(node);
    let (code, out) = run(command(&address).args(["--install", "wait", "--nodes", "2"])).await;
    assert_eq!(code, 0, "{out}{}{}", a.log(), b.log());

    let (code, out) = run(command(&address).args(["status", "--json"])).await;
    assert_eq!(code, 0, "{out}");
    let status: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(2), "{out}");

    // The leader dies, and the other node takes over.
    let (leader, other) = if status["leader"]["name"] == "a" { (a, b) } else { (b, a) };
    leader.kill().await.unwrap();
    let (code, out) = run(command(&address).args(["wait", "--nodes", "1"])).await;
    assert_eq!(code, 0, "{out}{}", other.log());
    let (code, out) = run(command(&address).args(["why"])).await;
    assert!(code == 0 && out.contains("session ended"), "{code}: {out}");

    other.terminate().unwrap();
    assert!(other.wait().await.unwrap().success(), "{}", other.log());
}

#[tokio::test]
async fn an_unreachable_server_is_reported_with_advice() {
    let (code, out) = run(command("127.0.0.1:1").args(["status"])).await;
    assert!(code != 0 && out.contains("--url") && out.contains("127.0.0.1"), "{code}: {out}");
}
