//! Dead letters: looked at, put back and set aside by `ordersaga dlq`.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use ordersaga_checker::Record;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::bed::{Bed, saga, until};
use crate::invariants;
use crate::poison::event;

/// A program of the workspace beside the tests.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    beside.into_iter().find(|file| file.is_file()).with_context(|| format!("{name} is not built"))
}

/// What a program said and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Said {
    pub(crate) async fn by(mut command: Command) -> Result<Self> {
        let ended = command.stdin(Stdio::null()).output().await?;
        let text = [ended.stdout.as_slice(), &ended.stderr].concat();
        Ok(Self { code: ended.status.code(), text: String::from_utf8(text)? })
    }

    pub(crate) fn expect(self, code: i32, text: &str) -> Result<Self> {
        ensure!(self.code == Some(code), "{:?} instead of {code}: {}", self.code, self.text);
        ensure!(self.text.contains(text), "not {text:?}: {}", self.text);
        Ok(self)
    }
}

fn command(bed: &Bed, words: &str) -> Result<Command> {
    let mut command = Command::new(program("ordersaga-kafka")?);
    command.arg("dlq").args(words.split(' '));
    command.env("KAFKA_BROKERS", &bed.broker).env("KAFKA_TOPIC_PREFIX", &bed.prefix);
    Ok(command)
}

pub(crate) async fn dlq(bed: &Bed, words: &str) -> Result<Said> {
    Said::by(command(bed, words)?).await
}

/// The letters that a `list` shows.
async fn list(bed: &Bed, filters: &str) -> Result<Vec<Value>> {
    let said = dlq(bed, &format!("list --json {filters}")).await?.expect(0, "[")?;
    Ok(serde_json::from_str(&said.text)?)
}

async fn names(bed: &Bed, filters: &str) -> Result<Vec<String>> {
    let letters = list(bed, filters).await?;
    Ok(letters.iter().filter_map(|letter| letter["letter"].as_str().map(str::to_owned)).collect())
}

/// A record that nobody can read; where it will stand if it is the first of its partition.
pub(crate) fn poison(topic: &str, order: i64, payload: &[u8]) -> Result<(Record, String)> {
    let mut record = event(topic, order, 1, &json!({}))?;
    record.payload = payload.to_vec();
    record.headers = vec![("kind".to_owned(), b"poison".to_vec())];
    let place = format!("{topic}/{}/0", record.partition);
    Ok((record, place))
}

#[test]
fn letters_are_listed_shown_and_discarded() -> Result<()> {
    saga(async |bed| {
        let (text, text_place) = poison("incoming", 1, b"{\"version\":1}")?;
        let (bytes, bytes_place) = poison("reset", 2, b"\x1b\xff")?;
        bed.log().write(vec![text, bytes]).await?;
        invariants::at_rest(bed).await?;

        let both = [text_place.clone(), bytes_place.clone()];
        ensure!(names(bed, "--since 1h").await? == both);
        ensure!(names(bed, "--until 1h").await?.is_empty());
        for (filter, place) in [
            ("--topic incoming", &text_place),
            ("--order 2", &bytes_place),
            ("--consumer service-create-order", &bytes_place),
            ("--error missing", &text_place),
            ("--limit 1", &text_place),
        ] {
            let named = names(bed, filter).await?;
            ensure!(named == [place.as_str()], "{filter}: {named:?}");
        }
        let letters = list(bed, "--limit 9").await?;
        let refused_by = |letter: &Value| letter["refusals"].as_array().map_or(0, Vec::len);
        ensure!(refused_by(&letters[0]) == 2 && refused_by(&letters[1]) == 3, "{letters:?}");
        dlq(bed, "list --topic reset").await?.expect(0, &bytes_place)?;
        dlq(bed, &format!("show {text_place}")).await?.expect(0, "{\"version\":1}")?;
        let shown = dlq(bed, &format!("show --json {bytes_place}")).await?.expect(0, "{")?;
        let shown: Value = serde_json::from_str(&shown.text)?;
        ensure!(shown["payload"] == json!({"hex": "1bff"}), "{shown}");
        ensure!(shown["headers"] == json!([{"name": "kind", "value": "poison"}]), "{shown}");
        ensure!(shown["key"] == "2" && shown["attempts"] == 0 && shown["state"] == "open");
        dlq(bed, "show reset/2/7").await?.expect(1, "no letter reset/2/7")?;

        // Nobody is there to be asked, and only asking changes nothing.
        dlq(bed, &format!("discard {bytes_place}")).await?.expect(1, "--yes")?;
        dlq(bed, "discard --dry-run --order 2").await?.expect(0, "would be discarded")?;
        ensure!(names(bed, "--all").await? == both);
        dlq(bed, "discard --yes --order 2").await?.expect(0, "discarded")?;
        ensure!(names(bed, "--topic reset").await?.is_empty());
        ensure!(names(bed, "--all").await? == both);
        ensure!(list(bed, "--all --order 2").await?[0]["state"] == "discarded");
        let replay = format!("replay --yes {bytes_place}");
        dlq(bed, &replay).await?.expect(2, "it was discarded already")?;
        invariants::hold(bed).await
    })
}

