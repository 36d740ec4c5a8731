//! Registration in a Schema Registry that speaks Confluent's REST API, as Redpanda's does
//! (<https://docs.redpanda.com/current/manage/schema-reg/schema-reg-api/>; its JSON Schema support
//! includes draft 2020-12).
//!
//! Subjects are named topic-type (`incoming-OrderPlaced`), since topics carry several types:
//! Confluent's `TopicRecordNameStrategy`.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ordersaga_contract::schema::{self, EventSchema};
use ordersaga_runtime::backoff::Backoff;
use ordersaga_runtime::config::{Secret, SecretParser};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Request;
use ureq::tls::{RootCerts, TlsConfig};

/// What this version's schemas have to be to their predecessors.
const COMPATIBILITY: &str = "BACKWARD";
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

/// What became of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registered {
    subject: String,
    version: i64,
    is_new: bool,
}

impl fmt::Display for Registered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, version, is_new } = self;
        let what = if *is_new { "registered as" } else { "unchanged," };
        write!(formatter, "{subject}: {what} version {version}")
    }
}

/// Registers every event's schema, if a registry is given. An incompatible schema is an error
/// before anything is changed.
pub(crate) async fn register(registry: &Registry, prefix: &str) -> Result<Vec<Registered>> {
    let Some(url) = registry.url.clone() else { return Ok(Vec::new()) };
    let client = Client::new(url, registry);
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

struct Client {
    agent: Agent,
    url: String,
    authorization: Option<Secret>,
}

impl Client {
    fn new(url: String, registry: &Registry) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build();
        let credentials = registry.user.as_ref().zip(registry.password.as_ref());
        let authorization = credentials.map(|(user, password)| {
            let both = BASE64_STANDARD.encode(format!("{user}:{}", password.expose()));
            Secret::new(format!("Basic {both}"))
        });
        Self { agent: agent.into(), url, authorization }
    }

    fn register(&self, prefix: &str, events: &[EventSchema]) -> Result<Vec<Registered>> {
        let mut planned = Vec::new();
        for event in events {
            let subject = format!("{prefix}{}-{}", event.topic, event.name);
            let state = self.state(&subject, event)?;
            planned.push((subject, event, state));
        }
        planned
            .into_iter()
            .map(|(subject, event, state)| self.carry_out(subject, event, state))
            .collect()
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

    fn carry_out(&self, subject: String, event: &EventSchema, state: State) -> Result<Registered> {
        if let State::Registered(version) = state {
            self.set_compatibility(&subject)?;
            return Ok(Registered { subject, version, is_new: false });
        }
        // The rule comes first where it can matter; some registries have no rule for a subject
        // that is not there yet.
        if matches!(state, State::Successor) {
            self.set_compatibility(&subject)?;
        }
        let path = format!("/subjects/{subject}/versions");
        let registered = self.ask("POST", &path, Some(&body(event)))?;
        registered.with_context(|| format!("{subject} cannot be registered"))?;
        if matches!(state, State::First) {
            self.set_compatibility(&subject)?;
        }
        let found = self.ask("POST", &format!("/subjects/{subject}"), Some(&body(event)))?;
        let found = found.with_context(|| format!("{subject} was registered and is not there"))?;
        Ok(Registered { version: version(&found)?, subject, is_new: true })
    }

    fn set_compatibility(&self, subject: &str) -> Result<()> {
        let path = format!("/config/{subject}");
        let present = self.ask("GET", &path, None)?;
        if present.is_some_and(|config| config["compatibilityLevel"] == COMPATIBILITY) {
            return Ok(());
        }
        let wanted = json!({ "compatibility": COMPATIBILITY });
        let set = self.ask("PUT", &path, Some(&wanted))?;
        set.with_context(|| format!("the registry knows no {subject}")).map(drop)
    }

    /// The answer, or none where the registry does not know what is asked for. A registry that is
    /// away or busy is asked again for a while.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Option<Value>> {
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let error = match self.send(method, path, body) {
                Ok((404, _)) => return Ok(None),
                Ok((status, answer)) if (200..300).contains(&status) => return Ok(Some(answer)),
                Ok((status, answer)) => {
                    let error =
                        anyhow!("{status}: {}", answer["message"].as_str().unwrap_or("no reason"));
                    ensure!(
                        status >= 500 || status == 429,
                        refused(method, &self.url, path, &error)
                    );
                    error
                }
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
        assert_eq!(register(&registry, "").await?, []);
        Ok(())
    }
}
