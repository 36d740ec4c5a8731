//! Makes a topic, if it is not there.

use sagabus::rdkafka::ClientConfig;
use sagabus::rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use sagabus::rdkafka::client::DefaultClientContext;

pub(crate) async fn make(kafka: &ClientConfig, name: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = kafka.create()?;
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    // One that is there already is named in the answer.
    admin.create_topics([&topic], &AdminOptions::new()).await?;
    Ok(())
}
