//! `clustering`: shows and operates clusters in etcd, and turns any program into a node.

mod etcd;

use std::process::ExitCode;

fn main() -> ExitCode {
    clustering_cli::main::<etcd::Etcd>()
}
