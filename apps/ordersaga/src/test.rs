//! `test`: all tests, on real parts started for them.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use ordersaga_devstack::{PARTS_VARIABLE, Stack};

use crate::exit_codes::INTERRUPTED;
use crate::progress::{report, seconds};
use crate::{cargo, install};

/// Tells the tests that those are wanted which need the toolchains of other languages.
const ALL_VARIABLE: &str = "ORDERSAGA_TEST_ALL";

/// Arguments of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Do not install what is missing: say how to, and fail
    #[arg(long)]
    no_install: bool,
    /// Try the order desk in a browser, and all generators of clients, too: those of openapi/sdk, as
    /// far as the machine has what they need
    #[arg(long)]
    all: bool,
    /// Passed on to `cargo test`, which tests the whole workspace unless -p names packages
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let begin = Instant::now();
    install::ensure(arguments.no_install)?;
    install::ensure_python(arguments.no_install)?;
    if arguments.all {
        install::ensure_browser(arguments.no_install)?;
    }
    let report = report();
    // Tests start the services' binaries, which `cargo test` does not build for other packages.
    let build = async {
        let build = || cargo::build(&["--workspace", "--bins"]);
        tokio::task::spawn_blocking(build).await?
    };
    let (stack, ()) =
        tokio::try_join!(Stack::temporary_with(&report), report.step("Build", build))?;
    let parts = stack.parts().folder.join("parts.json");
    let mut command = tokio::process::Command::from(cargo::cargo());
    command.arg("test");
    if !names_packages(&arguments.rest) {
        command.arg("--workspace");
    }
    command.args(&arguments.rest).env(PARTS_VARIABLE, parts).kill_on_drop(true);
    if arguments.all {
        command.env(ALL_VARIABLE, "1");
    }
    let mut tests = command.spawn().context("cannot start cargo test")?;
    // Ctrl-C reaches cargo too; this process stays until cargo has ended, then stops the parts.
    let mut interrupted = false;
    let status = loop {
        tokio::select! {
            status = tests.wait() => break status?,
            _ = tokio::signal::ctrl_c() => interrupted = true,
        }
    };
    stack.stop(&report).await?;
    say!("Tests: {status} after {}.", seconds(begin.elapsed()));
    if interrupted {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn names_packages(arguments: &[String]) -> bool {
    let own = arguments.iter().take_while(|argument| *argument != "--");
    own.into_iter().any(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_when_packages_are_named() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(names_packages(&words("-p ordersaga-saga fold")));
        assert!(names_packages(&words("--package=ordersaga-saga")));
        assert!(!names_packages(&words("fold -- -p")));
    }
}
