//! The `AsyncAPI` 3.0 document: topics, messages, and which service sends or receives what.
//!
//! <https://www.asyncapi.com/docs/reference/specification/v3.0.0> and, for partitions, keys and
//! groups, its Kafka bindings 0.5.0.

use ordersaga_contract::schema::EventSchema;
use ordersaga_contract::{Initiator, Topic, cloud_event};
use ordersaga_runtime::topics::TopicsFile;
use sagabus::dead_letters::header;
use serde_json::{Map, Value, json};

const BINDING: &str = "0.5.0";
const ORDER_ID: &str = "^[1-9][0-9]{0,18}$";

/// What a service follows. What it sends, events say themselves ([`ordersaga_contract::Fact::writer`]).
struct Service {
    name: &'static str,
    group: &'static str,
    receives: &'static [Topic],
}

const SERVICES: [Service; 3] = [
    Service {
        name: "service-create-order",
        group: "create-order",
        receives: &[Topic::Reservation, Topic::Reset],
    },
    Service { name: "service-store", group: "storage", receives: &[Topic::Incoming, Topic::Reset] },
    Service { name: "service-monitoring-order", group: "monitoring", receives: &Topic::EVENTS },
];

/// The operator's tool: reads dead letters, says what became of them, puts records back.
const OPERATOR: &str = "ordersaga-kafka";
const LETTER: &str = "DeadLetter";
const RESOLUTION: &str = "DeadLetterResolution";

pub(super) fn document(events: &[EventSchema], topics: &TopicsFile) -> Value {
    let mut operations = Map::new();
    for service in &SERVICES {
        sends(service, events, &mut operations);
        receives(service, events, &mut operations);
    }
    of_operator(&mut operations);
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:ordersaga:events",
        "info": {
            "title": "ordersaga events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "The broker of `cargo ordersaga up`.",
            },
            "compose": {
                "host": "127.0.0.1:19092",
                "protocol": "kafka",
                "description": "Redpanda of the compose file, as seen from the host.",
                "security": [{ "$ref": "#/components/securitySchemes/scram" }],
            },
        },
        "channels": channels(events, topics),
        "operations": operations,
        "components": {
            "messages": messages(events),
            "securitySchemes": {
                "scram": {
                    "type": "scramSha256",
                    "description": "A user of redpanda/access.toml with its password.",
                },
            },
        },
    })
}

const INTRODUCTION: &str = "\
Events of the saga between its three services, each keyed by its order's id and in the partition \
that PostgreSQL's hash of that id gives among 16, so that the events of an order keep their order. \
An event is delivered at least once; `ce_id` is the same each time.\n\n\
Schemas say what is written today. A reader ignores fields it does not know and refuses a \
`version` it does not know. What no reader understands goes to `dead-letter` with its origin in \
headers.\n\n\
Generated from the code; do not edit.";

fn channels(events: &[EventSchema], topics: &TopicsFile) -> Value {
    let all = Topic::EVENTS.into_iter().chain([Topic::DeadLetter]);
    all.map(|topic| (topic.name().to_owned(), channel(topic, events, topics)))
        .collect::<Map<_, _>>()
        .into()
}

fn channel(topic: Topic, events: &[EventSchema], topics: &TopicsFile) -> Value {
    let messages: Map<_, _> = names(topic, events)
        .into_iter()
        .map(|name| (name.to_owned(), reference(&format!("components/messages/{name}"))))
        .collect();
    let partitions = topics.partitions(topic.name());
    let mut config = topics.config(topic.name());
    // Several policies are one text in Kafka and a list in the binding.
    if let Some(Value::String(policies)) = config.get("cleanup.policy") {
        let policies: Vec<_> = policies.split(',').collect();
        config["cleanup.policy"] = json!(policies);
    }
    json!({
        "address": topic.name(),
        "description": match topic {
            Topic::Incoming => "New orders.",
            Topic::Reservation => "Stock held for orders, and given back.",
            Topic::Reset => "Orders that are over and are to be compensated.",
            Topic::DeadLetter => "Records that a reader refused, and what became of them.",
        },
        "messages": messages,
        "bindings": {
            "kafka": {
                "topic": topic.name(),
                "partitions": partitions,
                "topicConfiguration": config,
                "bindingVersion": BINDING,
            },
        },
    })
}

fn names(topic: Topic, events: &[EventSchema]) -> Vec<&'static str> {
    match topic {
        Topic::DeadLetter => vec![LETTER, RESOLUTION],
        _ => events.iter().filter(|event| event.topic == topic).map(|event| event.name).collect(),
    }
}

fn sends(service: &Service, events: &[EventSchema], operations: &mut Map<String, Value>) {
    for topic in Topic::EVENTS {
        let sent: Vec<_> = events
            .iter()
            .filter(|event| event.topic == topic)
            .filter(|event| event.facts.iter().any(|fact| fact.writer() == service.name))
            .map(|event| event.name)
            .collect();
        if !sent.is_empty() {
            operation(service.name, "send", topic, &sent, operations);
        }
    }
    operation(service.name, "send", Topic::DeadLetter, &[LETTER], operations);
}

