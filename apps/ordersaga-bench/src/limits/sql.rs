//! The databases with SQL alone: what the saga has to write, in batches, through one connection per
//! database. The statements are this program's own and the least that will do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use ordersaga_contract::{Event, EventKind, Order};
use ordersaga_devstack::{Cluster, Stack};
use ordersaga_figures::Run;
use ordersaga_runtime::clock;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TryRecvError};

use super::{Bench, Meter, groups};

/// Orders in a transaction.
const BATCH: i64 = 500;
/// Batches that may wait between two databases.
const WAITING: usize = 4;
const ITEMS: i64 = 1_000;
const NAME: &str = "bench_limit";
const MESSAGING: &str = include_str!("sql/messaging.sql");

/// The databases it works on, beside those of the system on the same servers.
pub(crate) struct Databases {
    urls: [String; 3],
}

impl Databases {
    /// Makes them.
    pub(crate) async fn make(stack: &Stack) -> Result<Self> {
        let parts = stack.parts();
        for shard in [Cluster::Shard1, Cluster::Shard2] {
            make(stack, shard, &[include_str!("sql/shard.sql")]).await?;
        }
        let port = |shard: Cluster| parts.server(shard).port;
        let session = format!(
            "SET bench.port1 = '{}'; SET bench.port2 = '{}'; SET bench.password = '{}'",
            port(Cluster::Shard1),
            port(Cluster::Shard2),
            parts.server(Cluster::Shard1).passwords.superuser,
        );
        let monitoring = include_str!("sql/monitoring.sql");
        Ok(Self {
            urls: [
                make(
                    stack,
                    Cluster::CreateOrder,
                    &[include_str!("sql/create_order.sql"), MESSAGING],
                )
                .await?,
                make(stack, Cluster::Store, &[include_str!("sql/store.sql"), MESSAGING]).await?,
                make(stack, Cluster::Monitoring, &[&session, monitoring, MESSAGING]).await?,
            ],
        })
    }
}

/// Makes a database of one cluster; the superuser's URL of it.
async fn make(stack: &Stack, cluster: Cluster, scripts: &[&str]) -> Result<String> {
    let database = stack.parts().server(cluster).create_database(cluster, NAME).await?;
    let url = database.superuser_url();
    let mut connection = PgConnection::connect(&url).await?;
    for script in scripts {
        let run = sqlx::raw_sql(AssertSqlSafe((*script).to_owned())).execute(&mut connection);
        run.await.with_context(|| format!("preparing the limit of SQL on {cluster}"))?;
    }
    connection.close().await?;
    Ok(url)
}

/// Orders that are written together.
#[derive(Clone)]
struct Batch {
    orders: Vec<Order>,
    time: DateTime<Utc>,
}

impl Batch {
    fn column(&self, value: fn(&Order) -> i64) -> Vec<i64> {
        self.orders.iter().map(value).collect()
    }

    fn ids(&self) -> Vec<i64> {
        self.column(|order| order.order_id.get())
    }

    fn payloads(&self, kind: EventKind) -> Vec<Vec<u8>> {
        let event = |order: &Order| Event { order: *order, kind, time: self.time }.encode();
        self.orders.iter().map(event).collect()
    }

    fn facts(&self, kind: EventKind) -> Vec<i16> {
        vec![kind.fact().code(); self.orders.len()]
    }
}

pub(super) async fn run(bench: &Bench<'_>) -> Result<Run> {
    let [create, store, monitoring] = &bench.sql.urls;
    let (placed, to_store) = channel(WAITING);
    let (reserved, to_close) = channel(WAITING);
    let (told, to_tell) = channel(WAITING);
    let warm = Instant::now() + Duration::from_secs(bench.length.warmup_seconds.into());
    let end = warm + Duration::from_secs(bench.length.seconds.into());
    let watch = async {
        tokio::time::sleep_until(warm.into()).await;
        anyhow::Ok(Meter::start(groups(bench.system, "postgres")))
    };
    let ((), (), (before, all), meter) = tokio::try_join!(
        place_and_close(create, placed, to_close, end),
        reserve(store, to_store, reserved, told),
        tell(monitoring, to_tell, warm),
        watch,
    )?;
    meter.run(all - before)
}

