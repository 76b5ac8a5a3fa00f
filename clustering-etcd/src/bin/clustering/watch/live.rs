//! The screen kept up to date: quickly after a while of calm, and never in a hurry.

use std::{io, time::Duration};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{News, app::App, screen};
use crate::{
    failure::{Failure, UNKNOWN},
    times::Now,
};

/// The shortest time between two pictures.
const PACE: Duration = Duration::from_millis(100);

/// How often a time that runs is drawn anew.
const TICK: Duration = Duration::from_secs(1);

/// What somebody who looks on wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Quit,
    Scroll(isize),
    /// The terminal has another size.
    Redraw,
}

/// The terminal, which is as it was before when this is dropped.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows the cluster until somebody quits.
pub(crate) async fn show(app: App, news: mpsc::UnboundedReceiver<News>) -> Result<(), Failure> {
    let failure = |error: io::Error| Failure::new(UNKNOWN, format!("the terminal cannot be used: {error}"));
    let mut terminal = Screen(ratatui::try_init().map_err(failure)?);
    let draw = |app: &App| terminal.0.draw(|frame| screen::draw(frame, app, Now::read())).map(drop);
    drive(app, news, wishes(), draw).await.map_err(failure)
}

/// Draws at once what happens after a while of calm, and then at most one picture per [`PACE`], however much happens.
pub(crate) async fn drive(
    mut app: App,
    mut news: mpsc::UnboundedReceiver<News>,
    mut wishes: mpsc::UnboundedReceiver<Wish>,
    mut draw: impl FnMut(&App) -> io::Result<()>,
) -> io::Result<()> {
    let mut drawn = Instant::now();
    draw(&app)?;
    let mut changed = false;
    loop {
        let next = match (changed, app.is_running()) {
            (true, _) => Some(drawn + PACE),
            (false, true) => Some(drawn + TICK),
            (false, false) => None,
        };
        tokio::select! {
            biased;
            wish = wishes.recv() => match wish {
                None | Some(Wish::Quit) => return Ok(()),
                Some(Wish::Scroll(lines)) => {
                    app.scroll_by(lines);
                    changed = true;
                }
                Some(Wish::Redraw) => changed = true,
            },
            () = sleep_until(next.unwrap_or(drawn)), if next.is_some() => {
                draw(&app)?;
                (drawn, changed) = (Instant::now(), false);
            }
            news = news.recv() => match news {
                None => return Ok(()),
                Some(news) => {
                    app.take(news, Now::read());
                    changed = true;
                }
            },
        }
    }
}

/// What is typed. The thread ends with the process: nothing can wake one that waits for a key.
fn wishes() -> mpsc::UnboundedReceiver<Wish> {
    let (tell, told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if let Some(wish) = wish(&event)
                && tell.send(wish).is_err()
            {
                return;
            }
        }
    });
    told
}

fn wish(event: &Event) -> Option<Wish> {
    let key = match event {
        Event::Resize(..) => return Some(Wish::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('c') if control => Some(Wish::Quit),
        KeyCode::Up | KeyCode::Char('k') => Some(Wish::Scroll(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Wish::Scroll(1)),
        KeyCode::PageUp => Some(Wish::Scroll(-10)),
        KeyCode::PageDown => Some(Wish::Scroll(10)),
        KeyCode::Home => Some(Wish::Scroll(isize::MIN)),
        KeyCode::End => Some(Wish::Scroll(isize::MAX)),
        _ => None,
    }
}
