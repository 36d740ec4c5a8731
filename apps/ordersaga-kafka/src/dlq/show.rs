//! Letters for people and for programs. What stands in them was written by anybody: nothing of it
//! reaches a terminal that is not plain text, and in a table it keeps to its column.

use std::borrow::Cow;

use comfy_table::{ContentArrangement, Table, presets};
use ordersaga_contract::cloud_event;
use ordersaga_terminal::{brief, line, lines};
use sagabus::dead_letters::{Letter, Place, Resolution, Verdict};
use serde_json::{Value, json};

use super::book::View;

/// Columns in a table of a topic, a key, a consumer and an error. The system's own topics, keys and
/// consumers fit.
const TOPIC: usize = 40;
const KEY: usize = 40;
const CONSUMER: usize = 40;
const ERROR: usize = 80;
/// Consumers of a letter in a table; there are three.
const CONSUMERS: usize = 8;

/// A table of letters.
pub(crate) fn table(letters: &[View<'_>]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["letter", "key", "attempts", "refused", "by", "state", "error"]);
    for view in letters {
        let filed = view.filed;
        let first = filed.refusals.values().min();
        let error = first.map_or("", |refusal| refusal.error.as_str());
        let by = filed.refusals.keys().take(CONSUMERS).map(|name| brief(name, CONSUMER));
        table.add_row([
            place(view.origin),
            filed.record.key.as_deref().map(|key| brief(&marked(key), KEY)).unwrap_or_default(),
            filed.record.attempts.to_string(),
            first.map(|refusal| cloud_event::time(refusal.time)).unwrap_or_default(),
            by.collect::<Vec<_>>().join("\n"),
            view.resolution.map_or("open", |resolution| resolution.verdict.name()).to_owned(),
            brief(error, ERROR),
        ]);
    }
    table
}

/// A letter as JSON, without its content.
pub(crate) fn json(view: &View<'_>) -> Value {
    let (origin, filed) = (view.origin, view.filed);
    let refusals = filed.refusals.iter().map(|(consumer, refusal)| {
        json!({
            "consumer": consumer, "error": refusal.error, "time": cloud_event::time(refusal.time),
        })
    });
    json!({
        "letter": origin.to_string(),
        "topic": origin.topic,
        "partition": origin.partition,
        "offset": origin.offset,
        "first_offset": filed.record.first_offset,
        "key": bytes_json(filed.record.key.as_deref()),
        "attempts": filed.record.attempts,
        "bytes": filed.record.bytes,
        "state": view.resolution.map_or("open", |resolution| resolution.verdict.name()),
        "resolved": view.resolution.map(|resolution| cloud_event::time(resolution.time)),
        "replayed_offset": view.resolution.and_then(replayed_offset),
        "refusals": refusals.collect::<Vec<_>>(),
    })
}

/// A letter as JSON, with its content.
pub(crate) fn whole_json(view: &View<'_>, letter: &Letter) -> Value {
    let mut whole = json(view);
    let headers = letter.headers.iter();
    let headers =
        headers.map(|(name, value)| json!({"name": name, "value": bytes_json(value.as_deref())}));
    whole["headers"] = headers.collect();
    whole["payload"] = bytes_json(letter.payload.as_deref());
    whole
}

/// A letter as text, with its content.
pub(crate) fn whole(view: &View<'_>, letter: &Letter) -> String {
    let (origin, record) = (view.origin, &view.filed.record);
    let first = format!("{}/{}/{}", origin.topic, origin.partition, record.first_offset);
    let mut whole = vec![
        format!("letter    {}", name(origin)),
        format!("state     {}", state(view)),
        format!("key       {}", record.key.as_deref().map_or_else(none, in_line)),
        format!("attempts  {}, first refused as {}", record.attempts, line(&first)),
        format!("bytes     {}", record.bytes),
        "refused by".to_owned(),
    ];
    for (consumer, refusal) in &view.filed.refusals {
        let time = cloud_event::time(refusal.time);
        whole.push(format!("  {} at {time}: {}", line(consumer), line(&refusal.error)));
    }
    whole.push("headers".to_owned());
    for (name, value) in &letter.headers {
        let value = value.as_deref().map_or_else(none, in_line);
        whole.push(format!("  {}: {value}", line(name)));
    }
    match letter.payload.as_deref().map(text) {
        None => whole.push("payload   none".to_owned()),
        Some(Ok(text)) => whole.extend(["payload".to_owned(), lines(text)]),
        Some(Err(hex)) => whole.extend(["payload, in hexadecimal".to_owned(), hex]),
    }
    whole.join("\n")
}

fn none() -> String {
    "none".to_owned()
}

fn state(view: &View<'_>) -> String {
    let Some(resolution) = view.resolution else { return "open".to_owned() };
    let (verdict, time) = (resolution.verdict.name(), cloud_event::time(resolution.time));
    match replayed_offset(resolution) {
        Some(offset) => {
            let to = Place { offset, ..view.origin.clone() };
            format!("{verdict} at {time} as {}", name(&to))
        }
        None => format!("{verdict} at {time}"),
    }
}

fn replayed_offset(resolution: &Resolution) -> Option<i64> {
    match resolution.verdict {
        Verdict::Replayed(offset) => offset,
        Verdict::Discarded => None,
    }
}

/// Where a letter stood, in a table.
fn place(origin: &Place) -> String {
    format!("{}/{}/{}", brief(&origin.topic, TOPIC), origin.partition, origin.offset)
}

/// Bytes as text if they are text without control characters, and else in hexadecimal.
fn text(bytes: &[u8]) -> Result<&str, String> {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(is_plain));
    let hex = |digits: String, byte: &u8| digits + &format!("{byte:02x}");
    text.ok_or_else(|| bytes.iter().fold(String::new(), hex))
}

