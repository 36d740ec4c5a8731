//! `dlq`: the records that a consumer could not read. Everything known of them stands in the topic
//! `dead-letter`, what was done about them too: there is no other state.

mod book;
mod plan;
mod select;
mod show;
mod step_over;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use ordersaga_contract::Topic;
use ordersaga_runtime::clock;
use sagabus::crash;
use sagabus::dead_letters::{
    DeadLetters, Letter, MAX_ATTEMPTS, Place, Position, Resolution, Verdict, Writer,
};
use serde_json::Value;

use crate::Broker;
use book::{Book, View};
use plan::Terms;
use select::Filter;

/// Something was blocked.
const BLOCKED: u8 = 2;

/// Arguments of `dlq`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    broker: Broker,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists letters: those that are open, unless --all
    List(List),
    /// Shows a letter with its headers and its payload
    Show(Show),
    /// Puts letters back where they came from, in their order
    Replay(Replay),
    /// Says that nothing will be done about letters
    Discard(Discard),
    /// Lets a consumer go on behind a record that it cannot read, and leaves a letter for it
    StepOver(step_over::StepOver),
}

#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    filter: Filter,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Show {
    /// The letter, by where it stood
    #[arg(value_name = "TOPIC/PARTITION/OFFSET")]
    letter: Place,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Replay {
    #[command(flatten)]
    choice: Choice,
    /// A letter that was put back so often and came back stays
    #[arg(long, value_name = "COUNT", default_value_t = MAX_ATTEMPTS)]
    max_attempts: u32,
}

#[derive(clap::Args)]
struct Discard {
    #[command(flatten)]
    choice: Choice,
}

/// The letters to act on, and how.
#[derive(clap::Args)]
struct Choice {
    /// The letters, by where they stood; else all that pass the filters
    #[arg(value_name = "TOPIC/PARTITION/OFFSET", conflicts_with_all = select::NARROWING)]
    letters: Vec<Place>,
    #[command(flatten)]
    filter: Filter,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let letters = {
        let Broker { brokers, prefix, security } = &arguments.broker;
        DeadLetters::new(security.client(brokers), prefix, Topic::DeadLetter.name())
    };
    let book = async || letters.fold(Book::default(), Book::add).await;
    match arguments.command {
        Command::List(list) => list.run(&book().await?),
        Command::Show(show) => show.run(&book().await?, &letters).await,
        Command::Replay(replay) => replay.run(&book().await?, &letters).await,
        Command::Discard(discard) => discard.run(&book().await?, &letters).await,
        Command::StepOver(step_over) => step_over.run(&letters).await,
    }
}

