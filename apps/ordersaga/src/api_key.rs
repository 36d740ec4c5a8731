//! `api-key`: makes keys for clients of the services.

use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};
use ordersaga_api_key::{ApiKey, Scope};

/// What `api-key` does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Prints a new key, once, and the entry to add to `API_KEYS_FILE`
    New(New),
}

/// Arguments of `api-key new`.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// Whose key it is, as logs and traces will have it
    #[arg(long)]
    name: String,
    /// What may be done with it: orders:read, orders:write, items:write, admin, joined by commas
    #[arg(long, required = true, value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// The client whose orders alone may be placed, seen and cancelled with it
    #[arg(long, value_name = "ID")]
    client_id: Option<i64>,
    /// When it ends, as 2027-06-30T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires: Option<DateTime<Utc>>,
}

pub(crate) fn run(command: Command) -> Result<ExitCode> {
    let Command::New(New { name, scopes, client_id, expires }) = command;
    let (key, entry) = ApiKey::generate(name, scopes, client_id, expires)?;
    // The entry alone is the output, so that `>> keys.toml` adds it and the key stays out of the file.
    say_error!("The key, which is shown only now. Clients send it as Authorization: Bearer …");
    say_error!("\n{key}\n");
    say_error!("The entry for API_KEYS_FILE, which the services read again when it changes:\n");
    say!("{}", entry.to_toml()?.trim_end());
    Ok(ExitCode::SUCCESS)
}
