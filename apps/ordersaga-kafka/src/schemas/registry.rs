//! Registration in a Schema Registry that speaks Confluent's REST API, as Redpanda's does
//! (<https://docs.redpanda.com/current/manage/schema-reg/schema-reg-api/>; its JSON Schema support
//! includes draft 2020-12).
//!
//! Subjects are named topic-type (`incoming-OrderPlaced`), since topics carry several types:
//! Confluent's `TopicRecordNameStrategy`.
//!
//! Redpanda's registry lets every user of the broker register and delete schemas and set their
//! rules; only its mode needs a superuser. So it is read-only but for the moment in which this
//! module writes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ordersaga_contract::schema::{self, EventSchema};
use ordersaga_runtime::config::{Secret, SecretParser, readable_file};
use sagabus::backoff::Backoff;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Request;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// What this version's schemas have to be to their predecessors.
const COMPATIBILITY: &str = "BACKWARD";
/// The mode in which nobody can change anything but the mode, and the one in which all can.
const CLOSED: &str = "READONLY";
const OPEN: &str = "READWRITE";
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a registry that is away is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where schemas are registered, if anywhere.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Registry {
    /// Schema Registry to register the events' schemas in, as `http://redpanda:8081`; none: they
    /// are not registered
    #[arg(id = "schema_registry_url", long = "schema-registry-url", env = "SCHEMA_REGISTRY_URL",
          value_parser = http_url)]
    url: Option<String>,
    /// User of the registry
    #[arg(
        id = "schema_registry_user",
        long = "schema-registry-user",
        env = "SCHEMA_REGISTRY_USER",
        requires = "schema_registry_password"
    )]
    user: Option<String>,
    /// Password of that user
    #[arg(id = "schema_registry_password", long = "schema-registry-password",
          env = "SCHEMA_REGISTRY_PASSWORD", hide_env_values = true,
          value_parser = SecretParser { prefixes: &[] }, requires = "schema_registry_user")]
    password: Option<Secret>,
    /// PEM of the authorities that may have signed the registry's certificate [default: those the
    /// system trusts]
    #[arg(
        id = "schema_registry_ca_file",
        long = "schema-registry-ca-file",
        value_name = "FILE",
        env = "SCHEMA_REGISTRY_CA_FILE",
        value_parser = readable_file
    )]
    ca_file: Option<PathBuf>,
}

fn http_url(value: &str) -> Result<String, String> {
    let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    match rest {
        Some(rest) if rest.contains('@') => {
            Err("user and password have their own variables".into())
        }
        Some(rest) if !rest.is_empty() => Ok(value.trim_end_matches('/').to_owned()),
        _ => Err("http://host:port or https://host:port is expected".to_owned()),
    }
}

/// Registers every event's schema, if a registry is given, saying so, and leaves the registry
/// closed. An incompatible schema is an error before anything is registered.
pub(crate) async fn register(registry: &Registry, prefix: &str) -> Result<()> {
    let Some(url) = registry.url.clone() else { return Ok(()) };
    let client = Client::new(url, registry)?;
    let prefix = prefix.to_owned();
    let work = move || client.register(&prefix, &schema::all());
    tokio::task::spawn_blocking(work).await?
}

/// A schema's state before registration.
#[derive(Clone, Copy)]
enum State {
    /// It is registered, as this version.
    Registered(i64),
    /// The subject has other versions, to which it is compatible.
    Successor,
    /// The subject is unknown.
    First,
}

/// What there is to do for one schema.
struct Planned<'a> {
    subject: String,
    event: &'a EventSchema,
    state: State,
    has_rule: bool,
}

impl Planned<'_> {
    fn is_done(&self) -> bool {
        matches!(self.state, State::Registered(_)) && self.has_rule
    }
}

struct Client {
    agent: Agent,
    url: String,
    authorization: Option<Secret>,
}

