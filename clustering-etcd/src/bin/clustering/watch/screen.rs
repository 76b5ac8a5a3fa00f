//! The picture of a cluster, drawn from what is known and nothing else.

use clustering_etcd::{Readiness, Report, report::NodeReport};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Paragraph},
};

use super::app::{App, Course, clock};
use crate::{
    output::counted,
    status::{leader, metadata, state, version},
    times::Now,
};

/// The most lines that the head takes.
const HEAD: u16 = 8;

/// How many nodes are listed at least where there are too many for the list alone.
const LISTED: usize = 6;

const DIM: Style = Style::new().fg(Color::DarkGray);
const GOOD: Style = Style::new().fg(Color::Green);
const WAITS: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

pub(crate) fn draw(frame: &mut Frame<'_>, app: &App, now: Now) {
    let head = head(app, now);
    let height = u16::try_from(head.len()).unwrap_or(HEAD).min(HEAD);
    let rows = [Constraint::Length(height), Constraint::Fill(3), Constraint::Fill(2), Constraint::Length(1)];
    let [top, middle, bottom, foot] = Layout::vertical(rows).areas(frame.area());
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(middle);
    frame.render_widget(Paragraph::new(head), top);
    nodes(frame, app, left);
    versions(frame, app, now, right);
    events(frame, app, bottom);
    frame.render_widget(Line::styled(" q quits   ↑ ↓ PgUp PgDn scroll the nodes", DIM), foot);
}

fn head(app: &App, now: Now) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(format!(" {}", app.namespace), BOLD)];
    if let Some(reason) = &app.away {
        lines.push(Line::styled(
            format!(" etcd does not answer, this is the last that was known: {reason}"),
            BAD,
        ));
    }
    let Some(report) = &app.report else {
        lines.push(Line::styled(" no cluster yet", WAITS));
        return lines;
    };
    lines.push(Line::raw(format!(" leader  {}", leader(report))));
    lines.push(Line::raw(format!(" version {}", version(report))));
    let style = if report.condition.is_stable() { GOOD } else { WAITS };
    lines.extend(
        state(report, app.watched(now)).into_iter().map(|line| Line::styled(format!(" {line}"), style)),
    );
    lines.extend(report.malformed.iter().map(|bad| Line::styled(format!(" cannot read {}", bad.key), BAD)));
    lines
}

fn nodes(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let title = match &app.report {
        Some(report) => format!(" nodes: {} of {} ready ", report.ready(), report.nodes.len()),
        None => " nodes ".to_owned(),
    };
    let block = Block::bordered().title(title);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let sorted = app.sorted_nodes();
    // More than there is room for: all of them as marks, a sign each, and below the list, which scrolls.
    let room = usize::from(inside.height);
    let marks = match (&app.report, sorted.len() > room) {
        (Some(report), true) => marks(report, usize::from(inside.width), room.saturating_sub(LISTED)),
        _ => Vec::new(),
    };
    let rows = room.saturating_sub(marks.len());
    let width =
        sorted.iter().map(|node| node.name.as_str().chars().count()).max().unwrap_or_default().min(30);
    let listed = sorted.iter().skip(app.scroll).take(rows).map(|node| row(node, width));
    let lines: Vec<_> = marks.into_iter().chain(listed).collect();
    frame.render_widget(Paragraph::new(lines), inside);
}

fn mark(node: &NodeReport) -> (&'static str, Style) {
    match &node.readiness {
        Readiness::Ready => ("●", GOOD),
        Readiness::Stabilizing => ("○", WAITS),
        Readiness::Refused(_) => ("✗", BAD),
        _ => ("+", DIM),
    }
}

/// All nodes by name, as many lines as there may be at most.
fn marks(report: &Report, width: usize, most: usize) -> Vec<Line<'static>> {
    let rows = report.nodes.chunks(width.max(1)).take(most);
    rows.map(|row| Line::from_iter(row.iter().map(mark).map(|(sign, style)| Span::styled(sign, style))))
        .collect()
}

fn row(node: &NodeReport, width: usize) -> Line<'static> {
    let (sign, style) = mark(node);
    let lead = if node.leads { "★" } else { " " };
    let mut spans = vec![Span::styled(sign, style), Span::raw(format!("{lead}{:<width$} ", node.name))];
    match &node.readiness {
        Readiness::Refused(reason) => spans.push(Span::styled(format!("refused: {reason}"), BAD)),
        Readiness::Ready => spans.push(Span::styled(format!("{} {}", node.uri, metadata(node)), DIM)),
        other => spans.push(Span::styled(other.to_string(), style)),
    }
    Line::from(spans)
}

fn versions(frame: &mut Frame<'_>, app: &App, now: Now, area: Rect) {
    let line = |period: &super::app::Period| {
        let (sign, style) = match period.course {
            Course::Adapting => ("○", WAITS),
            Course::Stable(_) => ("●", GOOD),
            Course::Superseded => ("·", DIM),
        };
        let nodes = period.nodes.map(counted).unwrap_or_default();
        Line::from(vec![
            Span::styled(format!("{sign} "), style),
            Span::styled(format!("{} ", clock(period.published_ms)), DIM),
            Span::styled(format!("{:>12} ", period.time(now)), style),
            Span::raw(format!("{nodes:<9} ")),
            Span::raw(period.causes.clone()),
        ])
    };
    let lines: Vec<_> = app.versions.iter().take(usize::from(area.height)).map(line).collect();
    let block = Block::bordered().title(" versions: when, time to stable, why ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn events(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let line = |(ms, text): &(u64, String)| {
        Line::from(vec![Span::styled(format!("{} ", clock(*ms)), DIM), Span::raw(text.clone())])
    };
    let lines: Vec<_> = app.events.iter().take(usize::from(area.height)).map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" events ")), area);
}
