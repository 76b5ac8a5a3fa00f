//! The two servers.

use std::{error::Error, fs};

use crate::stores::{Server, Store};

/// The stores, in the order of the columns.
pub(crate) const STORES: [Store; 2] = [Store::Postgres, Store::Etcd];

pub(crate) async fn start() -> Result<[Server; 2], Box<dyn Error>> {
    Ok([Server::start(STORES[0]).await?, Server::start(STORES[1]).await?])
}

/// Returns the number of established connections to the server.
pub(crate) fn connections(server: &Server) -> usize {
    let (local, established) = (format!(":{:04X}", server.port().unwrap()), "01");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_one = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&local) && fields[3] == established
    };
    table.lines().filter(is_one).count()
}
