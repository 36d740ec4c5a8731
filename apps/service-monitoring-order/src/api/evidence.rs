//! The operation on the records behind an order.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ordersaga_contract::{OrderId, partition_of};
use ordersaga_runtime::http::{Failure, Id, JsonBody, LookupFailure, Principal};
use ordersaga_saga::status::Heard;
use poem_openapi::param::Query;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use sagabus::{RawRecord, Searched, cloud_event};
use serde::Serialize;
use serde_json::Value;

use super::{FactHeard, Tag, UNKNOWN, an_order};
use crate::evidence::Evidence;
use crate::shown::Shown;

/// The operation.
pub(crate) struct EvidenceApi(Evidence);

/// The records behind an order's facts.
#[derive(Object, Serialize)]
#[oai(example)]
struct OrderEvidence {
    /// The order.
    order_id: i64,
    /// Each fact of its status, oldest first.
    facts: Vec<FactEvidence>,
}

impl Example for OrderEvidence {
    fn example() -> Self {
        Self { order_id: 1, facts: vec![FactEvidence::example()] }
    }
}

/// A fact and the record that says it. It has either `record` or `missing`.
#[derive(Object, Serialize)]
#[oai(example)]
struct FactEvidence {
    /// The fact, as the status has it.
    #[oai(flatten)]
    #[serde(flatten)]
    fact: FactHeard,
    /// The topic in which the fact is told, without the prefix that an environment may have.
    topic: String,
    /// The topic's partition in which all records of this order stand.
    partition: i64,
    /// The record. Of several that say the same, the first.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<TopicRecord>,
    /// Why there is no record to show.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<MissingName>,
}

impl Example for FactEvidence {
    fn example() -> Self {
        Self {
            fact: FactHeard::example(),
            topic: "incoming".to_owned(),
            partition: 8,
            record: Some(TopicRecord::example()),
            missing: None,
        }
    }
}

/// A record as it stands in its topic.
#[derive(Object, Serialize)]
#[oai(example)]
struct TopicRecord {
    /// Where it stands in the partition.
    offset: i64,
    /// Its key: the order's id.
    key: String,
    /// When the broker was to have it: the record's own timestamp, to the millisecond.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<DateTime<Utc>>,
    /// The trace of the request that placed the order, if that was traced.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    /// Its headers, in order. A name may occur more than once.
    headers: Vec<RecordHeader>,
    /// The event. Left out if that is no JSON object.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<BTreeMap<String, Value>>,
}

impl Example for TopicRecord {
    fn example() -> Self {
        let time = FactHeard::example().time;
        let payload = [
            ("version", 1.into()),
            ("type", "OrderPlaced".into()),
            ("order_id", 1.into()),
            ("item_id", 1_000.into()),
            ("seller_id", 1.into()),
            ("client_id", 7.into()),
            ("quantity", 1.into()),
            ("time", cloud_event::time(time).into()),
        ];
        Self {
            offset: 41,
            key: "1".to_owned(),
            timestamp: Some(time),
            trace_id: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
            headers: vec![RecordHeader::example()],
            payload: Some(payload.map(|(name, value)| (name.to_owned(), value)).into()),
        }
    }
}

/// A record's header. With neither `value` nor `value_hex` it is a name alone.
#[derive(Object, Serialize)]
#[oai(example)]
struct RecordHeader {
    /// Its name.
    name: String,
    /// Its value, if that is text.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// Its value in hexadecimal, if that is not UTF-8.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl Example for RecordHeader {
    fn example() -> Self {
        Self { name: "ce_id".to_owned(), value: Some("1.OrderPlaced".to_owned()), value_hex: None }
    }
}

/// Why there is no record to show.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename = "MissingRecord", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum MissingName {
    /// The topic keeps nothing of that time any more.
    NoLongerInTopic,
    /// It was not among the records that were looked at: it stands further on, or the clocks of
    /// those who wrote it differ.
    NotFound,
}

