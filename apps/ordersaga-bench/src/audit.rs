//! Whether the databases agree when everything is over.

use anyhow::{Result, ensure};
use ordersaga_contract::PARTITIONS;
use ordersaga_devstack::Cluster;

use crate::system::System;

/// Fails if an order was lost on its way or more was reserved than is counted.
pub(crate) async fn audit(system: &System) -> Result<()> {
    system.at_rest().await?;
    let number = |cluster, query| system.onlooker.number(cluster, query);
    let create = Cluster::CreateOrder;
    let open = number(create, "SELECT count(*) FROM orders WHERE state = 1").await?;
    ensure!(open == 0, "{open} orders have not ended");
    let orders = number(create, "SELECT count(*) FROM orders").await?;
    let decided = number(Cluster::Store, "SELECT count(*) FROM reservation").await?;
    ensure!(orders == decided, "of {orders} orders the store has decided {decided}");
    let wrong = number(
        Cluster::Store,
        "SELECT count(*) FROM item i LEFT JOIN \
             (SELECT item_id, sum(quantity) AS held FROM reservation WHERE state = 1 \
              GROUP BY item_id) r USING (item_id) \
         WHERE i.reserved <> coalesce(r.held, 0)",
    )
    .await?;
    ensure!(wrong == 0, "of {wrong} items another quantity is counted than is reserved");
    let mut placed = 0;
    for shard in Cluster::ALL.into_iter().filter(|cluster| cluster.is_shard()) {
        for partition in 0..PARTITIONS {
            let table = format!("order_event_{partition:02}");
            let count = format!("SELECT count(*) FROM {table} WHERE fact = 1");
            let count = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(count));
            placed += count.fetch_one(system.onlooker.sql(shard)).await?;
        }
    }
    ensure!(orders == placed, "of {orders} orders monitoring has {placed}");
    Ok(())
}
