//! The schema registry is read-only but for the moment in which `topics apply` writes. Redpanda's own
//! is not at hand: its stand-in has the same endpoints, rights, modes and error codes
//! (`redpanda/standins/registry`), and asks the broker who may log in, as Redpanda does.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ordersaga_devstack::free_port;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use ureq::Agent;
use ureq::http::Request;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::bed::{Bed, block_on, until};
use crate::dlq::Said;
use crate::secure::{Parts, USERS, parts, password_of};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../redpanda/standins/registry");
const SUBJECTS: [&str; 4] = [
    "incoming-OrderPlaced",
    "reservation-ItemReserved",
    "reservation-ReservationReleased",
    "reset-OrderReset",
];

/// A registry beside the secured parts; it goes with this value.
pub(crate) struct Registry {
    port: u16,
    agent: Agent,
    admin_password: String,
    _process: Child,
}

impl Registry {
    pub(crate) async fn start(parts: &Parts, settings: &[(&str, &str)]) -> Result<Self> {
        let (port, security) = (free_port()?, &parts.security);
        let admin_password = security.admin_password.clone();
        let identity = [security.certificate(), security.key()];
        let process = Command::new("python3")
            .arg(PROGRAM)
            .env("RP_BOOTSTRAP_USER", format!("admin:{admin_password}"))
            .env("REGISTRY_LISTEN", format!("127.0.0.1:{port}"))
            .env("REGISTRY_BROKER", parts.broker.url())
            .env("REGISTRY_BROKER_CA", parts.authority())
            .env("REGISTRY_CERTIFICATE", identity.map(|file| file.display().to_string()).join(" "))
            .envs(settings.iter().copied())
            .kill_on_drop(true)
            .spawn()
            .context("python3, for the stand-in of the schema registry")?;
        let authority = Certificate::from_pem(&std::fs::read(parts.authority())?)?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[authority])).build();
        let agent = Agent::config_builder().tls_config(tls).http_status_as_error(false).build();
        until("the registry listens", async || {
            Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok())
        })
        .await?;
        Ok(Self { port, agent: agent.into(), admin_password, _process: process })
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// What it answers to this USER:PASSWORD: a status and a body.
    fn ask(&self, login: &str, request: &str, body: &Value) -> Result<(u16, Value)> {
        let (method, path) = request.split_once(' ').context("METHOD PATH is expected")?;
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url()))
            .header("authorization", format!("Basic {}", BASE64_STANDARD.encode(login)));
        let mut answer = self.agent.run(request.body(body.to_string())?)?;
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), serde_json::from_str(&text)?))
    }

    fn by_admin(&self, request: &str, body: &Value) -> Result<Value> {
        match self.ask(&format!("admin:{}", self.admin_password), request, body)? {
            (200, answer) => Ok(answer),
            (status, answer) => bail!("{request}: {status} {answer}"),
        }
    }

    fn mode(&self) -> Result<Value> {
        Ok(self.by_admin("GET /mode", &Value::Null)?["mode"].clone())
    }

    /// `topics apply` as this user of the registry.
    async fn apply(&self, parts: &Parts, bed: &Bed, user: &str, password: &str) -> Result<Said> {
        let mut job = parts.job(bed)?;
        job.env("SCHEMA_REGISTRY_URL", self.url())
            .env("SCHEMA_REGISTRY_USER", user)
            .env("SCHEMA_REGISTRY_PASSWORD", password)
            .env("SCHEMA_REGISTRY_CA_FILE", parts.authority());
        Said::by(job).await
    }

    async fn apply_as_admin(&self, parts: &Parts, bed: &Bed) -> Result<Said> {
        self.apply(parts, bed, "admin", &self.admin_password).await
    }

    /// Nobody can change anything, whoever he is, and everybody can read.
    fn refuses_everybody(&self, bed: &Bed) -> Result<()> {
        let admin = ("admin", self.admin_password.clone());
        let users = USERS.map(|(user, _)| (user, password_of(user)));
        for (user, password) in users.into_iter().chain([admin]) {
            let login = format!("{user}:{password}");
            let subject = format!("{}{}", bed.prefix, SUBJECTS[0]);
            let rule = json!({ "compatibility": "NONE" });
            for (request, body) in [
                (format!("POST /subjects/{subject}/versions"), foreign_schema()),
                ("POST /subjects/mine/versions".to_owned(), foreign_schema()),
                (format!("DELETE /subjects/{subject}"), Value::Null),
                (format!("PUT /config/{subject}"), rule.clone()),
                ("PUT /config".to_owned(), rule),
            ] {
                let (status, answer) = self.ask(&login, &request, &body)?;
                let is_refused = status == 422 && answer["error_code"] == 42205;
                ensure!(is_refused, "{user}: {request}: {status} {answer}");
            }
            let latest = format!("GET /subjects/{subject}/versions/latest");
            ensure!(self.ask(&login, &latest, &Value::Null)?.0 == 200, "{user} cannot read");
            if user != "admin" {
                let (status, answer) =
                    self.ask(&login, "PUT /mode", &json!({ "mode": "READWRITE" }))?;
                ensure!(status == 403, "{user} opens it: {status} {answer}");
            }
            let wrong = format!("{user}:wrong");
            ensure!(self.ask(&wrong, &latest, &Value::Null)?.0 == 401, "{user} with any password");
        }
        Ok(())
    }
}