#[test]
fn what_anybody_sends_is_shown_in_its_column_and_as_plain_text() -> Result<()> {
    saga(async |bed| {
        // It turns the direction of what follows it on a terminal, and is as long as a key may be.
        let long = "\u{202e}key\u{2028}".repeat(100);
        let (mut record, place) = poison("reset", 2, "a\u{202e}b".as_bytes())?;
        record.key = long.clone().into_bytes();
        record.headers = vec![("kind".to_owned(), long.clone().into_bytes())];
        bed.log().write(vec![record]).await?;
        until("the letter is there", async || Ok(names(bed, "--all").await? == [place.as_str()]))
            .await?;

        let listed = dlq(bed, "list").await?.expect(0, &place)?.text;
        for line in listed.lines() {
            ensure!(line.chars().count() < 300, "{} characters: {line}", line.chars().count());
        }
        let shown = dlq(bed, &format!("show {place}")).await?.expect(0, "a\\u{202e}b")?.text;
        let json = dlq(bed, "list --json").await?.expect(0, "\\u202e")?.text;
        for text in [&listed, &shown, &json] {
            ensure!(!text.contains(['\u{202e}', '\u{2028}']), "{text}");
        }
        let letters: Vec<Value> = serde_json::from_str(&json)?;
        ensure!(letters[0]["key"] == long, "{}", letters[0]["key"]);
        let shown = dlq(bed, &format!("show --json {place}")).await?.expect(0, "a\\u202eb")?.text;
        ensure!(serde_json::from_str::<Value>(&shown)?["payload"] == "a\u{202e}b", "{shown}");
        Ok(())
    })
}

/// Waits for the one open letter, refused by so many.
async fn comes_back(bed: &Bed, consumers: usize, attempts: u64) -> Result<Value> {
    let mut open = Vec::new();
    until("the letter comes back", async || {
        open = list(bed, "--topic reset").await?;
        let refusals = |letter: &Value| letter["refusals"].as_array().map_or(0, Vec::len);
        Ok(open
            .iter()
            .any(|letter| letter["attempts"] == attempts && refusals(letter) == consumers))
    })
    .await?;
    ensure!(open.len() == 1, "{open:?}");
    Ok(open.remove(0))
}

#[test]
fn a_letter_that_is_refused_again_comes_back_once_with_its_attempts_counted() -> Result<()> {
    saga(async |bed| {
        let (record, place) = poison("reset", 1, b"no event")?;
        bed.log().write(vec![record.clone()]).await?;
        for attempt in 1..=4 {
            let back = comes_back(bed, 3, attempt - 1).await?;
            let place = back["letter"].as_str().context("letter")?;
            let mut replay = format!("replay --yes {place}");
            if attempt == 4 {
                dlq(bed, &replay).await?.expect(2, "put back 3 times")?;
                replay += " --max-attempts 4";
            }
            dlq(bed, &format!("{replay} --dry-run")).await?.expect(0, "would be replayed")?;
            let said = dlq(bed, &replay).await?;
            said.expect(0, &format!("{place}: replayed as "))?;
        }
        comes_back(bed, 3, 4).await?;
        invariants::hold(bed).await?;
        // Once for each time it was put back, under its own key and headers.
        let there = bed.log().read(&["reset"]).await?;
        ensure!(there.len() == 5, "{there:?}");
        for (attempt, again) in there.iter().enumerate().skip(1) {
            ensure!(again.key == record.key && again.payload == record.payload, "{again:?}");
            ensure!(again.partition == record.partition && again.headers.len() == 3, "{again:?}");
            ensure!(again.headers[0] == record.headers[0], "{again:?}");
            ensure!(again.header("dead-letter-attempt") == Some(attempt.to_string()), "{again:?}");
            ensure!(again.header("dead-letter-first-offset").as_deref() == Some("0"), "{again:?}");
        }
        let first = list(bed, "--all --limit 1").await?.remove(0);
        ensure!(first["letter"] == place && first["replayed_offset"] == 1, "{first}");
        Ok(())
    })
}

