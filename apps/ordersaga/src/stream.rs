//! Server-Sent Events, as monitoring's stream sends them.

use std::io::{BufRead, BufReader, Lines};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::http::{Http, wait};

/// How often in a row a stream is opened again that tells nothing.
const TRIES: u32 = 5;

/// One event.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    /// What tells the service that this was seen.
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
    /// How long to wait before the stream is opened again.
    retry: Option<Duration>,
}

/// Reads events until `take` says that it has enough. A stream that ends is opened again.
pub(crate) fn follow(
    http: &Http,
    url: &str,
    mut take: impl FnMut(&Event) -> Result<bool>,
) -> Result<()> {
    let (mut seen, mut in_vain) = (None, 0);
    loop {
        let mut pause = Duration::from_secs(1);
        let body = http.open(url, seen.as_deref())?.into_body();
        for event in events(BufReader::new(body.into_reader()).lines()) {
            let Ok(event) = event else { break };
            in_vain = 0;
            pause = event.retry.unwrap_or(pause);
            if take(&event)? {
                return Ok(());
            }
            seen = event.id.or(seen);
        }
        in_vain += 1;
        anyhow::ensure!(in_vain < TRIES, "{url} ends at once, again and again");
        wait(pause.mul_f64(1.0 + fastrand::f64()));
    }
}

/// The events that these lines make.
fn events<B: BufRead>(mut lines: Lines<B>) -> impl Iterator<Item = Result<Event>> {
    std::iter::from_fn(move || {
        let mut event = Event::default();
        loop {
            let line = match lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error.into())),
            };
            if !line.is_empty() {
                if let Err(error) = event.add(&line) {
                    return Some(Err(error));
                }
            } else if event != Event::default() {
                return Some(Ok(std::mem::take(&mut event)));
            }
        }
    })
}

impl Event {
    /// Adds a line that is not empty. What is no field known here is a comment.
    fn add(&mut self, line: &str) -> Result<()> {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "id" => self.id = Some(value.to_owned()),
            "data" => self.data = serde_json::from_str(value).context("an event is no JSON")?,
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_separated_by_empty_lines() -> Result<()> {
        let text = ": hello\n\nevent: order\nid: 17:3\ndata: {\"order_id\":17}\n\n\
                    retry: 2500\nevent: bye\ndata: {}\n\nevent: cut off";
        let read: Vec<_> = events(text.as_bytes().lines()).collect::<Result<_>>()?;
        let order = Event {
            name: "order".to_owned(),
            id: Some("17:3".to_owned()),
            data: json!({"order_id": 17}),
            retry: None,
        };
        assert_eq!(read.len(), 2, "{read:?}");
        assert_eq!(read[0], order);
        assert_eq!(read[1].retry, Some(Duration::from_millis(2500)));
        assert_eq!(read[1].name, "bye");
        Ok(())
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        assert!(events("data: <html>\n\n".as_bytes().lines()).next().unwrap().is_err());
    }
}
