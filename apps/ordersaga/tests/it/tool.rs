//! The tool from outside: as it is installed, what its help teaches, what it says to scripts.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Service, TemporaryFolder};
use serde_json::Value;

use crate::bed::block_on;
use crate::up::Up;

pub(crate) const TOOL: &str = env!("CARGO_BIN_EXE_ordersaga");
/// Where the fields of what it says to scripts are documented.
const FIELDS: &str = include_str!("../../../../docs/operations.md");
/// Fields whose content is not the tool's own.
const FOREIGN: [&str; 4] = ["record", "body", "answer", "config"];
/// Commands that other programs carry out, and these.
const HANDED_OVER: [(&str, &str, &[&str]); 8] = [
    ("attack", "ordersaga-attack", &[]),
    ("bench", "ordersaga-bench", &[]),
    ("chaos", "ordersaga-chaos", &[]),
    ("dlq", "ordersaga-kafka", &["dlq"]),
    ("events", "ordersaga-kafka", &["events"]),
    ("load", "ordersaga-load", &[]),
    ("model", "ordersaga-model", &[]),
    ("retention", "ordersaga-retention", &[]),
];

/// Examples that take no time and change nothing, but for a demo's order.
const CHEAP: [&str; 21] = [
    "status",
    "status --exit-when-ready",
    "status --json",
    "logs",
    "logs broker --lines 200",
    "logs --json",
    "demo",
    "demo --json",
    "topics describe",
    "topics describe --json",
    "dlq list",
    "dlq replay --since 2h --dry-run",
    "retention --dry-run",
    "retention --older-than 120d",
    "retention --dry-run --json",
    "capacity --scenario sale --section limits",
    "capacity --constants",
    "attack --list",
    "bench --list",
    "openapi check",
    "help load",
];

/// The tool, which builds nothing: whoever runs these tests has built everything.
pub(crate) fn tool<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut tool = Command::new(TOOL);
    tool.args(arguments).env("CARGO", "true");
    tool
}

pub(crate) fn said(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8(succeeds(command)?.stdout)?)
}

fn succeeds(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let [out, error] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    ensure!(output.status.success(), "{command:?}: {}: {error}{out}", output.status);
    Ok(output)
}