/// create-order: places a batch, publishes it, and closes what the store has reserved.
async fn place_and_close(
    url: &str,
    placed: Sender<Batch>,
    mut reserved: Receiver<Batch>,
    end: Instant,
) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    while Instant::now() < end {
        while let Ok(batch) = reserved.try_recv() {
            close(&mut connection, &batch).await?;
        }
        let batch = place(&mut connection).await?;
        publish(&mut connection).await?;
        // A full channel means that the store is busy: what it has done can be closed meanwhile.
        let mut sending = std::pin::pin!(placed.send(batch));
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => { sent?; break; }
                Some(batch) = reserved.recv() => close(&mut connection, &batch).await?,
            }
        }
    }
    drop(placed);
    while let Some(batch) = reserved.recv().await {
        close(&mut connection, &batch).await?;
    }
    Ok(())
}

/// Inserts new orders and one outbox row.
async fn place(connection: &mut PgConnection) -> Result<Batch> {
    let time = clock::now();
    let mut transaction = connection.begin().await?;
    let ids: Vec<i64> =
        sqlx::query_scalar("SELECT nextval('order_id_seq') FROM generate_series(1, $1)")
            .bind(BATCH)
            .fetch_all(&mut *transaction)
            .await?;
    let order = |id: i64| {
        Ok(Order {
            order_id: id.try_into()?,
            item_id: (id % ITEMS + 1).try_into()?,
            seller_id: 1.try_into()?,
            client_id: (id % 100_000 + 1).try_into()?,
            quantity: 1.try_into()?,
        })
    };
    let batch = Batch { orders: ids.into_iter().map(order).collect::<Result<_>>()?, time };
    sqlx::query(
        "INSERT INTO orders (order_id, item_id, seller_id, client_id, quantity, state, \
                             created_at, updated_at) \
         SELECT o, i, s, c, q, 1, $6, $6 \
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) \
              u (o, i, s, c, q)",
    )
    .bind(batch.ids())
    .bind(batch.column(|order| order.item_id.get()))
    .bind(batch.column(|order| order.seller_id.get()))
    .bind(batch.column(|order| order.client_id.get()))
    .bind(batch.column(|order| order.quantity.get()))
    .bind(time)
    .execute(&mut *transaction)
    .await?;
    append(&mut transaction, &batch, EventKind::OrderPlaced).await?;
    transaction.commit().await?;
    Ok(batch)
}

/// Adds a batch's events to the outbox.
async fn append(connection: &mut PgConnection, batch: &Batch, kind: EventKind) -> Result<()> {
    sqlx::query("INSERT INTO outbox (facts, order_ids, payloads) VALUES ($1, $2, $3)")
        .bind(batch.facts(kind))
        .bind(batch.ids())
        .bind(batch.payloads(kind))
        .execute(connection)
        .await?;
    Ok(())
}

