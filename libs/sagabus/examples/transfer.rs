//! A transfer between two accounts as a saga: one transaction takes the money and says so, another
//! brings it to its account, once, whatever is delivered twice.
//!
//! `DATABASE_URL=postgres://… KAFKA_BROKERS=host:port cargo run -p sagabus --example transfer`

#![expect(clippy::print_stdout, reason = "an example")]

mod topic;

use std::time::Duration;

use sagabus::rdkafka::ClientConfig;
use sagabus::{Batch, Bus, Failure, Handler, Message, Poison, Received, Record};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

/// Money that has left one account and is on its way to another.
#[derive(Serialize, Deserialize)]
struct Debited {
    transfer: i64,
    to: i64,
    amount: i64,
}

impl Message for Debited {
    fn topic(&self) -> &'static str {
        "sagabus-transfers"
    }
    fn key(&self) -> String {
        self.to.to_string()
    }
    fn kind(&self) -> &'static str {
        "bank.Debited.v1"
    }
    fn id(&self) -> String {
        self.transfer.to_string()
    }
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers have a JSON form")
    }
    fn decode(received: &Received<'_>) -> Result<Self, Poison> {
        serde_json::from_slice(received.payload).map_err(Poison::new)
    }
}

/// Brings money to its account. A transfer that was said before finds its row and adds nothing.
struct Credit;

impl Handler for Credit {
    type Message = Debited;
    type Applied = ();

    async fn apply(
        &self,
        transaction: &mut PgConnection,
        records: &[Record<Debited>],
        _: &mut Batch,
    ) -> Result<(), Failure> {
        for Record { message: Debited { transfer, to, amount }, .. } in records {
            let credit = "WITH new AS (INSERT INTO credited VALUES ($1) ON CONFLICT DO NOTHING \
                          RETURNING 1) UPDATE account SET balance = balance + $3 FROM new WHERE id = $2";
            let credit = sqlx::query(credit).bind(transfer).bind(to).bind(amount);
            credit.execute(&mut *transaction).await?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    sagabus::migrations().run(&pool).await?;
    sqlx::raw_sql(include_str!("transfer.sql")).execute(&pool).await?;
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", std::env::var("KAFKA_BROKERS")?);
    topic::make(&kafka, "sagabus-transfers").await?;
    let bus = Bus::builder(pool.clone(), kafka).source("/bank").build()?;
    let stop = CancellationToken::new();
    let relay = tokio::spawn(bus.relay().run(stop.clone()));
    let credit = bus.consumer("bank", ["sagabus-transfers"], Credit);
    let credit = tokio::spawn(credit.run(stop.clone()));
    let mut transaction = bus.begin().await?;
    let take =
        "UPDATE account SET balance = balance - 30 WHERE id = 1 RETURNING nextval('transfer')";
    let transfer = sqlx::query_scalar(take).fetch_one(&mut *transaction).await?;
    transaction.publish(&Debited { transfer, to: 2, amount: 30 });
    transaction.commit().await?;
    let mut balances = vec![0_i64, 0];
    while balances[1] == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let all = sqlx::query_scalar("SELECT array_agg(balance ORDER BY id) FROM account");
        balances = all.fetch_one(&pool).await?;
    }
    println!("balances: {balances:?}");
    stop.cancel();
    relay.await??;
    Ok(credit.await??)
}
