//! JSON Schemas (draft 2020-12) of the events, made of the types that write and read them.
//!
//! A schema says what a writer of this version writes, and is closed: in a registry with the rule
//! BACKWARD only a closed schema can gain a field. A reader is more lenient and ignores fields it
//! does not know. Ids have no `maximum` ([`crate::id`]), so a schema lets through integers of 2^63
//! and above, which a reader refuses.

use chrono::DateTime;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::event::{VERSION, Wire};
use crate::{
    Cancellation, ClientId, Event, EventKind, Fact, Initiator, ItemId, Order, OrderId, Quantity,
    Reason, SellerId, Topic, cloud_event,
};

/// What is published of one type of event.
#[derive(Debug, Clone)]
pub struct EventSchema {
    /// The event's type, as in the field `type`: `OrderPlaced`.
    pub name: &'static str,
    /// The topic it is written to.
    pub topic: Topic,
    /// Its type in the headers: see [`cloud_event::event_type`].
    pub cloud_event: &'static str,
    /// The facts it tells of: one, or one for each initiator.
    pub facts: Vec<Fact>,
    /// An event of this type.
    pub example: Event,
    /// The JSON Schema of its value.
    pub schema: Value,
}

/// All types of events, in the order an order may meet them.
pub fn all() -> Vec<EventSchema> {
    let reset = Cancellation { initiator: Initiator::Client, reason: Reason::CancelledByClient };
    [
        (EventKind::OrderPlaced, "A client placed an order."),
        (EventKind::ItemReserved, "The store holds stock for the order: it will be shipped."),
        (EventKind::ReservationReleased, "The store gave the order's stock back."),
        (
            EventKind::OrderReset(reset),
            "The order is over. Whoever did something for it undoes that.",
        ),
    ]
    .map(|(kind, meaning)| {
        let mut event = event_schema(kind, meaning);
        // A registry takes another order of fields for another version.
        event.schema.sort_all_objects();
        event
    })
    .into()
}

fn event_schema(kind: EventKind, meaning: &str) -> EventSchema {
    let fact = kind.fact();
    let name = fact.event_type();
    let example = example(kind);
    let mut facts = Fact::ALL.to_vec();
    facts.retain(|other| other.event_type() == name);
    let mut schema = of_all_events();
    schema.insert("title".to_owned(), name.into());
    schema.insert("description".to_owned(), meaning.into());
    schema.insert("additionalProperties".to_owned(), false.into());
    schema.insert("examples".to_owned(), json!([parsed(&example)]));
    narrow(&mut schema, kind);
    EventSchema {
        name,
        topic: fact.topic(),
        cloud_event: cloud_event::event_type(fact),
        facts,
        example,
        schema: Value::Object(schema),
    }
}

/// The schema of the form that all events share.
fn of_all_events() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let generator = settings.with(|settings| settings.inline_subschemas = true).into_generator();
    let schema = generator.into_root_schema_for::<Wire<'_>>().to_value();
    let Value::Object(schema) = schema else { unreachable!("a struct's schema is an object") };
    schema
}

/// Leaves of that form what an event of this kind may be.
fn narrow(schema: &mut Map<String, Value>, kind: EventKind) {
    let properties = schema["properties"].as_object_mut().expect("a struct has properties");
    // `enum` also where there is one value: registries compare it, and not all compare `const`.
    let version = json!({ "type": "integer", "enum": [VERSION] });
    describe(&mut properties["version"], version);
    let name = kind.fact().event_type();
    describe(&mut properties["type"], json!({ "type": "string", "enum": [name] }));
    let of_a_reset = ["initiator", "reason"];
    if kind.cancellation().is_none() {
        properties.retain(|field, _| !of_a_reset.contains(&field.as_str()));
        return;
    }
    for field in of_a_reset {
        list_values(&mut properties[field]);
    }
    let required = schema["required"].as_array_mut().expect("a struct has required fields");
    required.extend(of_a_reset.map(Value::from));
}

/// Replaces a property's schema, but for its description.
fn describe(property: &mut Value, mut schema: Value) {
    schema["description"] = property["description"].take();
    *property = schema;
}

/// Alternatives, each a name with its meaning, as an `enum` whose meanings stand in the description.
fn list_values(property: &mut Value) {
    let alternatives = property["oneOf"].take();
    let alternatives = alternatives.as_array().expect("variants are documented");
    let names: Vec<_> = alternatives.iter().map(|variant| variant["const"].clone()).collect();
    let text = |value: &Value| value.as_str().expect("variants are documented names").to_owned();
    let meanings = alternatives.iter().map(|variant| {
        format!("\n- `{}`: {}", text(&variant["const"]), text(&variant["description"]))
    });
    let description = text(&property["description"]) + &meanings.collect::<String>();
    *property = json!({ "type": "string", "enum": names, "description": description });
}

fn example(kind: EventKind) -> Event {
    const VALID: &str = "the example is valid";
    Event {
        order: Order {
            order_id: OrderId::try_from(17).expect(VALID),
            item_id: ItemId::try_from(1).expect(VALID),
            seller_id: SellerId::try_from(1).expect(VALID),
            client_id: ClientId::try_from(42).expect(VALID),
            quantity: Quantity::try_from(2).expect(VALID),
        },
        kind,
        time: DateTime::from_timestamp_micros(1_795_440_607_482_910).expect(VALID),
    }
}

fn parsed(event: &Event) -> Value {
    serde_json::from_slice(&event.encode()).expect("events are JSON")
}

#[cfg(test)]
mod tests {
    use jsonschema::Validator;
    use proptest::prelude::*;

    use super::*;

