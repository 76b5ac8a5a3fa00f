//! Prints the results as a table or as JSON objects.

use std::{error::Error, time::Duration};

use serde_json::{Value, json};

use crate::{
    servers::STORES,
    stores::Server,
    summary::{Summary, round},
};

pub(crate) struct Report {
    json: bool,
}

impl Report {
    /// Prints the environment of the run.
    pub(crate) async fn begin(json: bool, [postgres, etcd]: &[Server; 2]) -> Result<Self, Box<dyn Error>> {
        let postgres = postgres.version().await?.unwrap_or_default();
        let etcd = etcd.version().await?.unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        if json {
            println!("{}", json!({ "postgres": postgres, "etcd": etcd, "cores": cores }));
        } else {
            println!("PostgreSQL {postgres}, etcd {etcd}, {cores} cores; ratios are PostgreSQL / etcd\n");
            println!("{:24} {:>5} {:>28} {:>28} {:>6}", "", "nodes", "PostgreSQL", "etcd", "ratio");
        }
        Ok(Report { json })
    }

    /// Prints times of PostgreSQL and etcd. Without a cluster, `nodes` is 0.
    pub(crate) fn times(&mut self, case: &str, nodes: usize, times: [Vec<Duration>; 2]) {
        let all = times.map(|times| Summary::of(times.into_iter()));
        let texts = all.map(|summary| (format!("{} ms", summary.text()), summary.json()));
        self.print(case, nodes, texts, all[0].median / all[1].median);
    }

    pub(crate) fn rates(&mut self, case: &str, rates: [f64; 2]) {
        let texts = rates.map(|rate| (format!("{rate:.0} / s"), json!({ "per_second": round(rate) })));
        self.print(case, 0, texts, rates[0] / rates[1]);
    }

    pub(crate) fn count(&mut self, case: &str, nodes: usize, counts: [usize; 2]) {
        let texts = counts.map(|count| (count.to_string(), json!({ "count": count })));
        self.print(case, nodes, texts, counts[0] as f64 / counts[1] as f64);
    }

    fn print(&self, case: &str, nodes: usize, [postgres, etcd]: [(String, Value); 2], ratio: f64) {
        if !self.json {
            let nodes = if nodes == 0 { String::new() } else { nodes.to_string() };
            println!("{case:24} {nodes:>5} {:>28} {:>28} {ratio:6.2}", postgres.0, etcd.0);
            return;
        }
        for (store, mut line) in STORES.into_iter().zip([postgres.1, etcd.1]) {
            line["store"] = store.name().into();
            line["case"] = case.into();
            line["nodes"] = nodes.into();
            println!("{line}");
        }
    }
}
