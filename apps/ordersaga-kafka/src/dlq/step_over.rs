//! `dlq step-over`: lets a consumer go on behind a record that it cannot read.

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use ordersaga_runtime::config::{POSTGRES_URL, Secret};
use ordersaga_runtime::postgres;
use sagabus::Found;
use sagabus::dead_letters::{DeadLetters, Place, step_over};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

/// Arguments of `dlq step-over`.
#[derive(clap::Args)]
pub(super) struct StepOver {
    /// Where the consumer stands, as its log and /ready say
    #[arg(value_name = "TOPIC/PARTITION/OFFSET")]
    origin: Place,
    /// Whose consumer it is, of a stack that `ordersaga up` runs; elsewhere name its database
    #[arg(long, value_name = "SERVICE", required_unless_present = "database_url")]
    service: Option<Service>,
    /// The database of the consumer, with the role of its service
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true,
          value_parser = POSTGRES_URL)]
    database_url: Option<Secret>,
    /// Step over at most so many records that follow each other and cannot be read
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    most: u32,
    /// Step over a record that can be read, too: it becomes a dead letter as it is
    #[arg(long)]
    force: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Service {
    #[value(name = "service-create-order")]
    CreateOrder,
    #[value(name = "service-store")]
    Store,
    #[value(name = "service-monitoring-order")]
    Monitoring,
}

impl Service {
    /// Where `ordersaga dlq` leaves the address of its database.
    fn variable(self) -> &'static str {
        match self {
            Self::CreateOrder => "SERVICE_CREATE_ORDER_DATABASE_URL",
            Self::Store => "SERVICE_STORE_DATABASE_URL",
            Self::Monitoring => "SERVICE_MONITORING_ORDER_DATABASE_URL",
        }
    }
}

impl StepOver {
    pub(super) async fn run(&self, letters: &DeadLetters) -> Result<ExitCode> {
        let mut database = if self.dry_run { None } else { Some(self.connect().await?) };
        let mut origin = self.origin.clone();
        let mut count = 0;
        while count < self.most {
            let (raw, why) = match letters.at_origin(&origin).await? {
                Found::Unreadable(error) => (None, error),
                Found::Record(record) if count == 0 && record.offset == origin.offset => {
                    ensure!(
                        self.force,
                        "{origin} can be read: the service applies it or makes it a dead letter \
                         by itself (--force steps over it)"
                    );
                    (Some(record), "it can be read".to_owned())
                }
                Found::Record(_) | Found::End if count == 0 => bail!("there is no record {origin}"),
                Found::Record(_) | Found::End => break,
            };
            if let Some(database) = &mut database {
                step_over(database, &origin, raw, &why).await?;
                say!("{origin}: stepped over, {why}");
            } else {
                say!("{origin}: would be stepped over, {why}");
            }
            (origin.offset, count) = (origin.offset + 1, count + 1);
            if self.force {
                break;
            }
        }
        say!("{count} stepped over; {origin} is next");
        Ok(ExitCode::SUCCESS)
    }

    async fn connect(&self) -> Result<PgConnection> {
        let of_service = || std::env::var(self.service?.variable()).ok();
        let named = self.database_url.as_ref().map(|url| url.expose().to_owned());
        let url = named.or_else(of_service);
        let url = url.context("no stack runs here: name the database by --database-url")?;
        let options = postgres::options(&url, "dlq step-over")?;
        PgConnection::connect_with(&options)
            .await
            .context("the consumer's database cannot be reached")
    }
}