fn receives(service: &Service, events: &[EventSchema], operations: &mut Map<String, Value>) {
    for &topic in service.receives {
        let name = operation(service.name, "receive", topic, &names(topic, events), operations);
        operations[&name]["bindings"] = json!({
            "kafka": {
                "groupId": { "type": "string", "enum": [service.group] },
                "bindingVersion": BINDING,
            },
        });
    }
}

fn of_operator(operations: &mut Map<String, Value>) {
    let dead = Topic::DeadLetter;
    operation(OPERATOR, "receive", dead, &[LETTER, RESOLUTION], operations);
    operation(OPERATOR, "send", dead, &[RESOLUTION], operations);
}

/// Adds an operation and returns its name: `service-store-sends-reset`.
fn operation(
    who: &str,
    action: &str,
    topic: Topic,
    messages: &[&str],
    operations: &mut Map<String, Value>,
) -> String {
    let name = format!("{who}-{action}s-{topic}");
    let of_channel = |message: &&str| reference(&format!("channels/{topic}/messages/{message}"));
    let value = json!({
        "action": action,
        "channel": reference(&format!("channels/{topic}")),
        "messages": messages.iter().map(of_channel).collect::<Vec<_>>(),
        "summary": format!("{who} {action}s {} on {topic}", messages.join(", ")),
        "tags": [{ "name": who }],
    });
    operations.insert(name.clone(), value);
    name
}

fn messages(events: &[EventSchema]) -> Value {
    let mut messages: Map<_, _> =
        events.iter().map(|event| (event.name.to_owned(), event_message(event))).collect();
    messages.insert(LETTER.to_owned(), letter());
    messages.insert(RESOLUTION.to_owned(), resolution());
    messages.into()
}

fn event_message(event: &EventSchema) -> Value {
    let mut payload = event.schema.clone();
    if let Some(payload) = payload.as_object_mut() {
        // AsyncAPI's own schemas have no dialect; what is used here is the same in both.
        payload.remove("$schema");
    }
    let example = &event.example;
    let fact = example.kind.fact();
    json!({
        "name": event.name,
        "title": event.name,
        "summary": event.schema["description"],
        "contentType": "application/json",
        "headers": event_headers(event),
        "payload": payload,
        "bindings": key(&json!({
            "type": "string",
            "pattern": ORDER_ID,
            "description": "The order's id, in decimal.",
        })),
        "examples": [{
            "headers": {
                cloud_event::SPEC_VERSION: "1.0",
                cloud_event::ID: cloud_event::id(example.order.order_id, fact),
                cloud_event::TYPE: event.cloud_event,
                cloud_event::SOURCE: format!("/{}", fact.writer()),
                cloud_event::TIME: cloud_event::time(example.time),
                cloud_event::CONTENT_TYPE: "application/json",
            },
            "payload": event.schema["examples"][0],
        }],
    })
}

fn event_headers(event: &EventSchema) -> Value {
    let mut writers: Vec<_> =
        event.facts.iter().map(|fact| format!("/{}", fact.writer())).collect();
    writers.sort();
    writers.dedup();
    let initiators: Vec<_> =
        event.facts.iter().filter_map(|fact| fact.initiator()).map(Initiator::name).collect();
    let suffix = if initiators.is_empty() {
        String::new()
    } else {
        format!("\\.({})", initiators.join("|"))
    };
    json!({
        "type": "object",
        "description": "CloudEvents 1.0, Kafka protocol binding, binary mode.",
        "properties": {
            cloud_event::SPEC_VERSION: one_of(&["1.0"], "Version of CloudEvents."),
            cloud_event::ID: {
                "type": "string",
                "pattern": format!("^[1-9][0-9]{{0,18}}\\.{}{suffix}$", event.name),
                "description": "The same each time the same thing is said: duplicates are known by it.",
            },
            cloud_event::TYPE: one_of(&[event.cloud_event], "The event's type and version."),
            cloud_event::SOURCE: one_of(&writers, "The service that wrote it."),
            cloud_event::TIME: time("When the writer decided it: the value's `time`."),
            cloud_event::CONTENT_TYPE: one_of(&["application/json"], "The value's media type."),
            cloud_event::TRACEPARENT: {
                "type": "string",
                "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
                "description": "W3C Trace Context, where the request that led to it had one.",
            },
        },
        "required": [
            cloud_event::SPEC_VERSION,
            cloud_event::ID,
            cloud_event::TYPE,
            cloud_event::SOURCE,
            cloud_event::TIME,
            cloud_event::CONTENT_TYPE,
        ],
    })
}

