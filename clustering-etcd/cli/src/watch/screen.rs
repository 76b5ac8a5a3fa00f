//! Draws the screen. Depends only on its arguments.

use clustering_core::{ClusterState, Readiness, Report, report::NodeReport};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Paragraph},
};
use unicode_width::UnicodeWidthStr;

use super::{
    app::{App, Course, Period, clock},
    wrap::wrap,
};
use crate::{
    lists::counted,
    nodes::{metadata, settings},
    output::{padded, plain},
    slots,
    status::{leader, state, version},
    times::Now,
};

/// Maximum number of lines of the head.
const HEAD: u16 = 8;

/// Minimum width of a screen that shows nodes and versions side by side.
const WIDE: u16 = 120;

/// Minimum width for the causes of a version. If less is left on the line, the causes go on separate lines.
const WHY: usize = 24;

/// Maximum number of lines for the causes of a version.
const WHY_LINES: usize = 3;

/// Minimum number of nodes in the list if there are too many nodes for the list alone.
const LISTED: usize = 6;

const DIM: Style = Style::new().fg(Color::DarkGray);
const GOOD: Style = Style::new().fg(Color::Green);
const WAITS: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

pub(crate) fn draw(frame: &mut Frame<'_>, app: &App, now: Now) {
    let area = frame.area();
    let head = head(app, now, usize::from(area.width));
    let height = u16::try_from(head.len()).unwrap_or(HEAD).min(HEAD);
    let rows = [Constraint::Length(height), Constraint::Fill(1), Constraint::Length(1)];
    let [top, middle, foot] = Layout::vertical(rows).areas(area);
    let [left, right, bottom] = panes(middle);
    frame.render_widget(Paragraph::new(head), top);
    nodes(frame, app, left);
    versions(frame, app, now, right);
    events(frame, app, bottom);
    frame.render_widget(Line::styled(" q quits   ↑ ↓ PgUp PgDn scroll the nodes", DIM), foot);
}

/// Lays out the areas for nodes, versions and events.
fn panes(area: Rect) -> [Rect; 3] {
    if area.width < WIDE {
        return Layout::vertical([Constraint::Fill(3), Constraint::Fill(4), Constraint::Fill(3)]).areas(area);
    }
    let [top, bottom] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(top);
    [left, right, bottom]
}

/// Makes a span from text of other processes, with control characters escaped.
fn span(text: &str, style: Style) -> Span<'static> {
    Span::styled(plain(text).into_owned(), style)
}

/// Wraps text into lines. All lines but the first are indented by `indent`.
fn wrapped(text: &str, style: Style, indent: usize, width: usize) -> Vec<Line<'static>> {
    let lines = wrap(&plain(text), width.saturating_sub(indent));
    let spaces = " ".repeat(indent);
    lines.into_iter().map(|line| Line::from(vec![Span::raw(spaces.clone()), span(&line, style)])).collect()
}

fn head(app: &App, now: Now, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut add = |text: &str, style: Style| lines.extend(wrapped(text, style, 1, width));
    add(app.namespace.as_str(), BOLD);
    if let Some(reason) = &app.away {
        let store = app.store_name;
        add(&format!("{store} does not answer; the last known state is shown: {reason}"), BAD);
    }
    let Some(report) = &app.report else {
        add("no cluster yet", WAITS);
        return lines;
    };
    add(&format!("leader  {}", leader(report)), Style::new());
    add(&format!("version {}", version(report)), Style::new());
    let slots = slots::summary(report);
    if !slots.is_empty() {
        add(&format!("slots   {}", slots.join("; ")), Style::new());
    }
    let style = if report.condition.is_stable() { GOOD } else { WAITS };
    for line in state(report, app.watched(now)) {
        add(&line, style);
    }
    for bad in &report.malformed {
        add(&format!("cannot read {}", bad.key), BAD);
    }
    lines
}

fn nodes(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let title = match &app.report {
        Some(report) => title(report),
        None => " nodes ".to_owned(),
    };
    let block = Block::bordered().title(title);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let sorted = app.sorted_nodes();
    // If there are too many nodes, show one sign for each node, and below them a list that scrolls.
    let room = usize::from(inside.height);
    let marks = match (&app.report, sorted.len() > room) {
        (Some(report), true) => marks(report, usize::from(inside.width), room.saturating_sub(LISTED)),
        _ => Vec::new(),
    };
    let rows = room.saturating_sub(marks.len());
    let width = sorted.iter().map(|node| node.name.as_str().width()).max().unwrap_or_default().min(30);
    let row = |node: &&NodeReport| app.report.as_ref().map(|report| row(report, node, width));
    let listed = sorted.iter().skip(app.scroll).take(rows).filter_map(row);
    let lines: Vec<_> = marks.into_iter().chain(listed).collect();
    frame.render_widget(Paragraph::new(lines), inside);
}

