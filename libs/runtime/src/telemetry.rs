//! Logs, through `tracing`, to standard error.

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogConfig, LogFormat};

/// Starts logging. In a process that already logs (a test that starts several services) it changes nothing.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.level)
        .with_context(|| format!("LOG_LEVEL={} cannot be understood", config.level))?;
    let automatic = if stderr().is_terminal() { LogFormat::Pretty } else { LogFormat::Json };
    let lines = match config.format.unwrap_or(automatic) {
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(stderr)
            .boxed(),
        LogFormat::Pretty => tracing_subscriber::fmt::layer()
            .with_ansi(stderr().is_terminal())
            .with_writer(stderr)
            .boxed(),
    };
    // The only failure is that a subscriber is installed already, which is what the caller wants.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn may_be_called_twice() {
        for format in [Some(LogFormat::Json), Some(LogFormat::Pretty), None] {
            init(&LogConfig { format, level: "warn".to_owned() }).unwrap();
        }
    }

    #[test]
    fn a_wrong_level_is_an_error_that_shows_it() {
        let config = LogConfig { format: None, level: "info,=x=y".to_owned() };
        let error = init(&config).unwrap_err();
        assert!(format!("{error:#}").contains("LOG_LEVEL=info,=x=y"), "{error:#}");
    }
}
