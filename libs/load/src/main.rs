//! `ordersaga-load`: puts load on a running system and tells how it took it.

mod progress;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use ordersaga_load::{Plan, Report, Watch, plot, run};

use crate::progress::Display;

/// Puts load on a running system, and tells how many orders a second it took and how long each
/// took: from the create to its answer, and to the order's end (reserved, or cancelled), which is
/// when this program sees it on the topics or, with --wait, when the client that waits for it is
/// told. At the end it checks that every acknowledged order has ended and that no item is oversold.
///
/// The load is measured after a warmup. Ctrl-C ends it before its time, with a report.
#[derive(Parser, Debug)]
#[command(
    name = "ordersaga load",
    version,
    after_help = "Exits with 1 if a check fails, with 2 if there could be no run."
)]
struct Arguments {
    #[command(flatten)]
    plan: Plan,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write throughput and latency over time as a picture (SVG)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    plot: Option<PathBuf>,
    /// Show neither progress nor the result, only what is wrong
    #[arg(long, help_heading = "Output")]
    quiet: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // A shell that completes the command line asks; that ends the process.
    clap_complete::CompleteEnv::with_factory(Arguments::command).complete();
    match start(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            // There is no other place left to say it.
            let _ = writeln!(std::io::stderr(), "ordersaga load: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn start(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { plan, json, plot: picture, quiet } = arguments;
    allow_many_connections();
    let report = watched(plan, quiet).await?;
    if let Some(file) = &json {
        write(file, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(file) = &picture {
        write(file, &plot(&report))?;
    }
    let holds = report.checks.as_ref().is_none_or(ordersaga_load::Checks::hold);
    if !quiet || !holds {
        // Nothing is wrong when nobody reads it, as after `| head`.
        let _ = write!(std::io::stdout(), "{}", report.to_text());
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the plan with its progress shown; Ctrl-C ends the load, a second one the program.
async fn watched(plan: Plan, quiet: bool) -> Result<Report> {
    let watch = Watch::default();
    let stop = watch.clone();
    let mut running = tokio::task::spawn_blocking(move || {
        let mut display = Display::new(quiet);
        let report = run(&plan, &watch, |progress| display.show(&progress));
        display.clear();
        report
    });
    loop {
        tokio::select! {
            report = &mut running => return report?,
            interrupt = tokio::signal::ctrl_c() => {
                interrupt?;
                if stop.is_stopped() {
                    std::process::exit(130);
                }
                stop.stop();
            }
        }
    }
}

/// Takes as many file descriptors as it may have: a client needs two.
fn allow_many_connections() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If that is refused and does not suffice, connections will say so.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
