use std::{env, ffi::OsString, io, net::TcpListener, path::Path, process::Command};

use clustering_cli::{Failure, Server};

/// Prepares an etcd with one member that keeps its data in this folder.
pub(super) fn prepare(folder: &Path) -> Result<Server, Failure> {
    let (client, peer) =
        free_ports().map_err(|error| Failure::unknown(format!("cannot find free ports: {error}")))?;
    let endpoint = format!("http://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    let binary = env::var_os("CLUSTERING_ETCD_BIN").filter(|binary| !binary.is_empty());
    let mut command = Command::new(binary.unwrap_or_else(|| "etcd".into()));
    // Every flag of etcd can also be set by an environment variable.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD")) {
        command.env_remove(name);
    }
    command.arg("--data-dir").arg(folder.join("data"));
    command.args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    let hint = "install etcd (apt-get install etcd-server; brew install etcd), set CLUSTERING_ETCD_BIN to its path, or \
                connect to a running one with --endpoints";
    Ok(Server { command, arguments: arguments(&endpoint), hint: hint.to_owned() })
}

/// Returns options that connect to this endpoint without TLS or a user, even if the environment sets them.
fn arguments(endpoint: &str) -> Vec<OsString> {
    let unset = ["user", "password", "cacert", "cert", "key"].map(|option| format!("--{option}="));
    let set = [format!("--endpoints={endpoint}"), "--insecure-transport=true".to_owned()];
    set.into_iter().chain(unset).map(OsString::from).collect()
}

/// Returns two ports that are free at the moment.
fn free_ports() -> io::Result<(u16, u16)> {
    let (one, two) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?.port(), two.local_addr()?.port()))
}