/// Bytes within a line.
fn in_line(bytes: &[u8]) -> String {
    line(&marked(bytes))
}

/// Bytes as text, marked where it is hexadecimal.
fn marked(bytes: &[u8]) -> Cow<'_, str> {
    text(bytes).map_or_else(|hex| format!("0x{hex}").into(), Cow::from)
}

/// Where a letter stood, which is its name: whole, since commands take it.
pub(crate) fn name(origin: &Place) -> String {
    line(&origin.to_string())
}

fn bytes_json(bytes: Option<&[u8]>) -> Value {
    match bytes.map(text) {
        None => Value::Null,
        Some(Ok(text)) => json!(text),
        Some(Err(hex)) => json!({"hex": hex}),
    }
}

#[cfg(test)]
mod tests {
    use sagabus::dead_letters::Entry;

    use super::super::book::tests::{book, letter};
    use super::*;

    #[test]
    fn only_plain_text_reaches_the_terminal() {
        assert_eq!(text("{\"a\":\n\t\"ü\"}".as_bytes()), Ok("{\"a\":\n\t\"ü\"}"));
        assert_eq!(text(b"\x1b[2J"), Err("1b5b324a".to_owned()));
        assert_eq!(text(b"\xff\0"), Err("ff00".to_owned()));
        assert_eq!(in_line("a\u{202e}\nb".as_bytes()), "a\\u{202e}\\u{a}b");
        assert_eq!(in_line(b"\xff"), "0xff");
        assert_eq!(bytes_json(Some(b"\xff")), json!({"hex": "ff"}));
        assert_eq!(bytes_json(Some(b"17")), json!("17"));
        assert_eq!(bytes_json(None), Value::Null);
    }

    #[test]
    fn a_table_keeps_its_width_whatever_a_letter_holds() {
        let long = "\u{202e}k".repeat(450_000);
        let foreign = Letter {
            key: Some(long.clone().into_bytes()),
            consumer: long.clone(),
            error: long.clone(),
            origin: Place { topic: long.clone(), partition: 3, offset: 7 },
            headers: vec![(long.clone(), Some(long.clone().into_bytes()))],
            payload: Some(long.into_bytes()),
            ..letter(7, "", 0, 7)
        };
        let book = book([Entry::Letter(foreign.clone()), Entry::Letter(letter(8, "1", 0, 8))]);
        let letters = book.letters();
        let table = table(&letters).to_string();
        for line in table.lines() {
            assert!(line.chars().count() < 300, "{line}");
        }
        let shown = letters.iter().map(|view| whole(view, &foreign)).collect::<String>();
        assert!(!format!("{table}{shown}").contains('\u{202e}'));
    }
}
