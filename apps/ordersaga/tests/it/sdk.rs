//! The clients that `ordersaga sdk` makes: each is made, compiled and used as its README says, on a
//! real system.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Service, cache_folder};

use crate::bed::{saga, skipped};

/// Set by `cargo ordersaga test --all`.
const ALL: &str = "ORDERSAGA_TEST_ALL";
/// How the tool ends when the machine lacks a program.
const LACKS_A_PROGRAM: Option<i32> = Some(3);

fn works(client: &str) -> Result<()> {
    // At the same place in each run: compilers know again what they have compiled there.
    let folder = cache_folder()?.join("sdk-tests").join(client);
    std::fs::create_dir_all(&folder)?;
    let others = File::create(folder.join("lock"))?;
    others.lock()?;
    let package = folder.join("package");
    if package.exists() {
        std::fs::remove_dir_all(&package)?;
    }
    let mut tool = Command::new(env!("CARGO_BIN_EXE_ordersaga"));
    let made = tool.args(["sdk", client, "--out"]).arg(&package).output()?;
    let said = String::from_utf8_lossy(&made.stderr);
    if made.status.code() == LACKS_A_PROGRAM {
        skipped(said.trim());
        return Ok(());
    }
    ensure!(made.status.success(), "{}: {said}", made.status);
    saga(async |bed| {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &commands(&package)?]).current_dir(&package);
        bash.env("CARGO_TARGET_DIR", folder.join("target"));
        for (name, service) in [
            ("ORDERS_URL", Service::CreateOrder),
            ("STATUS_URL", Service::Monitoring),
            ("STORE_URL", Service::Store),
        ] {
            bash.env(name, bed.url(service));
        }
        let said = ordersaga_devstack::run(&mut bash)?;
        for step in ["SHIPPING", "CANCELLED", "404", "422"] {
            ensure!(said.contains(step), "the demo says nothing of {step}:\n{said}");
        }
        Ok(())
    })
}

/// The commands in the package's README.
fn commands(package: &Path) -> Result<String> {
    let text = std::fs::read_to_string(package.join("README.md"))?;
    let (_, rest) = text.split_once("```sh\n").context("no commands")?;
    let (commands, _) = rest.split_once("```").context("commands without an end")?;
    Ok(commands.to_owned())
}

/// By more generators than the language's own.
fn also_works(client: &str) -> Result<()> {
    if std::env::var_os(ALL).is_none() {
        skipped("cargo ordersaga test --all tries it");
        return Ok(());
    }
    works(client)
}

#[test]
fn typescript() -> Result<()> {
    works("typescript")
}

#[test]
fn python() -> Result<()> {
    works("python")
}

#[test]
fn rust() -> Result<()> {
    works("rust")
}

#[test]
fn go() -> Result<()> {
    also_works("go")
}

#[test]
fn java() -> Result<()> {
    also_works("java")
}

#[test]
fn hey_api() -> Result<()> {
    also_works("hey-api")
}

#[test]
fn openapi_generator_python() -> Result<()> {
    also_works("openapi-generator-python")
}

#[test]
fn openapi_generator_typescript() -> Result<()> {
    also_works("openapi-generator-typescript")
}

#[test]
fn openapi_generator_go() -> Result<()> {
    also_works("openapi-generator-go")
}

#[test]
fn openapi_generator_rust() -> Result<()> {
    also_works("openapi-generator-rust")
}
