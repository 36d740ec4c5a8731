//! The same HTTP server and handlers with nothing behind them: what `ordersaga bench` takes as the
//! limit that HTTP sets. Orders get their ids from memory, at once; nothing is stored or published.

use std::process::ExitCode;
use std::sync::atomic::{AtomicI64, Ordering};

use ordersaga_contract::OrderId;
use ordersaga_runtime::health::Health;
use ordersaga_runtime::http::{self, HttpService};
use ordersaga_runtime::lifecycle::{Lifecycle, Stage};
use ordersaga_runtime::service;
use sagabus::group_commit;
use sagabus::{Outbox, Pace};

use crate::config::Config;
use crate::desk::{Answer, Command};
use crate::{NAME, api, desk};

/// `main` of the program. It takes the service's settings, those without a use included.
pub fn main() -> anyhow::Result<ExitCode> {
    let config = Config::from_environment();
    service::run(NAME, &config.service.clone(), run(config))
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let lifecycle = Lifecycle::new(config.service.shutdown.timeout);
    let (group, batches) = group_commit(desk::QUEUE, desk::BATCH);
    // Nobody takes orders by the thousand here.
    let (bulks, _) = group_commit(1, 1);
    let api = api::Api::new(&config, group, bulks, Outbox::default());
    let http = &config.service.http;
    let listener = http::bind(http.listen).await?;
    let api = HttpService::new(api::ABOUT, api, Health::default(), http);
    let stop = lifecycle.token(Stage::Intake);
    lifecycle.spawn(Stage::Intake, "http", http::serve(listener, api, stop));
    let stop = lifecycle.token(Stage::Drain);
    lifecycle.spawn(Stage::Drain, "orders", async move {
        let next = AtomicI64::new(1);
        let answers = |commands: Vec<_>| commands.iter().map(|it| answer(&next, it)).collect();
        batches.run(Pace::first(), stop, |commands| std::future::ready(answers(commands))).await;
        Ok(())
    });
    Ok(lifecycle.run().await)
}

fn answer(next: &AtomicI64, command: &Command) -> Answer {
    match command {
        Command::Place(_) => {
            let id = next.fetch_add(1, Ordering::Relaxed);
            OrderId::try_from(id)
                .map_or(Answer::Undecided, |order| Answer::Placed { order, is_replayed: false })
        }
        Command::Cancel { .. } => Answer::Cancelled { is_replayed: false },
    }
}
