//! Letters for people and for programs. What stands in them was written by anybody: nothing of it
//! reaches a terminal that is not plain text.

use comfy_table::{ContentArrangement, Table, presets};
use ordersaga_contract::cloud_event;
use ordersaga_runtime::dead_letters::{Letter, Resolution, Verdict};
use serde_json::{Value, json};

use super::book::View;

/// Characters of an error in a table.
const LONGEST_ERROR: usize = 80;

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
        let by: Vec<_> = filed.refusals.keys().map(|name| line(name)).collect();
        table.add_row([
            view.origin.to_string(),
            filed.record.key.as_deref().map(brief).unwrap_or_default(),
            filed.record.attempts.to_string(),
            first.map(|refusal| cloud_event::time(refusal.time)).unwrap_or_default(),
            by.join("\n"),
            view.resolution.map_or("open", |resolution| resolution.verdict.name()).to_owned(),
            line(&error.chars().take(LONGEST_ERROR).collect::<String>()),
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
    let mut lines = vec![
        format!("letter    {origin}"),
        format!("state     {}", state(view)),
        format!("key       {}", record.key.as_deref().map_or_else(none, brief)),
        format!("attempts  {}, first refused as {first}", record.attempts),
        format!("bytes     {}", record.bytes),
        "refused by".to_owned(),
    ];
    for (consumer, refusal) in &view.filed.refusals {
        let time = cloud_event::time(refusal.time);
        lines.push(format!("  {} at {time}: {}", line(consumer), line(&refusal.error)));
    }
    lines.push("headers".to_owned());
    for (name, value) in &letter.headers {
        let value = value.as_deref().map_or_else(none, brief);
        lines.push(format!("  {}: {value}", line(name)));
    }
    match letter.payload.as_deref().map(text) {
        None => lines.push("payload   none".to_owned()),
        Some(Ok(text)) => lines.extend(["payload".to_owned(), text.to_owned()]),
        Some(Err(hex)) => lines.extend(["payload, in hexadecimal".to_owned(), hex]),
    }
    lines.join("\n")
}

fn none() -> String {
    "none".to_owned()
}

fn state(view: &View<'_>) -> String {
    let Some(resolution) = view.resolution else { return "open".to_owned() };
    let (name, time) = (resolution.verdict.name(), cloud_event::time(resolution.time));
    match replayed_offset(resolution) {
        Some(offset) => {
            format!("{name} at {time} as {}/{}/{offset}", view.origin.topic, view.origin.partition)
        }
        None => format!("{name} at {time}"),
    }
}

fn replayed_offset(resolution: &Resolution) -> Option<i64> {
    match resolution.verdict {
        Verdict::Replayed(offset) => offset,
        Verdict::Discarded => None,
    }
}

/// Bytes as text if they are plain text, and else in hexadecimal.
fn text(bytes: &[u8]) -> Result<&str, String> {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(is_plain));
    let hex = |digits: String, byte: &u8| digits + &format!("{byte:02x}");
    text.ok_or_else(|| bytes.iter().fold(String::new(), hex))
}

/// Bytes within a line.
fn brief(bytes: &[u8]) -> String {
    text(bytes).map_or_else(|hex| format!("0x{hex}"), line)
}

/// A text within a line.
fn line(text: &str) -> String {
    let escape =
        |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
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
    use super::*;

    #[test]
    fn only_plain_text_reaches_the_terminal() {
        assert_eq!(text("{\"a\":\n\t\"ü\"}".as_bytes()), Ok("{\"a\":\n\t\"ü\"}"));
        assert_eq!(text(b"\x1b[2J"), Err("1b5b324a".to_owned()));
        assert_eq!(text(b"\xff\0"), Err("ff00".to_owned()));
        assert_eq!(line("a\x1bb\n\0"), "a\\u{1b}b\\n\\u{0}");
        assert_eq!(brief(b"\xff"), "0xff");
        assert_eq!(bytes_json(Some(b"\xff")), json!({"hex": "ff"}));
        assert_eq!(bytes_json(Some(b"17")), json!("17"));
        assert_eq!(bytes_json(None), Value::Null);
    }
}
