//! Updates the screen: at once after a quiet time, and otherwise at a limited rate.

use std::{io, time::Duration};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Update, app::App, screen};
use crate::{failure::Failure, times::Now};

/// Minimum time between two redraws.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Redraw interval for running timers.
const TICK: Duration = Duration::from_secs(1);

/// An action of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Quit,
    Scroll(isize),
    /// Redraw, because the size of the terminal has changed.
    Redraw,
}

/// The terminal. Dropping this restores it.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows the cluster until the user quits.
pub(crate) async fn show(app: App, updates: mpsc::UnboundedReceiver<Update>) -> Result<(), Failure> {
    let failure = |error: io::Error| Failure::unknown(format!("cannot use the terminal: {error}"));
    let mut terminal = Screen(ratatui::try_init().map_err(failure)?);
    let draw = |app: &App| terminal.0.draw(|frame| screen::draw(frame, app, Now::read())).map(drop);
    drive(app, updates, actions(), draw).await.map_err(failure)
}

/// Draws an update at once after a quiet time, and otherwise at most once per [`MIN_INTERVAL`].
pub(crate) async fn drive(
    mut app: App,
    mut updates: mpsc::UnboundedReceiver<Update>,
    mut actions: mpsc::UnboundedReceiver<Action>,
    mut draw: impl FnMut(&App) -> io::Result<()>,
) -> io::Result<()> {
    let mut drawn = Instant::now();
    draw(&app)?;
    let mut changed = false;
    loop {
        let next = match (changed, app.has_timer()) {
            (true, _) => Some(drawn + MIN_INTERVAL),
            (false, true) => Some(drawn + TICK),
            (false, false) => None,
        };
        tokio::select! {
            biased;
            action = actions.recv() => match action {
                None | Some(Action::Quit) => return Ok(()),
                Some(Action::Scroll(lines)) => {
                    app.scroll_by(lines);
                    changed = true;
                }
                Some(Action::Redraw) => changed = true,
            },
            () = sleep_until(next.unwrap_or(drawn)), if next.is_some() => {
                draw(&app)?;
                (drawn, changed) = (Instant::now(), false);
            }
            update = updates.recv() => match update {
                None => return Ok(()),
                Some(update) => {
                    app.apply(update);
                    changed = true;
                }
            },
        }
    }
}

/// Reads the keyboard. The thread ends with the process, because nothing can wake it while it waits for a key.
fn actions() -> mpsc::UnboundedReceiver<Action> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if let Some(action) = action(&event)
                && sender.send(action).is_err()
            {
                return;
            }
        }
    });
    receiver
}

fn action(event: &Event) -> Option<Action> {
    let key = match event {
        Event::Resize(..) => return Some(Action::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Action::Quit),
        KeyCode::Char('c') if control => Some(Action::Quit),
        KeyCode::Up | KeyCode::Char('k') => Some(Action::Scroll(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Action::Scroll(1)),
        KeyCode::PageUp => Some(Action::Scroll(-10)),
        KeyCode::PageDown => Some(Action::Scroll(10)),
        KeyCode::Home => Some(Action::Scroll(isize::MIN)),
        KeyCode::End => Some(Action::Scroll(isize::MAX)),
        _ => None,
    }
}