#[test]
fn letters_of_one_order_go_back_in_their_order() -> Result<()> {
    saga(async |bed| {
        let (first, one) = poison("incoming", 1, b"first")?;
        let (second, _) = poison("incoming", 1, b"second")?;
        let (other, _) = poison("incoming", 2, b"another order")?;
        let (partition, two) = (first.partition, one.replace("/0", "/1"));
        bed.log().write(vec![first, second, other]).await?;
        invariants::at_rest(bed).await?;

        let blocked = dlq(bed, &format!("replay --yes {two}")).await?.expect(2, &two)?;
        ensure!(blocked.text.contains(&format!("blocked: {one}, earlier")), "{}", blocked.text);
        dlq(bed, "replay --yes --order 2").await?.expect(0, "replayed as incoming/10/1")?;
        let both = format!("replay --yes {two} {one}");
        dlq(bed, &both).await?.expect(0, "2 to replay, 0 blocked")?;
        invariants::at_rest(bed).await?;
        let records = bed.log().read(&["incoming"]).await?;
        let payloads: Vec<_> = records
            .iter()
            .filter(|record| record.partition == partition)
            .map(|record| String::from_utf8_lossy(&record.payload))
            .collect();
        ensure!(payloads == ["first", "second", "first", "second"], "{payloads:?}");

        // The first alone, which comes back behind the second: it is still the first.
        let [one, two] = [2, 3].map(|offset| format!("incoming/{partition}/{offset}"));
        dlq(bed, &format!("replay --yes {one}")).await?.expect(0, "attempt 2")?;
        invariants::at_rest(bed).await?;
        let one = format!("incoming/{partition}/4");
        ensure!(names(bed, "--order 1").await? == [one.as_str(), two.as_str()]);
        let replay = format!("replay --yes {two}");
        dlq(bed, &replay).await?.expect(2, &format!("{one}, earlier"))?;
        // What is given up blocks nothing.
        dlq(bed, &format!("discard --yes {one}")).await?.expect(0, "discarded")?;
        dlq(bed, &replay).await?.expect(0, "1 to replay, 0 blocked")?;
        invariants::hold(bed).await
    })
}

#[test]
fn an_event_among_the_letters_is_applied_once_however_often_it_is_put_back() -> Result<()> {
    const ORDER: i64 = 1_000;
    saga(async |bed| {
        let item = bed.add_item(5).await?;
        let mut letter = event("incoming", ORDER, item, &json!({"type": "OrderPlaced"}))?;
        let partition = letter.partition.to_string();
        for (name, value) in [
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("dead-letter-topic", "incoming"),
            ("dead-letter-partition", &partition),
            ("dead-letter-offset", "70"),
            ("dead-letter-error", "version 1 was not understood yet"),
            ("dead-letter-consumer", "/service-store"),
            ("dead-letter-time", "2026-01-02T03:04:05.000006Z"),
        ] {
            letter.headers.push((name.to_owned(), value.into()));
        }
        letter.topic = "dead-letter".to_owned();
        bed.log().write(vec![letter]).await?;

        // A crash before it is noted down: the letter is there, and stays open.
        let mut crashing = command(bed, "replay --yes --order 1000")?;
        let crashed = Said::by({
            crashing.env("CRASH_AT", "dlq.before_resolution");
            crashing
        });
        ensure!(crashed.await?.code.is_none(), "it did not crash");
        bed.reaches(ORDER, "SHIPPING").await?;
        ensure!(names(bed, "--order 1000").await?.len() == 1);
        dlq(bed, "replay --yes --order 1000").await?.expect(0, "1 to replay, 0 blocked")?;
        dlq(bed, "replay --yes --all --order 1000").await?.expect(0, "1 to replay, 0 blocked")?;
        ensure!(names(bed, "--order 1000").await?.is_empty());

        invariants::at_rest(bed).await?;
        let records = bed.log().read(&["incoming"]).await?;
        ensure!(records.len() == 3, "{records:?}");
        let trace = |record: &Record| record.header("traceparent").is_some();
        ensure!(records.iter().all(trace), "{records:?}");
        ensure!(bed.item(item).await?["reserved"] == 1);
        ensure!(bed.log().read(&["reservation"]).await?.len() == 1, "it was said again");
        ensure!(list(bed, "--all").await?.len() == 1, "a consumer refused it");
        Ok(())
    })
}
