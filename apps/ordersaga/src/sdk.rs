//! `sdk`: a package of clients for the three services in a language, made by a generator of fixed
//! version from the committed API documents.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use ordersaga_devstack::{cache_folder, programs};

use crate::cargo;
use crate::progress::report;

/// What the command ends with if the machine lacks a program.
const LACKS_A_PROGRAM: u8 = 3;

const EXIT_CODES: &str =
    "Exits with 0, 1 after an error, 2 for wrong arguments, 3 if a program is missing or too old.";

/// Arguments of `sdk`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// For which language, or by which generator
    client: Client,
    /// The folder to make, or to fill if it is empty
    #[arg(long)]
    out: PathBuf,
}

/// A kind of client: its name is that of its folder in openapi/sdk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    /// By openapi-typescript, for openapi-fetch
    Typescript,
    /// By openapi-python-client
    Python,
    /// By oapi-codegen
    Go,
    /// By progenitor
    Rust,
    /// By openapi-generator, for the JDK's own HTTP client
    Java,
    /// By @hey-api/openapi-ts, in TypeScript
    HeyApi,
    /// By openapi-generator, in Python
    OpenapiGeneratorPython,
    /// By openapi-generator, in TypeScript for fetch
    OpenapiGeneratorTypescript,
    /// By openapi-generator, in Go
    OpenapiGeneratorGo,
    /// By openapi-generator, in Rust
    OpenapiGeneratorRust,
}

/// A program with the argument that makes it say its version, and the oldest version that will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Need {
    program: &'static str,
    asked: &'static str,
    since: (u32, u32),
}

const NODE: Need = Need { program: "node", asked: "--version", since: (18, 17) };
const NODE_20: Need = Need { since: (20, 0), ..NODE };
const NPM: Need = Need { program: "npm", asked: "--version", since: (9, 0) };
const PYTHON: Need = Need { program: "python3", asked: "--version", since: (3, 11) };
const GO: Need = Need { program: "go", asked: "version", since: (1, 23) };
const GO_1_26: Need = Need { since: (1, 26), ..GO };
const CARGO: Need = Need { program: "cargo", asked: "--version", since: (1, 95) };
const JAVA: Need = Need { program: "java", asked: "--version", since: (11, 0) };
const JAVAC: Need = Need { program: "javac", asked: "--version", since: (17, 0) };
const MAVEN: Need = Need { program: "mvn", asked: "--version", since: (3, 6) };

impl Client {
    /// What its generator and its README need.
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Typescript => &[NODE, NPM],
            Self::Python => &[PYTHON],
            Self::Go => &[GO_1_26],
            Self::Rust => &[CARGO],
            Self::Java => &[JAVAC, MAVEN],
            Self::HeyApi => &[NODE_20, NPM],
            Self::OpenapiGeneratorPython => &[JAVA, MAVEN, PYTHON],
            Self::OpenapiGeneratorTypescript => &[JAVA, MAVEN, NODE, NPM],
            Self::OpenapiGeneratorGo => &[JAVA, MAVEN, GO],
            Self::OpenapiGeneratorRust => &[JAVA, MAVEN, CARGO],
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}

impl Need {
    /// What is wrong with the machine's program, if something is.
    fn lacks(&self) -> Option<String> {
        let Self { program, asked, since: (major, minor) } = self;
        let wanted = format!("{program} {major}.{minor} or newer is needed");
        let Some(found) = programs::find(program) else {
            return Some(format!("{wanted}, and there is none"));
        };
        let said = ordersaga_devstack::run(Command::new(found).arg(asked));
        let version = said.ok().as_deref().and_then(version);
        if version.is_some_and(|version| version >= self.since) {
            return None;
        }
        let found =
            version.map_or("unknown".to_owned(), |(major, minor)| format!("{major}.{minor}"));
        Some(format!("{wanted}; the version here is {found}"))
    }
}

/// The first two numbers of a text that are joined by a point.
fn version(text: &str) -> Option<(u32, u32)> {
    let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    words.into_iter().find_map(|word| {
        let mut numbers = word.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    })
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { client, out } = arguments;
    let lacks: Vec<_> = client.needs().iter().filter_map(Need::lacks).collect();
    if !lacks.is_empty() {
        say_error!("ordersaga: {}", lacks.join("\n"));
        return Ok(ExitCode::from(LACKS_A_PROGRAM));
    }
    let is_empty = std::fs::read_dir(&out).map_or(true, |mut entries| entries.next().is_none());
    ensure!(is_empty, "{} is not empty: name another folder", out.display());
    let folder = cargo::root().join("openapi/sdk");
    let make = {
        let out = out.clone();
        async move {
            let made = tokio::task::spawn_blocking(move || {
                copy(&folder.join(client.to_string()), &out)?;
                generate(client, &folder, &out)
            });
            made.await?
        }
    };
    if let Err(error) = report().step(&format!("Clients by {client}"), make).await {
        // Half a package would keep the next try from its folder.
        let _ = std::fs::remove_dir_all(&out);
        return Err(error);
    }
    say!("{} says how to compile and use them.", out.join("README.md").display());
    Ok(ExitCode::SUCCESS)
}

fn generate(client: Client, folder: &Path, out: &Path) -> Result<()> {
    let mut bash = Command::new("bash");
    bash.arg(folder.join("generate")).arg(client.to_string()).current_dir(out);
    bash.env("DOCUMENTS", cargo::root().join("openapi"));
    bash.env("TOOLS", cache_folder()?.join("sdk"));
    ordersaga_devstack::run(&mut bash).map(drop)
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in
        std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?
    {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        for (said, found) in [
            ("v20.20.2\n", Some((20, 20))),
            ("go version go1.26.8 linux/amd64", Some((1, 26))),
            ("cargo 1.95.0 (f2d3ce0bd 2026-03-21)", Some((1, 95))),
            ("openjdk 17.0.15 2025-04-15", Some((17, 0))),
            ("Apache Maven 3.8.7\nJava version: 17", Some((3, 8))),
            ("none", None),
        ] {
            assert_eq!(version(said), found, "{said}");
        }
    }

    #[test]
    fn each_client_has_its_folder_and_each_folder_its_client() {
        let folder = cargo::root().join("openapi/sdk");
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
        let mut folders: Vec<_> = entries
            .filter(|entry| entry.file_type().unwrap().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        folders.sort_unstable();
        let mut names: Vec<_> = Client::value_variants().iter().map(Client::to_string).collect();
        names.sort_unstable();
        assert_eq!(folders, names);
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = Need { program: "no-such-program", asked: "--version", since: (1, 2) };
        assert_eq!(
            none.lacks().unwrap(),
            "no-such-program 1.2 or newer is needed, and there is none"
        );
        let future = Need { since: (999, 0), ..CARGO };
        assert!(
            future
                .lacks()
                .unwrap()
                .starts_with("cargo 999.0 or newer is needed; the version here is 1.")
        );
        assert_eq!(CARGO.lacks(), None);
    }
}
