//! The service's HTTP server with nothing behind it: a limit that `ordersaga bench` measures.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    service_create_order::http_only_main()
}
