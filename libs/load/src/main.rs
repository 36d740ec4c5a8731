//! `ordersaga-load`: puts load on a running system and tells how it took it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use ordersaga_load::{Plan, Watch, run};

/// Prints a line. Nothing is wrong when nobody reads it, as after `| head`.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Puts load on a running system.
#[derive(Parser, Debug)]
#[command(name = "ordersaga load", version)]
struct Arguments {
    #[command(flatten)]
    plan: Plan,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ordersaga load: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn start(arguments: &Arguments) -> Result<ExitCode> {
    let report = run(&arguments.plan, &Watch::default(), |_| {})?;
    let json = serde_json::to_string_pretty(&report)?;
    match &arguments.json {
        None => say!("{json}"),
        Some(file) => {
            std::fs::write(file, json)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    let holds = report.checks.is_none_or(|checks| checks.hold());
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
