//! `ordersaga-playground`: runs beside a local stack that `ordersaga up --playground` has started.
//! It kills and freezes its processes on demand, probes from outside what works meanwhile, and
//! checks the invariants. Nothing of the saga needs it.

mod api;
mod incident;
mod probe;
mod proof;
mod stack;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use ordersaga_runtime::config::{HttpConfig, LogConfig};
use ordersaga_runtime::health::Health;
use ordersaga_runtime::http::{self, HttpService};
use ordersaga_runtime::lifecycle::{Lifecycle, Stage};
use ordersaga_runtime::telemetry;

use crate::api::Api;
use crate::api::proof::ProofApi;
use crate::proof::Checker;
use crate::stack::Stack;
use crate::watch::Watch;

const NAME: &str = "ordersaga-playground";
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(20);

/// Breaks parts of a local stack and checks its invariants; `ordersaga up --playground` starts it.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Config {
    /// The stack's data folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    http: HttpConfig,
    #[command(flatten)]
    log: LogConfig,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    if http::print_spec::<(Api, ProofApi)>(&api::ABOUT) {
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::parse();
    telemetry::init(&config.log)?;
    let address = config.http.listen;
    ensure!(
        address.ip().is_loopback(),
        "HTTP_LISTEN={address}: the playground kills processes and knows no users, so it listens on \
         loopback only, as on 127.0.0.1:8003"
    );
    let stack = Stack::new(config.data)?;
    stack.thaw_all()?;
    let watch = Arc::new(Watch::new(stack)?);
    let lifecycle = Lifecycle::new(STOP);
    let api = (Api::new(watch.clone()), ProofApi::new(Checker::new(watch.clone())));
    let api = HttpService::new(api::ABOUT, api, Health::default(), &config.http);
    let listener = http::bind(address).await?;
    let stop = lifecycle.token(Stage::Intake);
    lifecycle.spawn(Stage::Intake, "http", http::serve(listener, api, stop.clone()));
    let kept = watch.clone();
    lifecycle.spawn(Stage::Intake, "watch", async move {
        kept.keep(stop).await;
        Ok(())
    });
    let code = lifecycle.run().await;
    watch.thaw_all()?;
    Ok(code)
}