impl List {
    fn run(&self, book: &Book) -> Result<ExitCode> {
        let all = book.letters();
        let chosen = self.filter.choose(&all);
        if self.json {
            let list: Value = chosen.iter().map(show::json).collect();
            say!("{}", ordersaga_terminal::json(&serde_json::to_string_pretty(&list)?));
            return Ok(ExitCode::SUCCESS);
        }
        if !chosen.is_empty() {
            say!("{}", show::table(&chosen));
        }
        let open = all.iter().filter(|view| view.is_open()).count();
        say!("{} of {} letters, {open} of which are open", chosen.len(), all.len());
        if !book.strange.is_empty() {
            say!("{} records of dead-letter are neither letter nor resolution", book.strange.len());
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    async fn run(&self, book: &Book, letters: &DeadLetters) -> Result<ExitCode> {
        let view = known(book, &self.letter)?;
        let letter = fetch(letters, &[view]).await?.remove(0);
        if self.json {
            let whole = show::whole_json(&view, &letter);
            say!("{}", ordersaga_terminal::json(&serde_json::to_string_pretty(&whole)?));
        } else {
            say!("{}", show::whole(&view, &letter));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Replay {
    async fn run(&self, book: &Book, letters: &DeadLetters) -> Result<ExitCode> {
        let Choice { filter, dry_run, .. } = &self.choice;
        let terms = Terms { max_attempts: self.max_attempts, again: filter.all };
        let chosen = self.choice.choose(book)?;
        let origins: BTreeSet<_> = chosen.iter().map(|view| view.origin).collect();
        let plan = plan::plan(&book.letters(), &origins, terms);
        for (view, why) in &plan.blocked {
            // It may name another letter, whose topic is foreign text.
            let why = ordersaga_terminal::line(&why.to_string());
            say!("{}: blocked: {why}", show::name(view.origin));
        }
        let code = if plan.blocked.is_empty() { 0 } else { BLOCKED };
        if *dry_run {
            for view in &plan.replay {
                say!(
                    "{}: would be replayed, attempt {}",
                    show::name(view.origin),
                    next_attempt(view)
                );
            }
        } else if !plan.replay.is_empty() {
            self.choice.confirm("Replay", plan.replay.len())?;
            let writer = letters.writer()?;
            for wave in plan::waves(&plan.replay) {
                replay(letters, &writer, wave).await?;
            }
        }
        say!("{} to replay, {} blocked", plan.replay.len(), plan.blocked.len());
        Ok(ExitCode::from(code))
    }
}

impl Discard {
    async fn run(&self, book: &Book, letters: &DeadLetters) -> Result<ExitCode> {
        let chosen = self.choice.choose(book)?;
        let discarded = |view: &View<'_>| {
            view.resolution.is_some_and(|resolution| resolution.verdict == Verdict::Discarded)
        };
        let open: Vec<_> = chosen.into_iter().filter(|view| !discarded(view)).collect();
        if self.choice.dry_run {
            for view in &open {
                say!("{}: would be discarded", show::name(view.origin));
            }
        } else if !open.is_empty() {
            self.choice.confirm("Discard", open.len())?;
            let all: Vec<_> = open.iter().map(|view| resolved(view, Verdict::Discarded)).collect();
            letters.writer()?.resolve(&all).await?;
            for view in &open {
                say!("{}: discarded", show::name(view.origin));
            }
        }
        say!("{} to discard", open.len());
        Ok(ExitCode::SUCCESS)
    }
}

impl Choice {
    fn choose<'a>(&self, book: &'a Book) -> Result<Vec<View<'a>>> {
        if self.letters.is_empty() {
            return Ok(self.filter.choose(&book.letters()));
        }
        self.letters.iter().map(|letter| known(book, letter)).collect()
    }

    /// Asks whoever sits at the terminal; where nobody does, `--yes` has to say it.
    fn confirm(&self, what: &str, count: usize) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        let letters = if count == 1 { "1 letter".to_owned() } else { format!("{count} letters") };
        let input = std::io::stdin();
        ensure!(input.is_terminal(), "{what} {letters}? Nobody can be asked here: add --yes");
        let mut output = std::io::stderr();
        write!(output, "{what} {letters}? [y/N] ")?;
        output.flush()?;
        let mut answer = String::new();
        input.read_line(&mut answer)?;
        let is_yes = ["y", "yes"].contains(&answer.trim().to_lowercase().as_str());
        ensure!(is_yes, "nothing was done");
        Ok(())
    }
}

fn known<'a>(book: &'a Book, letter: &Place) -> Result<View<'a>> {
    book.letter(letter).with_context(|| format!("there is no letter {letter}"))
}

fn next_attempt(view: &View<'_>) -> u32 {
    view.filed.record.attempts.saturating_add(1)
}

/// The letters as a whole, in this order.
async fn fetch(letters: &DeadLetters, views: &[View<'_>]) -> Result<Vec<Letter>> {
    let first = |view: &View<'_>| view.filed.positions.first().copied();
    let positions: Vec<Position> = views.iter().filter_map(first).collect();
    let mut found = letters.fetch(&positions).await?;
    let taken = positions.iter().map(|position| found.remove(position));
    taken.collect::<Option<_>>().context("a letter is gone from dead-letter")
}

fn resolved(view: &View<'_>, verdict: Verdict) -> (Resolution, BTreeSet<i32>) {
    let resolution = Resolution { time: clock::now(), verdict, origin: view.origin.clone() };
    let partitions = view.filed.positions.iter().map(|position| position.partition).collect();
    (resolution, partitions)
}

/// Puts letters back and then, once the broker has them, says so in `dead-letter`. A crash between
/// leaves them open: they may be put back twice, and never be lost.
async fn replay(letters: &DeadLetters, writer: &Writer, wave: &[View<'_>]) -> Result<()> {
    let whole = fetch(letters, wave).await?;
    let outcomes = writer.replay(&whole).await;
    crash::point("dlq.before_resolution");
    let mut done = Vec::new();
    let mut failed = None;
    for (view, outcome) in wave.iter().zip(outcomes) {
        match outcome {
            Ok(offset) => done.push((view, offset)),
            Err(error) => failed = failed.or(Some((view, error))),
        }
    }
    let all: Vec<_> = done
        .iter()
        .map(|(view, offset)| resolved(view, Verdict::Replayed(Some(*offset))))
        .collect();
    let written = writer.resolve(&all).await;
    for (view, offset) in &done {
        let (now, attempt) = (Place { offset: *offset, ..view.origin.clone() }, next_attempt(view));
        let (origin, now) = (show::name(view.origin), show::name(&now));
        say!("{origin}: replayed as {now}, attempt {attempt}");
    }
    written.context("letters were replayed and are still shown as open")?;
    if let Some((view, error)) = failed {
        bail!("{} was not replayed, nor what comes after it: {error:#}", show::name(view.origin));
    }
    Ok(())
}
