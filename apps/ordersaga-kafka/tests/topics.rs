//! `topics apply` against a real broker: creates, repeats, alters, refuses.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result};

const FILE: &str = "[topics.orders]\nco_partitioned = true\npartitions = 3\n\
                    config = { \"cleanup.policy\" = \"delete\", \"retention.ms\" = 60_000 }\n";

struct Topics {
    broker: String,
    prefix: &'static str,
    folder: tempfile::TempDir,
}

impl Topics {
    fn run(&self, action: &str, file: &str) -> Result<Output> {
        let path = self.folder.path().join("topics.toml");
        std::fs::write(&path, file)?;
        run(action, &self.broker, self.prefix, Some(&path))
    }
}

fn run(action: &str, broker: &str, prefix: &str, file: Option<&Path>) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ordersaga-kafka"));
    command.args(["topics", action, "--brokers", broker, "--prefix", prefix]);
    if let Some(file) = file {
        command.arg("--file").arg(file);
    }
    command.output().context("cannot start ordersaga-kafka")
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

#[tokio::test]
async fn makes_topics_what_the_file_says() -> Result<()> {
    let parts = ordersaga_devstack::shared().await?;
    let topics = Topics {
        broker: parts.broker_address(),
        prefix: "topics-test.",
        folder: tempfile::tempdir()?,
    };

    let missing = topics.run("describe", FILE)?;
    assert!(!missing.status.success());
    let created = topics.run("apply", FILE)?;
    assert_eq!(said(&created), "topics-test.orders: created with 3 partitions");
    let again = topics.run("apply", FILE)?;
    assert_eq!(said(&again), "all topics are as they should be");

    let altered = topics.run("apply", &FILE.replace("60_000", "70_000"))?;
    assert_eq!(said(&altered), "topics-test.orders: retention.ms was 60000, is 70000");
    let state = topics.run("describe", FILE)?;
    assert!(said(&state).contains("3 partitions"), "{}", said(&state));
    assert!(said(&state).contains("retention.ms=70000"), "{}", said(&state));

    let refused = topics.run("apply", &FILE.replace("= 3", "= 4"))?;
    assert!(!refused.status.success());
    assert!(said(&refused).contains("has 3 partitions, not 4; it is co-partitioned"));
    Ok(())
}

#[tokio::test]
async fn makes_the_topics_built_in() -> Result<()> {
    let broker = ordersaga_devstack::shared().await?.broker_address();
    let applied = run("apply", &broker, "built-in.", None)?;
    assert!(applied.status.success(), "{}", said(&applied));
    let state = said(&run("describe", &broker, "built-in.", None)?);
    for topic in ["incoming", "reservation", "reset", "dead-letter"] {
        let line = state.lines().find(|line| line.starts_with(&format!("built-in.{topic} ")));
        assert!(line.is_some_and(|line| line.contains(" 16 partitions")), "{state}");
    }
    Ok(())
}
