//! Tests of the rendered screen.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use clustering_core::{
    Cause, Event, Keyspace, MonitorEvent, Namespace, NodeName, Report, Version,
    slots::{Assignment, SlotCount},
    store::{CoordinationStoreExt, Entry, Key, LeaseId, Revision, Snapshot},
};
use clustering_memory::MemoryStore;
use ratatui::{Terminal, backend::TestBackend};
use tokio::sync::mpsc;

use super::{
    Update,
    app::App,
    live::{Action, drive},
    screen,
};
use crate::times::Now;

const NOON: u64 = 1_700_000_000_000;

fn version() -> Version {
    Version::from_u128(u128::from(NOON) << 80)
}

/// Returns the report on a cluster of `nodes` nodes. The first node leads; the last `waiting` nodes are not ready.
pub(crate) fn report(nodes: usize, waiting: usize) -> Option<Report> {
    let keys = Keyspace::new(Namespace::parse("telemetry/ingest").unwrap());
    let mut revision = 0;
    let mut entry = |key: Key, value: String| {
        revision += 1;
        let revision = Revision::new(revision);
        Entry { key, value: value.into(), created: revision, modified: revision, lease: None }
    };
    let name = |number: usize| format!("node-{number:03}").try_into().unwrap();
    let label = version();
    let mut view = Vec::new();
    for number in 0..nodes {
        let record = format!(
            r#"{{"uri": "http://host-{number}:80", "incarnation": "x", "metadata": {{"zone": "a"}}}}"#
        );
        view.push(entry(keys.node_key(&name(number)), record));
    }
    view.push(entry(keys.election_key().clone(), r#"{"node": "node-000", "incarnation": "x"}"#.into()));
    let record = format!(r#"{{"version": "{label}", "cause": [{{"joined": "node-002"}}]}}"#);
    view.push(entry(keys.version_key().clone(), record));
    let mut ready = Vec::new();
    for number in 0..nodes - waiting {
        let record = format!(r#"{{"version": "{label}", "outcome": "ready"}}"#);
        ready.push(entry(keys.readiness_key(&name(number)), record));
    }
    if waiting == 0 {
        view.push(entry(keys.stable_key().clone(), format!(r#"{{"version": "{label}"}}"#)));
    } else {
        let record =
            format!(r#"{{"version": "{label}", "outcome": "failed", "detail": "its disk is full"}}"#);
        ready.push(entry(keys.readiness_key(&name(nodes - 1)), record));
    }
    let shown = |entries| Snapshot { revision: Revision::new(9999), entries };
    Report::of(&keys, &shown(view), &shown(ready))
}

fn app() -> App {
    App::new(Namespace::parse("telemetry/ingest").unwrap(), "etcd", Vec::new(), Now::read())
}

fn noon() -> Now {
    Now { wall_ms: NOON, at: Instant::now() }
}

fn after(moment: Now, millis: u64) -> Now {
    Now { wall_ms: moment.wall_ms + millis, at: moment.at + Duration::from_millis(millis) }
}

fn published(nodes: usize) -> MonitorEvent {
    // Causes cannot be constructed here, so take those of a report.
    let causes = report(3, 0).unwrap().version.unwrap().causes;
    Event::VersionPublished { version: version(), revision: Revision::new(7), nodes, causes }.into()
}

/// Renders the screen into lines, without trailing blanks.
fn rendered(app: &App, now: Now, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen::draw(frame, app, now)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

#[test]
fn a_cluster_adapts_and_then_becomes_stable() {
    let mut app = app();
    let noon = noon();
    app.apply(Update { at: noon, events: vec![published(3)], report: report(3, 1) });
    let screen = rendered(&app, after(noon, 3_000), 120, 20);
    let text = screen.join("\n");
    let expected = "
 telemetry/ingest
 leader  node-000, term 4
 version 01HF7YAT00000000000000000, labelled 2023-11-14T22:13:20Z: node-002 joined
 not stable, watched for 3.0s: waiting for 1 of 3 nodes
 node-002 refused: its disk is full
┌ nodes: 2 of 3 ready ─────────────────────────────────────┐┌ versions: time, time to stable, causes ──────────────────┐
│✗ node-002 refused: its disk is full                      ││○ 22:13:20  3.0s so far 3 nodes   node-002 joined         │
│●★node-000 http://host-0:80 zone=a                        ││                                                          │
│● node-001 http://host-1:80 zone=a                        ││                                                          │";
    let first = text.lines().take(9).collect::<Vec<_>>().join("\n");
    assert_eq!(first, expected.trim_start_matches('\n').replace("0000000000000000,", "00000000000000000,"));
    assert!(screen[14..].iter().any(|line| line.starts_with("│22:13:20 version 01HF7YAT")), "{text}");

    let took = Some(Duration::from_millis(4_200));
    app.apply(Update {
        at: after(noon, 4_200),
        events: vec![MonitorEvent::Stable { version: version(), took }],
        report: report(3, 0),
    });
    let screen = rendered(&app, after(noon, 60_000), 120, 20);
    assert_eq!(screen[3], " stable, all 3 nodes are ready");
    assert!(
        screen[5].contains("●★node-000") && screen[5].contains("● 22:13:20         4.2s 3 nodes"),
        "{screen:#?}"
    );
    assert!(!app.has_timer());
}

/// The labels are from a clock that was ahead, and from records that were written by hand.
#[tokio::test]
async fn durations_do_not_use_clocks_of_other_machines() {
    let keys = Keyspace::new(Namespace::parse("c").unwrap());
    for label in ["01JZZZZZZZ0000000000000000", "00000000010000000000000000", "7Z000000000000000000000000"] {
        let label: Version = label.parse().unwrap();
        let store = MemoryStore::new();
        let record = format!(r#"{{"version": "{label}", "number": 7, "cause": ["resync"]}}"#);
        store.put(&keys.history_key(7), record.into(), None).await.unwrap();
        let past = clustering_core::history(&store, &keys).await.unwrap();
        let began = Now::read();
        let mut app = App::new(keys.namespace().clone(), "etcd", past, began);
        let shown = |app: &App, millis| rendered(app, after(began, millis), 120, 20).join("\n");
        assert!(shown(&app, 3_000).contains(" over 3.0s "), "{}", shown(&app, 3_000));
        // The monitor did not see the publication.
        let stable = vec![MonitorEvent::Stable { version: label, took: None }];
        app.apply(Update { at: after(began, 4_000), events: stable, report: None });
        assert!(shown(&app, 9_000).contains("● ") && shown(&app, 9_000).contains(" stable "));
    }
}

#[test]
fn five_hundred_nodes_fit_and_unready_nodes_come_first() {
    let mut app = app();
    app.apply(Update { at: Now::read(), events: Vec::new(), report: report(500, 7) });
    let screen = rendered(&app, Now::read(), 120, 40).join("\n");
    let marks = screen.chars().filter(|sign| *sign == '●').count();
    assert!(screen.contains("nodes: 493 of 500 ready") && marks >= 493, "{marks} in {screen}");
    let list: Vec<_> = screen.lines().filter_map(|line| line.split("node-").nth(1)).collect();
    assert!(screen.contains("○ node-493 stabilizing") && screen.contains("✗ node-499 refused"), "{list:?}");
    assert!(screen.contains("●★node-000 "), "ready nodes follow");
    app.scroll_by(isize::MAX);
    let screen = rendered(&app, Now::read(), 120, 40).join("\n");
    assert!(screen.contains("● node-492 http") && !screen.contains("node-493 stab"), "{screen}");
}

/// Returns the report on an exclusive cluster of two nodes, in which a session must end before slots move.
pub(crate) fn releasing() -> Option<Report> {
    let keys = Keyspace::new(Namespace::parse("telemetry/ingest").unwrap());
    let mut revision = 0;
    let mut entry = |key: Key, value: String, lease: Option<u64>| {
        revision += 1;
        let revision = Revision::new(revision);
        let lease = lease.map(LeaseId::new);
        Entry { key, value: value.into(), created: revision, modified: revision, lease }
    };
    let name = |number: u64| NodeName::parse(&format!("node-{number}")).unwrap();
    let mut view = Vec::new();
    for number in [1, 2, 9] {
        let witness = format!(
            r#"{{"node": "node-{number}", "incarnation": "x", "uri": "http://h:1", "ttl_ms": 15000, "slots": 8}}"#
        );
        view.push(entry(keys.holds_key(LeaseId::new(number)), witness, Some(number)));
        if number < 9 {
            let record = r#"{"uri": "http://h:1", "incarnation": "x"}"#;
            view.push(entry(keys.node_key(&name(number)), record.into(), Some(number)));
        }
    }
    view.push(entry(keys.cordon_key(&name(2)), r#"{"by": "ops"}"#.into(), None));
    view.push(entry(keys.election_key().clone(), r#"{"node": "node-1", "incarnation": "x"}"#.into(), None));
    let owner = name(1);
    let slots = Assignment::new(SlotCount::new(8).unwrap(), |_| Some(&owner)).encode();
    view.push(entry(keys.slots_key().clone(), String::from_utf8(slots).unwrap(), None));
    let label = version();
    view.push(entry(keys.version_key().clone(), format!(r#"{{"version": "{label}"}}"#), None));
    let released = format!(r#"{{"version": "{label}", "phase": "released"}}"#);
    let ready = vec![entry(keys.readiness_key(&name(2)), released, Some(2))];
    let shown = |entries| Snapshot { revision: Revision::new(9999), entries };
    Report::of(&keys, &shown(view), &shown(ready))
}

#[test]
fn a_hand_over_shows_the_nodes_that_have_not_released_their_slots() {
    let mut app = app();
    app.apply(Update { at: noon(), events: Vec::new(), report: releasing() });
    let screen = rendered(&app, noon(), 120, 20);
    let text = screen.join("\n");
    for part in [
        "\n slots   8\n not stable, watched for 0ms: slots move, waiting for 1 of 2 nodes to release them\n",
        "\n node-1 has not released the slots that it lost\n node-9 is gone, but may hold slots until its lease 9",
        "┌ nodes: 1 of 2 released ─",
        "○★node-1    8 slots holding ",
        "○ node-2    0 slots cordoned released ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(app.has_timer());
}

#[test]
fn a_missing_cluster_and_a_store_that_is_away_are_shown() {
    let mut app = app();
    assert_eq!(rendered(&app, Now::read(), 80, 12)[1], " no cluster yet");
    let away = Event::StoreAway { reason: "refused".into() }.into();
    app.apply(Update { at: Now::read(), events: vec![away], report: report(3, 0) });
    assert!(rendered(&app, Now::read(), 100, 12)[1].contains("etcd does not answer") && app.has_timer());
    // No size of the terminal makes it panic.
    for (width, height) in [(1, 1), (10, 3), (80, 5), (200, 100)] {
        rendered(&app, Now::read(), width, height);
    }
}

/// Returns the part of the screen between two titles.
fn pane<'a>(screen: &'a str, from: &str, to: &str) -> &'a str {
    screen.split(from).nth(1).unwrap().split(to).next().unwrap()
}

#[test]
fn a_small_terminal_shows_why_a_version_was_published() {
    let mut app = app();
    let asked = |why: &str| {
        let mut event = published(3);
        if let MonitorEvent::Common(Event::VersionPublished { causes: shown, .. }) = &mut event {
            *shown = vec![Cause::Asked { by: "ops@host".into(), why: Some(why.into()) }];
        }
        Update { at: noon(), events: vec![event], report: report(3, 0) }
    };
    app.apply(asked("a new table of devices, since two racks have moved"));
    for (width, height) in [(80, 24), (40, 24)] {
        let screen = rendered(&app, noon(), width, height);
        let text = screen.join("\n");
        let why = pane(&text, " versions", " events ");
        let words: Vec<_> = why.split(|c: char| c.is_whitespace() || "│┌┐└┘─".contains(c)).collect();
        for word in "new table of devices, since two racks have moved)".split(' ') {
            assert!(words.contains(&word), "no {word:?} at {width} columns:\n{text}");
        }
    }
    // The reason why the cluster is not stable is also shown in full.
    app.apply(Update { at: noon(), events: vec![published(3)], report: report(3, 1) });
    let text = rendered(&app, noon(), 40, 24).join("\n");
    assert!(text.contains("for 1 of 3 nodes") && text.contains("refused: its disk is full"), "{text}");
    // Causes that are too long are cut off, and leave room for other versions.
    app.apply(asked(&"long ".repeat(100)));
    let text = rendered(&app, noon(), 80, 24).join("\n");
    let why = pane(&text, " versions", " events ");
    assert!(why.contains('…') && why.contains("node-002 joined"), "{text}");
}

#[test]
fn wide_characters_keep_their_column_and_escape_sequences_are_shown() {
    let mut app = app();
    let odd = Event::StoreAway { reason: "\u{1b}[2Jbad\nforged \u{202e}".into() }.into();
    app.apply(Update { at: noon(), events: vec![odd], report: report(3, 0) });
    let text = rendered(&app, noon(), 120, 20).join("\n");
    assert_eq!(text.matches("\\u{1b}[2Jbad\\nforged \\u{202e}").count(), 2, "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
}

/// Counts the redraws for one update in each of `updates_in_ms` milliseconds.
async fn redraws(updates_in_ms: u64, report: Option<Report>, then: Duration) -> usize {
    let (sender, updates) = mpsc::unbounded_channel();
    let (action, actions) = mpsc::unbounded_channel();
    let drawn = Cell::new(0);
    let driving = drive(app(), updates, actions, |_| {
        drawn.set(drawn.get() + 1);
        Ok(())
    });
    let happening = async {
        for _ in 0..updates_in_ms {
            let _ =
                sender.send(Update { at: Now::read(), events: vec![published(3)], report: report.clone() });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(then).await;
        let _ = action.send(Action::Quit);
    };
    let (done, ()) = tokio::join!(driving, happening);
    done.unwrap();
    drawn.get()
}

#[tokio::test(start_paused = true)]
async fn frequent_updates_cause_ten_redraws_a_second_and_no_updates_cause_none() {
    let stable = report(3, 0);
    let drawn = redraws(2_000, stable.clone(), Duration::ZERO).await;
    assert!((18..=22).contains(&drawn), "{drawn}");
    assert_eq!(redraws(1, stable, Duration::from_secs(3600)).await, 2, "the first and the one change");
    // The screen of a cluster that is not stable has a running timer.
    let drawn = redraws(1, report(3, 1), Duration::from_secs(60)).await;
    assert!((59..=63).contains(&drawn), "{drawn}");
}