#[derive(ApiResponse)]
enum EvidenceFound {
    /// The records.
    #[oai(status = 200)]
    Found(JsonBody<OrderEvidence>),
}

impl EvidenceApi {
    pub(crate) fn new(evidence: Evidence) -> Self {
        Self(evidence)
    }
}

#[OpenApi(tag = "Tag::Status")]
impl EvidenceApi {
    /// The records behind an order's status
    ///
    /// Shows each fact together with the record that says it: where it stands, its headers, its
    /// payload and its trace. The records are read from the topics when you ask, so they are what
    /// every consumer reads. Topics keep records for a limited time (seven days unless configured
    /// otherwise): a fact whose record is gone, or was not found within some 20,000 records, says
    /// so in `missing`. An order is not waited for; ask for its status first.
    #[oai(path = "/api/v1/status/evidence", method = "get", operation_id = "get_order_evidence")]
    async fn evidence(
        &self,
        principal: Principal,
        /// The order asked about.
        #[oai(example = "an_order")]
        order_id: Query<Id>,
    ) -> Result<EvidenceFound, LookupFailure> {
        let order = OrderId::from(order_id.0);
        let found = self.0.of(order, &principal).await.map_err(Failure::unavailable)?;
        let found = found.ok_or_else(|| LookupFailure::not_found(UNKNOWN))?;
        let facts = found.into_iter().map(|(heard, record)| present(order, heard, record));
        let evidence = OrderEvidence { order_id: order.get(), facts: facts.collect() };
        Ok(EvidenceFound::Found(JsonBody(evidence)))
    }
}

fn present(order: OrderId, heard: Heard, found: Searched) -> FactEvidence {
    let topic = heard.fact.topic().name().to_owned();
    let (record, missing) = match found {
        Searched::Found(record) => (Some(record.into()), None),
        Searched::Gone => (None, Some(MissingName::NoLongerInTopic)),
        Searched::NotFound => (None, Some(MissingName::NotFound)),
    };
    let partition = partition_of(order).into();
    FactEvidence { fact: heard.into(), topic, partition, record, missing }
}

impl From<RawRecord> for TopicRecord {
    fn from(record: RawRecord) -> Self {
        let headers: Vec<_> = record.headers.into_iter().map(RecordHeader::from).collect();
        let context = headers.iter().find(|header| header.name == cloud_event::TRACEPARENT);
        let trace_id = context.and_then(|header| cloud_event::trace_id(header.value.as_deref()?));
        Self {
            offset: record.offset,
            // It is the order's, or the record would not be the fact's.
            key: String::from_utf8(record.key.unwrap_or_default()).unwrap_or_default(),
            timestamp: record.time,
            trace_id: trace_id.map(str::to_owned),
            payload: record.payload.and_then(|json| serde_json::from_slice(&json).ok()),
            headers,
        }
    }
}

impl From<(String, Option<Vec<u8>>)> for RecordHeader {
    fn from((name, bytes): (String, Option<Vec<u8>>)) -> Self {
        let parts = bytes.map(|bytes| Shown::all_of(&bytes).parts());
        let (value, value_hex) = parts.unwrap_or_default();
        Self { name, value, value_hex }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_as_it_stands() {
        let header =
            |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
        let record = RawRecord {
            offset: 7,
            time: None,
            key: Some(b"1".to_vec()),
            payload: Some(br#"{"order_id":9007199254740993,"more":[1.5,null]}"#.to_vec()),
            headers: vec![
                header(
                    "traceparent",
                    Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                ),
                header("bytes", Some(b"\xff\x00")),
                header("none", None),
            ],
        };
        let shown = serde_json::to_value(TopicRecord::from(record)).unwrap();
        let expected = serde_json::json!({
            "offset": 7,
            "key": "1",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "headers": [
                {
                    "name": "traceparent",
                    "value": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                },
                {"name": "bytes", "value_hex": "ff00"},
                {"name": "none"},
            ],
            "payload": {"order_id": 9_007_199_254_740_993_i64, "more": [1.5, null]},
        });
        assert_eq!(shown, expected);
    }
}
