//! The service; all of it is in the library, which other programs of this package share.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    service_create_order::main()
}