fn foreign_schema() -> Value {
    json!({ "schemaType": "JSON", "schema": "{}" })
}

async fn with_registry(
    name: &str,
    settings: &[(&str, &str)],
    test: impl AsyncFnOnce(&Parts, &Bed, &Registry) -> Result<()>,
) -> Result<()> {
    let parts = parts().await?;
    let registry = Registry::start(parts, settings).await?;
    let run = async |bed: &mut Bed| test(parts, bed, &registry).await;
    parts.plan(name).await?.run(run).await
}

#[test]
fn nobody_but_the_topics_job_changes_schemas() -> Result<()> {
    block_on(with_registry("closed", &[], async |parts, bed, registry| {
        let first = registry.apply_as_admin(parts, bed).await?.expect(0, "is READONLY")?.text;
        ensure!(first.contains("was open to every user"), "{first}");
        for subject in SUBJECTS {
            let line = format!("{}{subject}: registered as version 1", bed.prefix);
            ensure!(first.contains(&line), "{first}");
            let rule =
                registry.by_admin(&format!("GET /config/{}{subject}", bed.prefix), &Value::Null)?;
            ensure!(rule["compatibilityLevel"] == "BACKWARD", "{subject}: {rule}");
        }
        registry.refuses_everybody(bed)?;
        let again = registry.apply_as_admin(parts, bed).await?.expect(0, "is READONLY")?.text;
        ensure!(!again.contains("open"), "{again}");
        ensure!(again.matches(": unchanged, version 1").count() == SUBJECTS.len(), "{again}");
        registry.refuses_everybody(bed)
    }))
}

/// A subject of a mode of its own refuses, as Redpanda's does.
#[test]
fn a_registration_that_stops_midway_leaves_the_registry_closed() -> Result<()> {
    block_on(with_registry("midway", &[], async |parts, bed, registry| {
        let stubborn = format!("/mode/{}{}", bed.prefix, SUBJECTS[2]);
        registry.by_admin(&format!("PUT {stubborn}"), &json!({ "mode": "READONLY" }))?;
        let said = registry.apply_as_admin(parts, bed).await?.expect(1, "in read-only mode")?.text;
        ensure!(said.contains("stopped midway, the schema registry is READONLY again"), "{said}");
        registry.refuses_everybody(bed)?;

        registry.by_admin(&format!("DELETE {stubborn}"), &Value::Null)?;
        let said = registry.apply_as_admin(parts, bed).await?.expect(0, "is READONLY")?.text;
        ensure!(said.matches(": unchanged, version 1").count() == 2, "{said}");
        ensure!(said.matches(": registered as version 1").count() == 2, "{said}");
        registry.refuses_everybody(bed)
    }))
}

#[test]
fn the_next_run_closes_what_one_that_died_left_open() -> Result<()> {
    block_on(with_registry("died", &[], async |parts, bed, registry| {
        registry.apply_as_admin(parts, bed).await?.expect(0, "is READONLY")?;
        registry.by_admin("PUT /mode", &json!({ "mode": "READWRITE" }))?;
        let said = registry.apply_as_admin(parts, bed).await?.expect(0, "cut short")?;
        said.expect(0, "the schema registry is READONLY")?;
        registry.refuses_everybody(bed)
    }))
}

#[test]
fn schemas_are_registered_by_a_superuser_only() -> Result<()> {
    block_on(with_registry("superuser", &[], async |parts, bed, registry| {
        // The users are made by the first run.
        Said::by(parts.job(bed)?).await?.expect(0, "")?;
        let said = registry.apply(parts, bed, "console", &password_of("console")).await?;
        let said = said.expect(1, "superuser of the broker")?.text;
        ensure!(said.contains("403"), "{said}");
        ensure!(registry.mode()? == "READWRITE", "it was not his to change");
        for subject in SUBJECTS {
            let path = format!("GET /subjects/{}{subject}/versions/latest", bed.prefix);
            ensure!(registry.by_admin(&path, &Value::Null).is_err(), "{subject} is registered");
        }
        Ok(())
    }))
}

#[test]
fn a_registry_whose_mode_cannot_be_set_is_said_to_be_open() -> Result<()> {
    for kind in ["none", "fixed"] {
        let test = async |parts: &Parts, bed: &Bed, registry: &Registry| {
            let said = registry.apply_as_admin(parts, bed).await?;
            let said = said.expect(0, "the schema registry's mode cannot be set")?.text;
            ensure!(said.matches(": registered as version 1").count() == SUBJECTS.len(), "{said}");
            Ok(())
        };
        block_on(with_registry(kind, &[("REGISTRY_MODES", kind)], test))?;
    }
    Ok(())
}
