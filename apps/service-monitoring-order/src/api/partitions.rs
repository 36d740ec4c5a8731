//! The operation that tells how far this service is in each partition.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ordersaga_runtime::clock;
use ordersaga_runtime::http::{Failure, JsonBody};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;

use super::Tag;
use crate::progress::{Progress, Standing};
use crate::shards::Shards;

/// The operation.
pub(crate) struct PartitionApi {
    progress: Arc<Progress>,
    shards: Arc<Shards>,
}

/// How far each partition is applied.
#[derive(Object, Serialize)]
#[oai(example)]
struct Partitions {
    /// The partitions, by their number.
    items: Vec<PartitionProgress>,
    /// Everything that happened before this time is applied, of the partitions that the answering
    /// instance follows; to within a second. Left out if it does not know.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<DateTime<Utc>>,
}

impl Example for Partitions {
    fn example() -> Self {
        let partition = PartitionProgress::example();
        Self { as_of: partition.topics[0].as_of, items: vec![partition] }
    }
}

/// A partition: of each topic, and of the table of facts.
#[derive(Object, Serialize)]
#[oai(example)]
struct PartitionProgress {
    /// Its number.
    partition: u32,
    /// The node that its table lies on.
    shard: String,
    /// Whether the answering instance follows it. If not, another one does, and that one knows how
    /// far it is.
    is_followed: bool,
    /// How far each topic's partition is applied. Empty where another instance follows it.
    topics: Vec<TopicProgress>,
}

impl Example for PartitionProgress {
    fn example() -> Self {
        let topics = vec![TopicProgress::example()];
        Self { partition: 8, shard: "shard1".to_owned(), is_followed: true, topics }
    }
}

/// How far a topic's partition is applied, as the consumer tells once a second.
#[derive(Object, Serialize)]
#[oai(example)]
struct TopicProgress {
    /// The topic, without the prefix that an environment may have.
    topic: String,
    /// The offset of the record that is applied next.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_offset: Option<i64>,
    /// The offset behind the topic's last record, if the broker has told it.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    end_offset: Option<i64>,
    /// How many records are yet to be applied, if that is known.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_records: Option<i64>,
    /// How much time of the topic is yet to be applied, in milliseconds: 0 if no record waits, else
    /// from `as_of` to now. Left out if it is not known.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_ms: Option<i64>,
    /// Since when records have waited without a pause, to within a second. Left out if none does.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    behind_since: Option<DateTime<Utc>>,
    /// Everything that the topic says of the time before is applied. Left out if it is not known.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<DateTime<Utc>>,
}

impl Example for TopicProgress {
    fn example() -> Self {
        let time = |seconds: i64| DateTime::from_timestamp(1_798_000_000 + seconds, 0);
        Self {
            topic: "incoming".to_owned(),
            applied_offset: Some(41),
            end_offset: Some(1_741),
            lag_records: Some(1_700),
            lag_ms: Some(3_000),
            behind_since: time(1),
            as_of: time(0),
        }
    }
}

#[derive(ApiResponse)]
enum PartitionsFound {
    /// The partitions.
    #[oai(status = 200)]
    Found(JsonBody<Partitions>),
}

impl PartitionApi {
    pub(crate) fn new(progress: Arc<Progress>, shards: Arc<Shards>) -> Self {
        Self { progress, shards }
    }
}

#[OpenApi(tag = "Tag::Progress")]
impl PartitionApi {
    /// How far this service is in each partition
    ///
    /// An order's facts stand in one partition of the same number in every topic, and in the table
    /// on one node. This tells for each partition which node that is, and how far the topics are
    /// applied. An instance knows of the partitions that it follows: with several instances each
    /// answers for its own, and names the others with `is_followed` false.
    #[expect(clippy::unused_async, reason = "operations are asynchronous")]
    #[oai(path = "/api/v1/partitions", method = "get", operation_id = "list_partitions")]
    async fn partitions(&self) -> Result<PartitionsFound, Failure> {
        let (now, names) = (clock::now(), self.shards.names().map_err(Failure::unavailable)?);
        let items = (0..).zip(names).map(|(partition, shard)| {
            let standings = self.progress.standings(partition).into_iter();
            let topics: Vec<_> =
                standings.map(|(topic, standing)| present(topic.name(), standing, now)).collect();
            let (shard, is_followed) = (shard.to_owned(), !topics.is_empty());
            PartitionProgress { partition, shard, is_followed, topics }
        });
        let partitions = Partitions { items: items.collect(), as_of: self.progress.until() };
        Ok(PartitionsFound::Found(JsonBody(partitions)))
    }
}

fn present(topic: &str, standing: Standing, now: DateTime<Utc>) -> TopicProgress {
    let Standing { reach, until, behind_since } = standing;
    let lag_records = reach.and_then(|reach| reach.lag);
    let behind = || Some((now - until?).num_milliseconds().max(0));
    TopicProgress {
        topic: topic.to_owned(),
        applied_offset: reach.map(|reach| reach.applied),
        end_offset: reach.and_then(|reach| reach.end),
        lag_records,
        lag_ms: lag_records.and_then(|lag| if lag == 0 { Some(0) } else { behind() }),
        behind_since,
        as_of: until,
    }
}

#[cfg(test)]
mod tests {
    use sagabus::Reach;

    use super::*;
    use crate::examples::at;

    #[test]
    fn a_partition_without_records_that_wait_has_no_lag_however_old_the_last_is() {
        let lag_of = |lag: Option<i64>, until| {
            let reach = Some(Reach { applied: 7, end: lag.map(|lag| 7 + lag), lag });
            let standing = Standing { reach, until, behind_since: None };
            let shown = present("incoming", standing, at(100));
            (shown.lag_records, shown.lag_ms)
        };
        assert_eq!(lag_of(Some(0), Some(at(40))), (Some(0), Some(0)));
        assert_eq!(lag_of(Some(3), Some(at(40))), (Some(3), Some(60_000)));
        assert_eq!(lag_of(Some(3), None), (Some(3), None), "nothing was applied yet");
        assert_eq!(lag_of(None, Some(at(40))), (None, None), "the broker has not told the end");
        assert_eq!(lag_of(Some(3), Some(at(140))), (Some(3), Some(0)), "a clock that is fast");
    }
}