    fn validator(schema: &Value) -> Validator {
        jsonschema::options().should_validate_formats(true).build(schema).unwrap()
    }

    /// Every type's name with what checks its schema.
    fn validators() -> Vec<(&'static str, Validator)> {
        all().iter().map(|event| (event.name, validator(&event.schema))).collect()
    }

    fn kinds() -> impl Strategy<Value = EventKind> {
        let initiators = [Initiator::Client, Initiator::Store, Initiator::Deadline];
        let reset = (prop::sample::select(initiators.to_vec()), prop::sample::select(&Reason::ALL))
            .prop_map(|(initiator, reason)| {
                EventKind::OrderReset(Cancellation { initiator, reason })
            });
        prop_oneof![
            Just(EventKind::OrderPlaced),
            Just(EventKind::ItemReserved),
            Just(EventKind::ReservationReleased),
            reset,
        ]
    }

    prop_compose! {
        fn events()(
            ids in prop::array::uniform4(1..=i64::MAX),
            quantity in 1..=1_000_i64,
            micros in 0..4_000_000_000_000_000_i64,
            kind in kinds(),
        ) -> Event {
            Event {
                order: Order {
                    order_id: ids[0].try_into().unwrap(),
                    item_id: ids[1].try_into().unwrap(),
                    seller_id: ids[2].try_into().unwrap(),
                    client_id: ids[3].try_into().unwrap(),
                    quantity: quantity.try_into().unwrap(),
                },
                kind,
                time: DateTime::from_timestamp_micros(micros).unwrap(),
            }
        }
    }

    /// Values that are right for some field and wrong for others.
    fn values() -> Vec<Value> {
        vec![
            json!(null),
            json!(true),
            json!(-1),
            json!(0),
            json!(1),
            json!(2),
            json!(1.5),
            json!(1_000),
            json!(1_001),
            json!(i64::MAX),
            json!([]),
            json!([1]),
            json!({}),
            json!(""),
            json!("1"),
            json!("OrderPlaced"),
            json!("ItemReserved"),
            json!("orderPlaced"),
            json!("client"),
            json!("Client"),
            json!("nobody"),
            json!("OUT_OF_STOCK"),
            json!("out_of_stock"),
            json!("2026-11-23"),
            json!("2026-11-23T12:30:07"),
            json!("2026-11-23T12:30:07Z"),
            json!("2026-11-23T14:30:07.482910+02:00"),
            json!("2026-02-30T12:30:07Z"),
            json!("2026-11-23T25:30:07Z"),
        ]
    }

    /// Whether a reader takes it for an event of this type.
    fn is_read_as(name: &str, value: &Value) -> bool {
        let read = Event::from_json(value.to_string().as_bytes());
        read.is_ok_and(|event| event.kind.fact().event_type() == name)
    }

    #[test]
    fn every_fact_has_its_schema() {
        let all = all();
        for fact in Fact::ALL {
            let of_it: Vec<_> = all.iter().filter(|event| event.facts.contains(&fact)).collect();
            assert_eq!(of_it.len(), 1, "{fact:?}");
            assert_eq!(of_it[0].name, fact.event_type());
            assert_eq!(of_it[0].topic, fact.topic());
            assert_eq!(of_it[0].cloud_event, cloud_event::event_type(fact));
        }
    }

    #[test]
    fn schemas_are_valid_and_everything_in_them_is_described() {
        for event in all() {
            jsonschema::draft202012::meta::validate(&event.schema).unwrap();
            assert!(validator(&event.schema).is_valid(&event.schema["examples"][0]));
            for (name, property) in event.schema["properties"].as_object().unwrap() {
                assert!(property["description"].is_string(), "{}.{name}", event.name);
                assert!(property["type"].is_string(), "{}.{name}: {property}", event.name);
            }
        }
    }

    #[test]
    fn a_schema_is_stricter_than_a_reader_about_unknown_fields_only() {
        for event in all() {
            let mut newer = event.schema["examples"][0].clone();
            newer["gift"] = json!({ "wrap": true });
            assert!(!validator(&event.schema).is_valid(&newer));
            assert!(is_read_as(event.name, &newer));
        }
    }

    #[test]
    fn a_schema_is_more_lenient_than_a_reader_about_numbers_it_cannot_hold_only() {
        for event in all() {
            let mut larger = event.schema["examples"][0].clone();
            larger["item_id"] = json!(1_u64 << 63);
            assert!(validator(&event.schema).is_valid(&larger));
            assert!(!is_read_as(event.name, &larger));
        }
    }

    proptest! {
        #[test]
        fn an_event_is_valid_by_its_own_schema_alone(event in events()) {
            let encoded = parsed(&event);
            for (name, validator) in validators() {
                let own = name == event.kind.fact().event_type();
                prop_assert_eq!(validator.is_valid(&encoded), own, "{}: {}", name, encoded);
            }
        }

        #[test]
        fn what_a_schema_refuses_a_reader_refuses(
            event in events(),
            at in any::<prop::sample::Index>(),
            value in prop::option::of(prop::sample::select(values())),
        ) {
            let name = event.kind.fact().event_type();
            let mut changed = parsed(&event);
            let fields = changed.as_object_mut().unwrap();
            let field = fields.keys().nth(at.index(fields.len())).unwrap().clone();
            match value {
                Some(value) => drop(fields.insert(field, value)),
                None => drop(fields.remove(&field)),
            }
            let (_, validator) =
                validators().into_iter().find(|(other, _)| *other == name).unwrap();
            let valid = validator.is_valid(&changed);
            prop_assert_eq!(valid, is_read_as(name, &changed), "{}", changed);
        }
    }
}