impl Client {
    fn new(url: String, registry: &Registry) -> Result<Self> {
        let trusted = registry.ca_file.as_deref().map(authorities).transpose()?;
        let trusted = trusted.unwrap_or(RootCerts::PlatformVerifier);
        let agent = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(trusted).build())
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build();
        let credentials = registry.user.as_ref().zip(registry.password.as_ref());
        let authorization = credentials.map(|(user, password)| {
            let both = BASE64_STANDARD.encode(format!("{user}:{}", password.expose()));
            Secret::new(format!("Basic {both}"))
        });
        Ok(Self { agent: agent.into(), url, authorization })
    }

    fn register(&self, prefix: &str, events: &[EventSchema]) -> Result<()> {
        // First, in case a run before this one was cut short: whatever is found below stands.
        let can_close = self.close()?;
        let planned = events.iter().map(|event| self.plan(prefix, event));
        let planned = planned.collect::<Result<Vec<_>>>()?;
        let is_done = planned.iter().all(Planned::is_done);
        let work = || planned.into_iter().try_for_each(|planned| self.carry_out(planned));
        if is_done || !can_close {
            work()?;
        } else {
            self.while_open(work)?;
        }
        if can_close {
            say!("the schema registry is {CLOSED}");
        } else {
            say!(
                "the schema registry's mode cannot be set: whoever may log in to it may change and \
                 delete schemas"
            );
        }
        Ok(())
    }

    /// Makes the registry read-only, if it is not; false: it has no mode that could be set.
    fn close(&self) -> Result<bool> {
        let answer = self.ask("GET", "/mode", None)?;
        let mode = answer.as_ref().and_then(|answer| answer["mode"].as_str());
        match mode {
            None => Ok(false),
            Some(CLOSED) => Ok(true),
            Some(open) => {
                let is_closed = self.set_mode(CLOSED)?;
                if is_closed {
                    say!(
                        "the schema registry was open to every user ({open}): it is new, or a run \
                         before this one was cut short"
                    );
                }
                Ok(is_closed)
            }
        }
    }

    /// Opens the registry for the time of `work` and closes it again, whatever came of it.
    fn while_open(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let set = |mode| {
            let is_set = self.set_mode(mode)?;
            ensure!(is_set, "the schema registry does not let its mode be set to {mode}");
            Ok(())
        };
        set(OPEN)?;
        let outcome = work();
        match (outcome, set(CLOSED)) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(error), Ok(())) => {
                Err(error.context(format!("stopped midway, the schema registry is {CLOSED} again")))
            }
            (Ok(()), Err(error)) => {
                Err(error.context("all schemas are registered, and the registry is left open"))
            }
            (Err(error), Err(closing)) => Err(error
                .context(format!("stopped midway, and the registry is left open: {closing:#}"))),
        }
    }

    /// Looks only.
    fn plan<'a>(&self, prefix: &str, event: &'a EventSchema) -> Result<Planned<'a>> {
        let subject = format!("{prefix}{}-{}", event.topic, event.name);
        let state = self.state(&subject, event)?;
        let has_rule = match state {
            // Some registries have no rule for a subject that is not there yet.
            State::First => false,
            State::Registered(_) | State::Successor => {
                let rule = self.ask("GET", &format!("/config/{subject}"), None)?;
                rule.is_some_and(|rule| rule["compatibilityLevel"] == COMPATIBILITY)
            }
        };
        Ok(Planned { subject, event, state, has_rule })
    }

    /// Sets the mode of the whole registry; false where that is nothing that can be set.
    fn set_mode(&self, mode: &str) -> Result<bool> {
        let body = json!({ "mode": mode });
        let (status, answer) = self.exchange("PUT", "/mode", Some(&body))?;
        match status {
            200..300 => Ok(true),
            // It has no modes, or was told to keep the one it has.
            404 | 405 | 422 | 501 => Ok(false),
            403 => bail!(
                "{}: SCHEMA_REGISTRY_USER has to be a superuser of the broker",
                refused("PUT", &self.url, "/mode", &said(status, &answer))
            ),
            _ => bail!(refused("PUT", &self.url, "/mode", &said(status, &answer))),
        }
    }

    /// Looks only.
    fn state(&self, subject: &str, event: &EventSchema) -> Result<State> {
        let found = self.ask("POST", &format!("/subjects/{subject}"), Some(&body(event)))?;
        if let Some(found) = found {
            return Ok(State::Registered(version(&found)?));
        }
        let path = format!("/compatibility/subjects/{subject}/versions/latest?verbose=true");
        let Some(answer) = self.ask("POST", &path, Some(&body(event)))? else {
            return Ok(State::First);
        };
        if answer["is_compatible"].as_bool().unwrap_or_default() {
            return Ok(State::Successor);
        }
        let reasons = answer["messages"].as_array().into_iter().flatten();
        let reasons: Vec<_> = reasons.filter_map(Value::as_str).collect();
        bail!(
            "the schema of {subject} is not compatible ({COMPATIBILITY}) with the registry's latest \
             version; nothing was registered: {}",
            reasons.join("; ")
        )
    }

    fn carry_out(&self, planned: Planned) -> Result<()> {
        let Planned { subject, event, state, has_rule } = planned;
        // Before a new version, so that it is judged by the rule.
        if !has_rule && !matches!(state, State::First) {
            self.set_compatibility(&subject)?;
        }
        if let State::Registered(version) = state {
            say!("{subject}: unchanged, version {version}");
            return Ok(());
        }
        let path = format!("/subjects/{subject}/versions");
        let registered = self.ask("POST", &path, Some(&body(event)))?;
        registered.with_context(|| format!("{subject} cannot be registered"))?;
        if matches!(state, State::First) {
            self.set_compatibility(&subject)?;
        }
        let found = self.ask("POST", &format!("/subjects/{subject}"), Some(&body(event)))?;
        let found = found.with_context(|| format!("{subject} was registered and is not there"))?;
        say!("{subject}: registered as version {}", version(&found)?);
        Ok(())
    }

    fn set_compatibility(&self, subject: &str) -> Result<()> {
        let wanted = json!({ "compatibility": COMPATIBILITY });
        let set = self.ask("PUT", &format!("/config/{subject}"), Some(&wanted))?;
        set.with_context(|| format!("the registry knows no {subject}")).map(drop)
    }

    /// The answer, or none where the registry does not know what is asked for.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Option<Value>> {
        match self.exchange(method, path, body)? {
            (404, _) => Ok(None),
            (200..300, answer) => Ok(Some(answer)),
            (status, answer) => bail!(refused(method, &self.url, path, &said(status, &answer))),
        }
    }

    /// The status and the answer. A registry that is away or busy is asked again for a while.
    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let error = match self.send(method, path, body) {
                Ok((status @ (429 | 500 | 502..), answer)) => said(status, &answer),
                Ok(answer) => return Ok(answer),
                Err(error) => error.into(),
            };
            ensure!(Instant::now() < deadline, refused(method, &self.url, path, &error));
            #[expect(
                clippy::disallowed_methods,
                reason = "the registry tells nothing to wait for"
            )]
            std::thread::sleep(backoff.next());
        }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), ureq::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("accept", MEDIA_TYPE)
            .header("content-type", MEDIA_TYPE);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization.expose());
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut response = self.agent.run(request.body(body)?)?;
        let text = response.body_mut().read_to_string()?;
        // A proxy's error page is no JSON: the status says enough.
        Ok((response.status().as_u16(), serde_json::from_str(&text).unwrap_or_default()))
    }
}