fn letter() -> Value {
    let mut headers = origin_headers("When the reader refused it.");
    headers.insert(header::ERROR.to_owned(), text("Why the reader refused it."));
    headers.insert(header::CONSUMER.to_owned(), text("Which service refused it."));
    headers.insert(
        header::CUT.to_owned(),
        text("Present if not all of the record's headers were kept, which were too long."),
    );
    headers.insert(
        header::ATTEMPT.to_owned(),
        number("Of a record that was put back before: how often."),
    );
    headers.insert(
        header::FIRST_OFFSET.to_owned(),
        number("Of a record that was put back before: its offset when it was first refused."),
    );
    let required = [
        header::TOPIC,
        header::PARTITION,
        header::OFFSET,
        header::ERROR,
        header::CONSUMER,
        header::TIME,
    ];
    json!({
        "name": LETTER,
        "title": "Dead letter",
        "summary": "A record that a reader refused, as it was, with its own headers and these.",
        "contentType": "application/octet-stream",
        "headers": { "type": "object", "properties": headers, "required": required },
        "payload": { "description": "The refused record's value: any bytes." },
        "bindings": key(&json!({ "description": "The refused record's key: any bytes, or none." })),
    })
}

fn resolution() -> Value {
    let mut headers = origin_headers("When it was done.");
    let verdicts = one_of(&["replayed", "discarded"], "What was done about the letter.");
    headers.insert(header::RESOLUTION.to_owned(), verdicts);
    headers.insert(
        header::REPLAYED_OFFSET.to_owned(),
        number("The offset at which it was put back, where that is known."),
    );
    let required =
        [header::RESOLUTION, header::TOPIC, header::PARTITION, header::OFFSET, header::TIME];
    json!({
        "name": RESOLUTION,
        "title": "Resolution of a dead letter",
        "summary": "Says that a letter, known by its origin, is open no more.",
        "contentType": "application/octet-stream",
        "headers": { "type": "object", "properties": headers, "required": required },
        "payload": { "type": "null", "description": "None." },
        "bindings": key(&json!({ "description": "The letter's key, if any." })),
    })
}

fn origin_headers(of_time: &str) -> Map<String, Value> {
    let headers = [
        (header::TOPIC, text("The topic the record stood in, without an environment's prefix.")),
        (header::PARTITION, number("Its partition there.")),
        (header::OFFSET, number("Its offset there.")),
        (header::TIME, time(of_time)),
    ];
    headers.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn key(schema: &Value) -> Value {
    json!({ "kafka": { "key": schema, "bindingVersion": BINDING } })
}

fn one_of(values: &[impl AsRef<str>], description: &str) -> Value {
    let values: Vec<_> = values.iter().map(AsRef::as_ref).collect();
    json!({ "type": "string", "enum": values, "description": description })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

/// A header is text: a number stands in it in decimal.
fn number(description: &str) -> Value {
    json!({ "type": "string", "pattern": "^[0-9]+$", "description": description })
}

fn time(description: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": description })
}

fn reference(path: &str) -> Value {
    json!({ "$ref": format!("#/{path}") })
}

#[cfg(test)]
mod tests {
    use anyhow::Result;
    use ordersaga_contract::schema;

    use super::*;

    fn made() -> Result<Value> {
        Ok(document(&schema::all(), &TopicsFile::embedded()?))
    }

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() -> Result<()> {
        let made = made()?;
        let mut found = Vec::new();
        references(&made, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for path in found {
            let pointer = path.strip_prefix('#').expect("references are local");
            assert!(made.pointer(pointer).is_some(), "{path}");
        }
        Ok(())
    }

    #[test]
    fn examples_are_valid() -> Result<()> {
        let made = made()?;
        for event in schema::all() {
            let message = &made["components"]["messages"][event.name];
            for part in ["headers", "payload"] {
                jsonschema::draft202012::meta::validate(&message[part])
                    .map_err(|error| anyhow::anyhow!("{}.{part}: {error}", event.name))?;
                let validator =
                    jsonschema::options().should_validate_formats(true).build(&message[part])?;
                let example = &message["examples"][0][part];
                assert!(validator.is_valid(example), "{}.{part}: {example}", event.name);
            }
        }
        Ok(())
    }

    #[test]
    fn every_message_is_sent_and_received() -> Result<()> {
        let made = made()?;
        let operations = made["operations"].as_object().expect("operations");
        for (name, channel) in made["channels"].as_object().expect("channels") {
            for message in channel["messages"].as_object().expect("messages").keys() {
                let reference = reference(&format!("channels/{name}/messages/{message}"));
                for action in ["send", "receive"] {
                    let done = operations.values().any(|operation| {
                        operation["action"] == action
                            && operation["messages"]
                                .as_array()
                                .is_some_and(|messages| messages.contains(&reference))
                    });
                    assert!(done, "nobody {action}s {message} on {name}");
                }
            }
        }
        Ok(())
    }
}
