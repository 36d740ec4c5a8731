//! A record as a line.

use std::fmt;

use chrono::{DateTime, Utc};
use ordersaga_contract::{Event, Initiator, Topic, cloud_event};
use ordersaga_terminal::brief;
use rdkafka::Message;
use serde_json::{Value, json};

/// Columns of a key and of an error.
const KEY: usize = 24;
const ERROR: usize = 120;

/// Which events are shown.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Wanted {
    /// Only orders of this client
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    client: Option<i64>,
    /// Only this order
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    pub(super) order: Option<i64>,
    /// Only this: PLACED, RESERVED, RELEASED or CANCELLED
    #[arg(long, value_parser = ["PLACED", "RESERVED", "RELEASED", "CANCELLED"], ignore_case = true)]
    fact: Option<String>,
}

/// A record.
#[derive(Debug)]
pub(super) struct Line {
    topic: Topic,
    partition: i32,
    offset: i64,
    /// When the broker had it.
    stored: Option<DateTime<Utc>>,
    key: String,
    /// The event, or why it is none.
    event: Result<Event, String>,
}

impl Line {
    /// A record of one of the saga's topics, whose names begin with `prefix`.
    pub(super) fn of(record: &impl Message, prefix: &str) -> Option<Self> {
        let name = record.topic().strip_prefix(prefix)?;
        let topic = Topic::EVENTS.into_iter().find(|topic| topic.name() == name)?;
        let (key, payload) = (record.key().unwrap_or_default(), record.payload());
        let partition = u32::try_from(record.partition()).ok()?;
        let event = Event::decode(topic, partition, key, payload.unwrap_or_default());
        let stored = record.timestamp().to_millis().and_then(DateTime::from_timestamp_millis);
        Some(Self {
            topic,
            partition: record.partition(),
            offset: record.offset(),
            stored,
            key: String::from_utf8_lossy(key).into_owned(),
            event: event.map_err(|error| error.to_string()),
        })
    }

    /// When it was decided; of what is no event, when it was stored.
    fn time(&self) -> Option<DateTime<Utc>> {
        self.event.as_ref().map_or(self.stored, |event| Some(event.time))
    }

    /// One object in one line.
    pub(super) fn json(&self) -> String {
        let mut all = json!({
            "topic": self.topic.name(),
            "partition": self.partition,
            "offset": self.offset,
            "time": self.time().map(cloud_event::time),
        });
        let more = match &self.event {
            Ok(event) => fields(event),
            Err(error) => json!({"key": self.key, "error": error}),
        };
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
        ordersaga_terminal::json(&all.to_string())
    }
}

fn fields(event: &Event) -> Value {
    let (order, why) = (event.order, event.kind.cancellation());
    let mut fields = json!({
        "order_id": order.order_id.get(),
        "fact": fact(event),
        "client_id": order.client_id.get(),
        "item_id": order.item_id.get(),
        "seller_id": order.seller_id.get(),
        "quantity": order.quantity.get(),
    });
    if let Some(why) = why {
        fields["initiator"] = why.initiator.name().into();
        fields["reason"] = why.reason.name().into();
    }
    fields
}

/// The name that a fact has in the API.
fn fact(event: &Event) -> &'static str {
    match event.kind.fact().event_type() {
        "OrderPlaced" => "PLACED",
        "ItemReserved" => "RESERVED",
        "ReservationReleased" => "RELEASED",
        _ => "CANCELLED",
    }
}

impl fmt::Display for Line {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time().map_or_else(String::new, |time| time.format("%T%.3f").to_string());
        let place = format!("{}/{}:{}", self.topic, self.partition, self.offset);
        write!(to, "{time:12}  {place:24}")?;
        match &self.event {
            Ok(event) => {
                let order = event.order;
                let why = event.kind.cancellation().map_or_else(String::new, |why| {
                    let by = Initiator::name(why.initiator);
                    format!(" by {by} ({})", why.reason.name())
                });
                write!(to, "  order {}  {}{why}", order.order_id, fact(event))?;
                let units = order.quantity.get();
                write!(to, "  client {}  {units} of item {}", order.client_id, order.item_id)
            }
            Err(error) => {
                write!(to, "  NO EVENT, key {}: {}", brief(&self.key, KEY), brief(error, ERROR))
            }
        }
    }
}

impl Wanted {
    /// Whether a line is shown. What is no event has no client and no fact; its key may be an
    /// order's.
    pub(super) fn admits(&self, line: &Line) -> bool {
        match &line.event {
            Ok(event) => {
                let order = event.order;
                self.client.is_none_or(|client| order.client_id.get() == client)
                    && self.order.is_none_or(|id| order.order_id.get() == id)
                    && self.fact.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(fact(event)))
            }
            Err(_) => {
                self.client.is_none()
                    && self.fact.is_none()
                    && self.order.is_none_or(|id| line.key == id.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp;
    use rdkafka::message::OwnedMessage;

    use super::*;

    const CANCELLED: &str = r#"{"version":1,"type":"OrderReset","order_id":17,"item_id":5,
        "seller_id":1,"client_id":7,"quantity":2,"time":"2026-11-23T13:30:00.001507Z",
        "initiator":"store","reason":"OUT_OF_STOCK"}"#;

    fn line(payload: &str) -> Line {
        let order = ordersaga_contract::OrderId::try_from(17).unwrap();
        let partition = i32::try_from(ordersaga_contract::partition_of(order)).unwrap();
        let record = OwnedMessage::new(
            Some(payload.as_bytes().to_vec()),
            Some(b"17".to_vec()),
            "t.reset".to_owned(),
            Timestamp::CreateTime(1_798_000_000_000),
            partition,
            41,
            None,
        );
        assert!(Line::of(&record, "other.").is_none(), "another environment's");
        Line::of(&record, "t.").unwrap()
    }

    #[test]
    fn an_event_is_a_line_with_all_that_it_says() {
        let line = line(CANCELLED);
        let shown = line.to_string();
        assert!(shown.starts_with("13:30:00.001  reset/"), "{shown}");
        let end = "order 17  CANCELLED by store (OUT_OF_STOCK)  client 7  2 of item 5";
        assert!(shown.contains(":41 ") && shown.ends_with(end), "{shown}");
        let json: Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(json["order_id"], 17);
        assert_eq!(json["reason"], "OUT_OF_STOCK");
        assert_eq!(json["time"], "2026-11-23T13:30:00.001507Z");
    }

    #[test]
    fn a_record_that_is_no_event_says_why_and_cannot_move_the_cursor() {
        let line = line("\u{1b}[2J");
        let shown = line.to_string();
        assert!(shown.contains("NO EVENT, key 17: not an event"), "{shown}");
        assert!(!shown.contains('\u{1b}'));
        assert!(serde_json::from_str::<Value>(&line.json()).unwrap()["error"].is_string());
    }

    #[test]
    fn only_what_is_wanted_is_shown() {
        let event = line(CANCELLED);
        let poison = line("{}");
        let wanted = |client, order, fact: Option<&str>| Wanted {
            client,
            order,
            fact: fact.map(str::to_owned),
        };
        assert!(Wanted::default().admits(&event) && Wanted::default().admits(&poison));
        assert!(wanted(Some(7), Some(17), Some("cancelled")).admits(&event));
        for other in [wanted(Some(8), None, None), wanted(None, Some(18), None)] {
            assert!(!other.admits(&event) && !other.admits(&poison));
        }
        assert!(!wanted(None, None, Some("PLACED")).admits(&event));
        assert!(wanted(None, Some(17), None).admits(&poison), "its key is the order's");
    }
}