/// The certificates of a file.
fn authorities(file: &Path) -> Result<RootCerts> {
    let text = std::fs::read(file).with_context(|| file.display().to_string())?;
    let certificates: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .collect::<Result<_, _>>()
        .with_context(|| file.display().to_string())?;
    ensure!(!certificates.is_empty(), "{} has no certificate", file.display());
    Ok(RootCerts::new_with_certs(&certificates))
}

fn said(status: u16, answer: &Value) -> anyhow::Error {
    anyhow!("{status}: {}", answer["message"].as_str().unwrap_or("no reason"))
}

fn refused(method: &str, url: &str, path: &str, error: &anyhow::Error) -> String {
    format!("the schema registry answers {method} {url}{path} by {error:#}")
}

fn body(event: &EventSchema) -> Value {
    json!({ "schemaType": "JSON", "schema": event.schema.to_string() })
}

fn version(answer: &Value) -> Result<i64> {
    answer["version"].as_i64().with_context(|| format!("no version in the registry's {answer}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        registry: Registry,
    }

    fn parsed(arguments: &[&str]) -> Result<Registry, String> {
        Arguments::try_parse_from([&["test"], arguments].concat())
            .map(|arguments| arguments.registry)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_password_is_never_shown() {
        let arguments = ["--schema-registry-url=http://r:8081", "--schema-registry-user=u"];
        let registry = [&arguments[..], &["--schema-registry-password=geheim"]].concat();
        let registry = parsed(&registry).expect("it is complete");
        assert!(!format!("{registry:?}").contains("geheim"));
        assert!(parsed(&arguments).is_err(), "a user without a password");
        let error = parsed(&["--schema-registry-url=http://u:geheim@r:8081"]).unwrap_err();
        assert!(error.contains("their own variables"), "{error}");
    }

    #[tokio::test]
    async fn without_an_address_nothing_is_done() -> Result<()> {
        let registry = parsed(&[]).map_err(|error| anyhow!(error))?;
        register(&registry, "").await
    }
}