/// Reads what the outbox has and deletes it, as if it had been published.
async fn publish(connection: &mut PgConnection) -> Result<()> {
    type Row = (String, i64, Vec<i16>, Vec<i64>, Vec<Vec<u8>>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT tx::text, id, facts, order_ids, payloads FROM outbox \
         WHERE tx < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY tx, id LIMIT 8",
    )
    .fetch_all(&mut *connection)
    .await?;
    if let Some((tx, id, ..)) = rows.last() {
        sqlx::query("DELETE FROM outbox WHERE (tx, id) <= ($1::xid8, $2)")
            .bind(tx)
            .bind(id)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Moves the offsets of all partitions, as a batch that has records of each does.
async fn move_offsets(connection: &mut PgConnection) -> Result<()> {
    let moved = sqlx::query("UPDATE consumer_offset SET next_offset = next_offset + 30");
    moved.execute(connection).await?;
    Ok(())
}

async fn close(connection: &mut PgConnection, batch: &Batch) -> Result<()> {
    let mut transaction = connection.begin().await?;
    move_offsets(&mut transaction).await?;
    sqlx::query(
        "UPDATE orders SET state = 2, updated_at = $2 WHERE order_id = ANY($1) AND state = 1",
    )
    .bind(batch.ids())
    .bind(batch.time)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// The store: reserves batch after batch.
async fn reserve(
    url: &str,
    mut placed: Receiver<Batch>,
    reserved: Sender<Batch>,
    told: Sender<Batch>,
) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    while let Some(batch) = placed.recv().await {
        reserve_batch(&mut connection, &batch).await?;
        publish(&mut connection).await?;
        told.send(batch.clone()).await?;
        reserved.send(batch).await?;
    }
    Ok(())
}

async fn reserve_batch(connection: &mut PgConnection, batch: &Batch) -> Result<()> {
    let mut transaction = connection.begin().await?;
    move_offsets(&mut transaction).await?;
    sqlx::query("SELECT order_id, state FROM reservation WHERE order_id = ANY($1)")
        .bind(batch.ids())
        .fetch_all(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO reservation (order_id, item_id, seller_id, client_id, quantity, state, \
                                  updated_at) \
         SELECT o, i, s, c, q, 1, $6 \
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) \
              u (o, i, s, c, q)",
    )
    .bind(batch.ids())
    .bind(batch.column(|order| order.item_id.get()))
    .bind(batch.column(|order| order.seller_id.get()))
    .bind(batch.column(|order| order.client_id.get()))
    .bind(batch.column(|order| order.quantity.get()))
    .bind(batch.time)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "UPDATE item i SET reserved = i.reserved + u.wanted \
         FROM (SELECT item_id, sum(quantity)::bigint AS wanted \
               FROM unnest($1::bigint[], $2::bigint[]) w (item_id, quantity) GROUP BY 1) u \
         WHERE i.item_id = u.item_id",
    )
    .bind(batch.column(|order| order.item_id.get()))
    .bind(batch.column(|order| order.quantity.get()))
    .execute(&mut *transaction)
    .await?;
    append(&mut transaction, batch, EventKind::ItemReserved).await?;
    transaction.commit().await?;
    Ok(())
}

/// Monitoring: writes two facts of each order through the coordinator. Orders told before `warm`,
/// and in all.
async fn tell(url: &str, mut told: Receiver<Batch>, warm: Instant) -> Result<(u64, u64)> {
    let mut connection = PgConnection::connect(url).await?;
    let (mut before, mut all) = (0, 0);
    while let Some(first) = told.recv().await {
        let mut batches = vec![first];
        // Larger statements cost less: what waits goes together.
        while batches.len() < WAITING {
            match told.try_recv() {
                Ok(batch) => batches.push(batch),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        tell_batches(&mut connection, &batches).await?;
        all += batches.iter().map(|batch| batch.orders.len() as u64).sum::<u64>();
        if Instant::now() < warm {
            before = all;
        }
    }
    Ok((before, all))
}

async fn tell_batches(connection: &mut PgConnection, batches: &[Batch]) -> Result<()> {
    let kinds = [EventKind::OrderPlaced, EventKind::ItemReserved];
    let column = |value: fn(&Order) -> i64| -> Vec<i64> {
        kinds.iter().flat_map(|_| batches.iter().flat_map(|batch| batch.column(value))).collect()
    };
    let facts = kinds.iter().flat_map(|kind| batches.iter().flat_map(|batch| batch.facts(*kind)));
    let times =
        kinds.iter().flat_map(|_| batches.iter().flat_map(|b| vec![b.time; b.orders.len()]));
    let mut transaction = connection.begin().await?;
    move_offsets(&mut transaction).await?;
    sqlx::query(
        "INSERT INTO order_event (order_id, fact, item_id, seller_id, client_id, quantity, at) \
         SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], \
                              $5::bigint[], $6::bigint[], $7::timestamptz[]) \
         ON CONFLICT DO NOTHING",
    )
    .bind(column(|order| order.order_id.get()))
    .bind(facts.collect::<Vec<_>>())
    .bind(column(|order| order.item_id.get()))
    .bind(column(|order| order.seller_id.get()))
    .bind(column(|order| order.client_id.get()))
    .bind(column(|order| order.quantity.get()))
    .bind(times.collect::<Vec<_>>())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}
