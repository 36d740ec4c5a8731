//! `top`: a live screen of the system. What is shown and how keys change it is pure; threads ask
//! the services, each for itself, so that one that is away holds up no other.

mod ask;
mod draw;
mod figures;
mod screen;

use std::io::{IsTerminal, stdin, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Result;
use ratatui::buffer::Cell;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::{DefaultTerminal, Terminal, backend::TestBackend};
use tokio::signal::unix::{SignalKind, signal};

use self::ask::{Asker, News};
use self::screen::Screen;
use crate::target::Target;

/// How long a key is waited for before the screen is drawn anew.
const TICK: Duration = Duration::from_millis(200);
/// How long a service may take for an answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long one frame waits for the services.
const ONCE: Duration = Duration::from_secs(15);
/// Columns and lines of a frame that is printed.
const PRINTED: (u16, u16) = (120, 40);

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// How often the services are asked
    #[arg(long, default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Prints one frame as text and ends, as it does without a terminal
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = Duration::from_millis(200)..=Duration::from_mins(1);
    bounds.contains(&interval).then_some(interval).ok_or_else(|| "from 200ms to 1m".to_owned())
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let is_ended = Arc::new(AtomicBool::new(false));
    let asked = is_ended.clone();
    let (mut terminate, mut hangup) =
        (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    // The screen is left in order by these as well; Ctrl-C is a key there.
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = hangup.recv() => {} }
        asked.store(true, Ordering::Relaxed);
    });
    tokio::task::spawn_blocking(move || look(&arguments, &is_ended)).await?
}

fn look(arguments: &Arguments, is_ended: &AtomicBool) -> Result<ExitCode> {
    let system = Arc::new(arguments.target.system_within(LIMIT));
    let (asker, news) = Asker::start(&system, arguments.interval);
    let mut screen = Screen::new(arguments.target.url(), arguments.interval);
    if arguments.once || !stdin().is_terminal() || !stdout().is_terminal() {
        say!("{}", one_frame(screen, &news)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = follow(&mut terminal, &mut screen, &news, &asker, is_ended);
    ratatui::restore();
    outcome.map(|()| ExitCode::SUCCESS)
}

fn follow(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    news: &Receiver<News>,
    asker: &Asker,
    is_ended: &AtomicBool,
) -> Result<()> {
    while !screen.is_over() && !is_ended.load(Ordering::Relaxed) {
        for one in news.try_iter() {
            screen.hear(one);
        }
        terminal.draw(|frame| draw::screen(frame, screen))?;
        if event::poll(TICK)?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            screen.press(key);
            asker.pause(screen.is_paused());
        }
    }
    Ok(())
}

/// Waits until there are rates, or it takes too long, and draws once.
fn one_frame(mut screen: Screen, news: &Receiver<News>) -> Result<String> {
    let deadline = Instant::now() + ONCE;
    while !screen.is_complete() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(one) = news.recv_timeout(left) else { break };
        screen.hear(one);
    }
    text(&screen, PRINTED)
}

/// A frame as lines of text.
fn text(screen: &Screen, (columns, lines): (u16, u16)) -> Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines))?;
    terminal.draw(|frame| draw::screen(frame, screen))?;
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(columns));
    let rows = rows.map(|cells| cells.iter().map(Cell::symbol).collect::<String>());
    let text = rows.map(|row| row.trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_neither_busy_nor_asleep() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["10ms", "2h", "soon"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
