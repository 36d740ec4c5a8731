//! What to remove, and where.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ordersaga_runtime::config::{self, Secret, SecretParser};
use ordersaga_runtime::topics::TopicsFile;

/// Seconds of a day.
const DAY: u64 = 86_400;
const ANY: SecretParser = SecretParser { prefixes: &[] };

/// Removes the facts of old, finished orders from the shards; their status is 404 from then on.
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
#[derive(Parser, Debug)]
#[command(name = "ordersaga-retention", version, about)]
pub(crate) struct Config {
    /// The shards under their owner's role, as name=URL,name=URL: the variable and the form that
    /// service-monitoring-order has.
    #[arg(long, env = "SHARDS_MIGRATION", hide_env_values = true, value_delimiter = ',',
          required = true, value_parser = ANY)]
    shards: Vec<Secret>,
    /// Age of an order's newest fact from which on the order goes, such as 90d.
    #[arg(long, value_name = "AGE", default_value = "90d", value_parser = humantime::parse_duration)]
    pub(crate) older_than: Duration,
    /// Orders that are SHIPPING go as well. They can still be cancelled: of such an order only what
    /// follows the cancellation is known afterwards.
    #[arg(long)]
    pub(crate) include_shipping: bool,
    /// Accept an age that is shorter than what the topics keep: a topic read again or a letter
    /// replayed may then bring back a part of a removed order.
    #[arg(long)]
    below_topic_retention: bool,
    /// Only say what would be removed.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Say at the end what was found, as JSON, and nothing before.
    #[arg(long)]
    pub(crate) json: bool,
    /// Orders looked at by one transaction.
    #[arg(long, value_name = "ORDERS", default_value = "5000",
          value_parser = clap::value_parser!(i64).range(1..=100_000))]
    pub(crate) batch: i64,
    /// Milliseconds between two transactions that removed something.
    #[arg(long, value_name = "MILLISECONDS", default_value = "50",
          value_parser = config::milliseconds)]
    pub(crate) pause_ms: Duration,
    /// Another file of topics than the one built in.
    #[arg(long, value_name = "FILE")]
    topics: Option<PathBuf>,
}

/// A node that holds facts.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) name: String,
    pub(crate) url: Secret,
}

impl Config {
    /// Refuses an age below what the topics keep: whoever reads such a topic again would add the
    /// facts that are still there to an order whose other facts are gone.
    pub(crate) fn check(&self) -> Result<()> {
        if self.below_topic_retention {
            return Ok(());
        }
        let file = match &self.topics {
            Some(path) => TopicsFile::load(path)?,
            None => TopicsFile::embedded()?,
        };
        let kept = file.longest_life().context(
            "a topic keeps its records without a bound: what is removed may come back \
             (--below-topic-retention accepts that)",
        )?;
        ensure!(
            self.older_than >= kept,
            "the topics may keep a record for {} days, longer than {}: what is removed may come \
             back (--below-topic-retention accepts that)",
            kept.as_secs().div_ceil(DAY),
            humantime::format_duration(self.older_than),
        );
        Ok(())
    }

    /// The shards by their names. No error repeats a URL.
    pub(crate) fn shards(&self) -> Result<Vec<Shard>> {
        let shards = self.shards.iter().map(|shard| {
            let (name, url) =
                shard.expose().trim().split_once('=').context("--shards: name=URL is expected")?;
            let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
            ensure!(is_url, "--shards: the URL of {name} begins with postgres://");
            Ok(Shard { name: name.to_owned(), url: Secret::new(url) })
        });
        shards.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> Config {
        let shards = "a=postgres://o:hush@h/d, b=postgres://o:hush@h/e";
        let program = ["ordersaga-retention", "--shards", shards];
        Config::try_parse_from(program.iter().chain(arguments)).unwrap()
    }

    #[test]
    fn nothing_younger_than_what_the_topics_keep_is_touched_unless_told() {
        // 30 days of dead-letter, and two weeks that a segment may take to fill.
        let error = config(&["--older-than", "43d"]).check().unwrap_err().to_string();
        assert!(error.contains("for 44 days"), "{error}");
        assert!(config(&["--older-than", "44d"]).check().is_ok());
        assert!(config(&[]).check().is_ok(), "the default is refused");
        let told = config(&["--older-than", "1s", "--below-topic-retention"]);
        assert!(told.check().is_ok());
    }

    #[test]
    fn shards_are_named_urls_and_no_error_repeats_them() {
        let shards = config(&[]).shards().unwrap();
        assert_eq!(
            (shards[1].name.as_str(), shards[1].url.expose()),
            ("b", "postgres://o:hush@h/e")
        );
        for wrong in ["postgres:hush", "a=mysql://o:hush@h/d"] {
            let config = Config::try_parse_from(["", "--shards", wrong]).unwrap();
            let error = config.shards().unwrap_err().to_string();
            assert!(error.contains("--shards") && !error.contains("hush"), "{error}");
        }
        assert!(!format!("{:?}", config(&[])).contains("hush"));
    }
}