/// Returns the title of the nodes: how many are ready, or during a hand-over how many have released their slots.
fn title(report: &Report) -> String {
    let nodes = report.nodes.len();
    match &report.condition {
        ClusterState::Releasing { waiting_for } => {
            format!(" nodes: {} of {nodes} released ", nodes.saturating_sub(waiting_for.len()))
        }
        _ => format!(" nodes: {} of {nodes} ready ", report.ready()),
    }
}

fn mark(node: &NodeReport) -> (&'static str, Style) {
    match &node.readiness {
        Readiness::Ready => ("●", GOOD),
        Readiness::Stabilizing => ("○", WAITS),
        Readiness::Refused(_) => ("✗", BAD),
        _ => ("+", DIM),
    }
}

/// Formats one sign for each node, sorted by name, in at most `most` lines.
fn marks(report: &Report, width: usize, most: usize) -> Vec<Line<'static>> {
    let rows = report.nodes.chunks(width.max(1)).take(most);
    rows.map(|row| Line::from_iter(row.iter().map(mark).map(|(sign, style)| Span::styled(sign, style))))
        .collect()
}

fn row(report: &Report, node: &NodeReport, width: usize) -> Line<'static> {
    let (sign, style) = mark(node);
    let lead = if node.leads { "★" } else { " " };
    let name = padded(&plain(node.name.as_str()), width);
    let mut spans = vec![Span::styled(sign, style), Span::raw(format!("{lead}{name} "))];
    if node.exclusive {
        spans.push(Span::raw(format!("{:>4} slots ", node.slots.len())));
    }
    // The star shows which node leads.
    for remark in slots::remarks(node).into_iter().filter(|remark| *remark != "leads") {
        spans.push(Span::styled(format!("{remark} "), WAITS));
    }
    spans.push(match &node.readiness {
        Readiness::Refused(reason) => span(&format!("refused: {reason}"), BAD),
        Readiness::Ready => span(&described(node), DIM),
        _ => span(&slots::readiness(report, node), style),
    });
    Line::from(spans)
}

/// Describes a node that is ready.
fn described(node: &NodeReport) -> String {
    let parts = [node.uri.to_string(), metadata(node)].into_iter().chain(settings(node));
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn versions(frame: &mut Frame<'_>, app: &App, now: Now, area: Rect) {
    let block = Block::bordered().title(" versions: time, time to stable, causes ");
    let inside = block.inner(area);
    let lines = app.versions.iter().flat_map(|period| of_version(period, now, usize::from(inside.width)));
    let lines: Vec<_> = lines.take(usize::from(inside.height)).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Formats a version: time of publication, time until stable, nodes, and causes, which go on the same line or below.
fn of_version(period: &Period, now: Now, width: usize) -> Vec<Line<'static>> {
    let (sign, style) = match period.course {
        Course::Adapting => ("○", WAITS),
        Course::Stable(_) => ("●", GOOD),
        Course::Superseded => ("·", DIM),
    };
    let nodes = period.nodes.map(counted).unwrap_or_default();
    let mut first = Line::from(vec![
        Span::styled(format!("{sign} "), style),
        Span::styled(format!("{} ", clock(period.published_ms)), DIM),
        Span::styled(format!("{:>12} ", period.time(now)), style),
        Span::raw(format!("{nodes:<9} ")),
    ]);
    let beside = first.width();
    let is_beside = width >= beside + WHY;
    let indent = if is_beside { beside } else { 2 };
    // Leave one column for the ellipsis.
    let mut why = wrapped(&period.causes, Style::new(), indent, width.saturating_sub(1));
    if why.len() > WHY_LINES {
        why.truncate(WHY_LINES);
        why[WHY_LINES - 1].push_span("…");
    }
    if is_beside {
        // The first line replaces its indentation with the other fields.
        first.extend(why.remove(0).spans.into_iter().skip(1));
    }
    [first].into_iter().chain(why).collect()
}

fn events(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let block = Block::bordered().title(" events ");
    let inside = block.inner(area);
    let lines = |(ms, text): &(u64, String)| {
        let time = format!("{} ", clock(*ms));
        let mut lines = wrapped(text, Style::new(), time.width(), usize::from(inside.width));
        lines[0].spans[0] = Span::styled(time, DIM);
        lines
    };
    let lines: Vec<_> = app.events.iter().flat_map(lines).take(usize::from(inside.height)).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}
