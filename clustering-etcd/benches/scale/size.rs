//! A single large cluster.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    arguments::Arguments,
    place::{Node, Place, stable},
    usage::Usage,
};

/// Duration for which the idle nodes' CPU time is measured.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if !arguments.json {
        println!(
            "{} store, {} processes; memory is that of the nodes' processes",
            arguments.store.name(),
            arguments.processes
        );
    }
    for nodes in &arguments.nodes {
        let place = Place::open(arguments).await?;
        // Each size gets fresh processes, so that memory left over from an earlier size does not count.
        one(arguments, &place, *nodes).await?;
    }
    Ok(())
}

/// A process that runs some of the nodes. It reads commands from its standard input and answers each with one line.
struct Worker {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Worker {
    fn start(
        arguments: &Arguments,
        endpoint: Option<&str>,
        first: usize,
        nodes: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--bench", "worker", "--nodes", &nodes.to_string(), "--first", &first.to_string()]);
        command.args(["--ttl", &arguments.ttl().as_secs().to_string(), "--stabilize", "0"]);
        command.args(["--store", arguments.store.name()]);
        if let Some(endpoint) = endpoint {
            command.args(["--endpoint", endpoint]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Worker { child, said })
    }

    fn tell(&mut self, what: &str) -> Result<(), Box<dyn Error>> {
        let mut input = self.child.stdin.as_ref().ok_or("no input")?;
        writeln!(input, "{what}")?;
        Ok(())
    }

    fn answer(&mut self) -> Result<Value, Box<dyn Error>> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        if line.is_empty() {
            return Err("a worker process ended".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a command to all workers, and then reads all answers.
fn ask(workers: &mut [Worker], what: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    for worker in &mut *workers {
        worker.tell(what)?;
    }
    workers.iter_mut().map(Worker::answer).collect()
}

async fn one(arguments: &Arguments, place: &Place, nodes: usize) -> Result<(), Box<dyn Error>> {
    let processes = arguments.processes;
    let share = |number: usize| nodes * number / processes..nodes * (number + 1) / processes;
    let mut workers = (0..processes)
        .map(|number| Worker::start(arguments, place.endpoint(), share(number).start, share(number).len()))
        .collect::<Result<Vec<_>, _>>()?;
    let sum = |answers: &[Value], field: &str| {
        answers.iter().map(|answer| answer[field].as_f64().unwrap_or(0.0)).sum::<f64>()
    };
    let empty = ask(&mut workers, "usage")?;
    let server_before = place.usage();
    let began = Instant::now();
    ask(&mut workers, "join")?;
    let joined = began.elapsed();
    ask(&mut workers, &format!("stable {nodes}"))?;
    let stable = began.elapsed();
    let full = ask(&mut workers, "usage")?;
    let server_full = place.usage();
    let started = (sum(&full, "processor_ms") - sum(&empty, "processor_ms")) / 1e3;
    let grown = |field| (sum(&full, field) - sum(&empty, field)) / nodes as f64 / 1024.0;

    tokio::time::sleep(IDLE).await;
    let (idle, server_idle) = (ask(&mut workers, "usage")?, place.usage());
    let idle_ms = (sum(&idle, "processor_ms") - sum(&full, "processor_ms")) / IDLE.as_secs_f64();

    // A lone change: one more node joins.
    let began = Instant::now();
    let late = ask(&mut workers[..1], &format!("one {nodes}"))?;
    ask(&mut workers, &format!("stable {}", nodes + 1))?;
    let change = began.elapsed();
    let after = ask(&mut workers, "usage")?;
    drop(late);
    let change_ms = sum(&after, "processor_ms") - sum(&idle, "processor_ms");
    let mut line = json!({
        "nodes": nodes, "store": arguments.store.name(), "processes": processes,
        "joined_s": joined.as_secs_f64(), "stable_s": stable.as_secs_f64(), "processor_s": started,
        "memory_per_node_kib": grown("memory"), "heap_per_node_kib": grown("heap"),
        "idle_processor_ms_per_s": idle_ms, "idle_processor_us_per_node_and_s": idle_ms * 1e3 / nodes as f64,
        "change_ms": change.as_secs_f64() * 1e3, "change_processor_ms": change_ms,
    });
    if let (Some(before), Some(full), Some(idle)) = (server_before, server_full, server_idle) {
        let processor = |from: Usage, to: Usage| (to.processor.saturating_sub(from.processor)).as_secs_f64();
        line["server_memory_mib"] = (full.memory as f64 / f64::from(1 << 20)).into();
        line["server_processor_s"] = processor(before, full).into();
        line["server_idle_ms_per_s"] = (processor(full, idle) * 1e3 / IDLE.as_secs_f64()).into();
    }
    if arguments.json {
        println!("{line}");
        return Ok(());
    }
    let number = |field: &str| line[field].as_f64().unwrap_or(0.0);
    println!(
        "{nodes:6} nodes: joined in {:.2} s, all stable after {:.2} s, {:.1} s of CPU time; {:.1} KiB per \
         node, {:.1} of them allocated; idle {:.1} µs \
         per node and second; one more joins: stable on all after {:.0} ms, {:.0} ms of CPU time",
        number("joined_s"),
        number("stable_s"),
        number("processor_s"),
        number("memory_per_node_kib"),
        number("heap_per_node_kib"),
        number("idle_processor_us_per_node_and_s"),
        number("change_ms"),
        number("change_processor_ms"),
    );
    if server_full.is_some() {
        println!(
            "              server: {:.0} MiB, {:.1} s of CPU time, idle {:.1} ms per second",
            number("server_memory_mib"),
            number("server_processor_s"),
            number("server_idle_ms_per_s"),
        );
    }
    Ok(())
}

/// Runs a worker process: executes the commands from its standard input.
pub(crate) async fn work(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let place = Place::open(arguments).await?;
    let count = arguments.nodes[0];
    let mut nodes = Vec::new();
    let (sender, mut orders) = tokio::sync::mpsc::unbounded_channel::<String>();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    while let Some(order) = orders.recv().await {
        match order.split_once(' ').unwrap_or((&order, "")) {
            ("join", _) => {
                let start = |number| Node::start(&place, arguments.first + number, arguments);
                nodes = join_all((0..count).map(start)).await;
            }
            ("one", number) => nodes.push(Node::start(&place, number.parse()?, arguments).await),
            ("stable", all) => stable(&nodes, all.parse()?).await,
            _ => {}
        }
        let Usage { memory, heap, processor } = Usage::own();
        println!(
            "{}",
            json!({ "memory": memory, "heap": heap, "processor_ms": processor.as_millis() as u64 })
        );
    }
    Ok(())
}