/// Commands that the help shows.
fn commands() -> Result<Vec<String>> {
    let help = said(&mut tool(["--help"]))?;
    let lists = help.split("\n\n").filter(|part| !part.starts_with("Options:"));
    let lines = lists.flat_map(str::lines).filter_map(|line| line.strip_prefix("  "));
    Ok(lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// The command lines that a command's help teaches, without the tool's name.
fn examples(command: &str) -> Result<Vec<Vec<String>>> {
    let help = said(&mut tool(["help", command]))?;
    let (_, examples) = help.rsplit_once("Examples:\n").context(help.clone())?;
    let lines = examples.lines().filter_map(|line| line.trim().split("  ").next());
    Ok(lines.map(|line| line.split(' ').skip(1).map(str::to_owned).collect()).collect())
}

#[test]
fn every_command_teaches_by_examples() -> Result<()> {
    let commands = commands()?;
    ensure!(commands.len() >= 20, "{commands:?}");
    for command in &commands {
        ensure!(!examples(command)?.is_empty(), "{command}");
        ensure!(said(&mut tool(["help", command]))? == said(&mut tool([command, "--help"]))?);
    }
    Ok(())
}

#[test]
fn other_programs_understand_the_examples_of_their_commands() -> Result<()> {
    let folder = Path::new(TOOL).parent().context("a program without a folder")?;
    for (command, program, before) in HANDED_OVER {
        let help = said(&mut tool(["help", command]))?;
        let own = said(Command::new(folder.join(program)).args(before).arg("--help"))?;
        ensure!(help.starts_with(&own), "`help {command}` is not that of {program}:\n{help}");
        for example in examples(command)? {
            // They read all that stands before it, and do nothing.
            let mut program = Command::new(folder.join(program));
            let read = program.args(before).args(&example[1..]).arg("--help");
            ensure!(said(read)?.contains("Usage:"), "{example:?}");
        }
        let mut unknown = Command::new(folder.join(program));
        let unknown = unknown.args(before).args(["--no-such-option", "--help"]).output()?;
        ensure!(!unknown.status.success(), "{command} reads anything");
    }
    Ok(())
}

/// A home folder into which the tool is installed.
struct Home(TemporaryFolder);

impl Home {
    fn new() -> Result<Self> {
        Ok(Self(TemporaryFolder::new("home")?))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn link(&self) -> PathBuf {
        self.path().join(".local/bin/ordersaga")
    }

    /// A command in another folder than the workspace's, with nothing to build by.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", self.path().join(".local/bin").display());
        command.current_dir("/").env_clear().env("HOME", self.path()).env("PATH", path);
        command
    }

    fn install(&self, arguments: &[&str]) -> Command {
        let mut install = self.command(TOOL);
        install.args(["install", "--tool"]).args(arguments);
        install
    }

    /// What bash offers for the last word.
    fn completed(&self, words: &[&str]) -> Result<Vec<String>> {
        let script = r#"source ~/.local/share/bash-completion/completions/ordersaga
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
            _clap_complete_ordersaga ordersaga "${@: -1}" "${@: -2:1}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let mut bash = self.command("bash");
        let said = said(bash.args(["-euc", script, "bash", "ordersaga"]).args(words))?;
        Ok(said.split(|c: char| c.is_whitespace() || c == '\u{b}').map(str::to_owned).collect())
    }
}

#[test]
fn it_is_installed_with_completion_and_man_pages() -> Result<()> {
    let home = Home::new()?;
    let first = said(&mut home.install(&[]))?;
    ensure!(std::fs::read_link(home.link())? == Path::new(TOOL).canonicalize()?);
    for file in [
        ".local/share/zsh/site-functions/_ordersaga",
        ".config/fish/completions/ordersaga.fish",
        ".local/share/man/man1/ordersaga-load.1",
    ] {
        ensure!(home.path().join(file).is_file(), "{file} is missing: {first}");
    }
    ensure!(!first.contains("not on PATH"), "{first}");
    ensure!(said(&mut home.install(&[]))? == first, "it says something else the second time");
    let version = said(home.command("ordersaga").arg("--version"))?;
    ensure!(version.starts_with("ordersaga "), "{version}");

    std::fs::remove_file(home.link())?;
    std::fs::write(home.link(), "precious")?;
    ensure!(!home.install(&[]).output()?.status.success(), "it was overwritten");
    ensure!(std::fs::read(home.link())? == b"precious");
    succeeds(&mut home.install(&["--force"]))?;
    let elsewhere = home.path().join("elsewhere");
    let told = said(home.install(&["--bin-dir"]).arg(&elsewhere))?;
    ensure!(told.contains("is not on PATH") && elsewhere.join("ordersaga").is_symlink(), "{told}");
    Ok(())
}

#[test]
fn bash_completes_commands_values_and_what_other_programs_take() -> Result<()> {
    let home = Home::new()?;
    succeeds(&mut home.install(&[]))?;
    for (words, offered) in [
        (&["sta"][..], "status"),
        (&["help", "exit"], "exit-codes"),
        (&["logs", "service-st"], "service-store"),
        (&["logs", "sh"], "shard2"),
        (&["sdk", "openapi-generator-r"], "openapi-generator-rust"),
        (&["capacity", "--scenario", "to"], "today"),
        (&["capacity", "--section", "li"], "limits"),
        (&["simulate", "--scenario", "hot"], "hot-item"),
        (&["load", "--conn"], "--connections"),
        (&["load", "--data", "/tmp", "--wa"], "--wait"),
        (&["bench", "--only", "saturation-2"], "saturation-256"),
        (&["attack", "--only", "al"], "all"),
        (&["dlq", "rep"], "replay"),
        (&["dlq", "list", "--topic", "res"], "reset"),
        (&["model", "--with"], "--without"),
    ] {
        let all = home.completed(words)?;
        ensure!(all.iter().any(|one| one == offered), "{words:?}: {all:?}");
    }
    // It was asked for what begins with that.
    ensure!(!home.completed(&["sta"])?.contains(&"up".to_owned()));
    Ok(())
}

/// Fields that a document has, those of others' content not counted.
fn fields(document: &Value, found: &mut BTreeSet<String>) {
    match document {
        Value::Array(all) => all.iter().for_each(|one| fields(one, found)),
        Value::Object(all) => {
            for (name, value) in all {
                found.insert(name.clone());
                match value {
                    _ if FOREIGN.contains(&name.as_str()) => {}
                    // By their names.
                    Value::Object(shards) if name == "shards" => {
                        shards.values().for_each(|one| fields(one, found));
                    }
                    value => fields(value, found),
                }
            }
        }
        _ => {}
    }
}

/// Fields that the document says a command has.
fn documented(command: &str) -> Result<BTreeSet<String>> {
    let start = format!("| {command} | ");
    let row = FIELDS.lines().find_map(|line| line.strip_prefix(&start)).context(start.clone())?;
    Ok(row.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Runs a command that says something to scripts, and holds it to the document.
fn as_documented(command: &str, arguments: &[&str], data: &Path) -> Result<Value> {
    let words = command.split(' ').chain(["--json"]).chain(arguments.iter().copied());
    let mut run = tool(words);
    if !matches!(command, "demo" | "topics describe") {
        // Before what is handed over.
        run = tool(command.split(' '));
        run.arg("--data").arg(data).arg("--json").args(arguments);
    }
    let output = succeeds(&mut run)?;
    let text = String::from_utf8(output.stdout)?;
    let lines = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let document: Value = lines.collect::<Result<Vec<_>, _>>().context(text.clone())?.into();
    let mut found = BTreeSet::new();
    fields(&document, &mut found);
    ensure!(found == documented(command)?, "{command}: {found:?}");
    Ok(document)
}

#[test]
fn on_a_running_stack_it_says_what_is_documented() -> Result<()> {
    block_on(async {
        let mut up = Up::start().await?;
        let data = up.data();
        let path = data.to_str().context("a folder without a name")?.to_owned();
        let broker = format!("127.0.0.1:{}", up.state()?["parts"]["broker"]);
        let says = |command: &str, arguments: &[&str]| as_documented(command, arguments, &data);

        let status = says("status", &[])?;
        ensure!(status[0]["is_ready"] == true && status[0]["phase"] == "ready", "{status}");
        let urls =
            [Service::CreateOrder, Service::Monitoring, Service::Store].map(|one| up.url(one));
        let [create, monitoring, store] = urls;
        let (create, monitoring, store) = (create?, monitoring?, store?);
        let services = ["--create-order", &create, "--monitoring", &monitoring, "--store", &store];
        let demo = says("demo", &services)?;
        ensure!(demo[0]["is_good"] == true, "{demo}");
        let topics = says("topics describe", &["--brokers", &broker])?;
        ensure!(topics[0]["is_complete"] == true, "{topics}");
        let retention = says("retention", &["--dry-run"])?;
        ensure!(retention[0]["is_dry_run"] == true, "{retention}");
        let logs = says("logs", &[])?;
        let is_of =
            |name| logs.as_array().into_iter().flatten().any(|line| line["process"] == name);
        ensure!(is_of("service-store") && is_of("redis"), "{logs}");

        for line in CHEAP {
            let taught = examples(line.split(' ').next().unwrap_or_default())?;
            let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            ensure!(taught.contains(&words), "no help teaches `{line}`");
            let options = match words[0].as_str() {
                "status" | "logs" | "dlq" | "retention" => vec!["--data".into(), path.clone()],
                "topics" => vec!["--brokers".into(), broker.clone()],
                "demo" => services.map(str::to_owned).into(),
                _ => Vec::new(),
            };
            words.splice(1..1, options);
            ensure!(!said(&mut tool(&words))?.is_empty(), "{line}");
        }

        let down = says("down", &[])?;
        ensure!(down[0]["was_running"] == true && down[0]["was_killed"] == false, "{down}");
        up.ends().await?;
        let down = says("down", &[])?;
        ensure!(down[0]["was_running"] == false, "{down}");
        Ok(())
    })
}
