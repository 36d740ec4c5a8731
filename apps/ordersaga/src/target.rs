//! Which system a command asks: by the address of one of its services, which knows the others.

use std::env;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::Service;
use serde_json::Value;

use crate::http::{Answer, Http};

/// Holds the token: a secret is no argument, where everybody on the machine could read it.
const TOKEN: &str = "ORDERSAGA_TOKEN";
/// Where `ordersaga up` has service-monitoring-order.
const USUAL: &str = "http://localhost:8001";
/// How long monitoring has to name the others.
const LIMIT: Duration = Duration::from_secs(5);
/// Where the order desk has which services there are.
const SERVICES: &str = "/desk/services.json";

/// Chooses the system that a command asks. The environment's `ORDERSAGA_TOKEN` is sent as a bearer
/// token.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// The address of service-monitoring-order, which knows the other services. A token for it is
    /// read from `ORDERSAGA_TOKEN`
    #[arg(long, env = "ORDERSAGA_URL", default_value = USUAL)]
    #[arg(value_name = "URL", value_parser = origin)]
    url: String,
}

/// A system that is asked.
pub(crate) struct System {
    http: Http,
    monitoring: String,
    /// Asked for when first needed.
    others: OnceLock<Others>,
}

/// The addresses of the other services.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Others {
    create: String,
    store: String,
}

impl Target {
    /// The system, not asked yet.
    pub(crate) fn system(&self) -> System {
        self.by(Http::new(token().as_deref()))
    }

    /// The same, whose requests may take so long.
    pub(crate) fn system_within(&self, limit: Duration) -> System {
        self.by(Http::within(token().as_deref(), limit))
    }

    fn by(&self, http: Http) -> System {
        System { http, monitoring: self.url.clone(), others: OnceLock::new() }
    }

    /// The address of service-monitoring-order.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is the system at the usual ports of this machine, as if none were named.
    pub(crate) fn is_usual(&self) -> bool {
        self.url == USUAL
    }
}

fn token() -> Option<String> {
    env::var(TOKEN).ok().filter(|token| !token.is_empty())
}

impl System {
    /// The address of a service, without a `/` at its end.
    pub(crate) fn address(&self, service: Service) -> Result<&str> {
        if service == Service::Monitoring {
            return Ok(&self.monitoring);
        }
        let others = if let Some(others) = self.others.get() {
            others
        } else {
            let found = self.find()?;
            self.others.get_or_init(|| found)
        };
        Ok(if service == Service::Store { &others.store } else { &others.create })
    }

    /// The same; where nobody tells the addresses of the others, the usual ones.
    pub(crate) fn address_or_usual(&self, service: Service) -> Result<String> {
        self.address(service)
            .map(str::to_owned)
            .or_else(|_| at_port(&self.monitoring, service.port()))
    }

    /// Sends the requests.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// Reads from a service, again if it is busy. Each time it has so long.
    pub(crate) fn read(&self, service: Service, path: &str, limit: Duration) -> Result<Answer> {
        self.http.read(&self.url(service, path)?, limit)
    }

    /// The address of something at a service.
    pub(crate) fn url(&self, service: Service, path: &str) -> Result<String> {
        Ok(format!("{}{path}", self.address(service)?))
    }

    fn find(&self) -> Result<Others> {
        let answer = self.http.read(&format!("{}{SERVICES}", self.monitoring), LIMIT)?;
        // A service without the order desk does not know them.
        let known = if answer.status == 404 { Value::Null } else { answer.accept(200)? };
        others(&self.monitoring, &known)
    }
}

/// The other services: those that are named, else the same host at the ports they usually have.
fn others(monitoring: &str, known: &Value) -> Result<Others> {
    let find = |title: &str, service: Service| match known[title].as_str() {
        Some(url) => origin(url).map_err(anyhow::Error::msg),
        None => at_port(monitoring, service.port()),
    };
    Ok(Others {
        create: find("Create order", Service::CreateOrder)?,
        store: find("Store", Service::Store)?,
    })
}

/// The same scheme and host at another port.
fn at_port(origin: &str, port: u16) -> Result<String> {
    let (scheme, host) = origin.split_once("://").context("no scheme")?;
    let end = host.rfind(':').filter(|at| !host[*at..].contains(']'));
    Ok(format!("{scheme}://{}:{port}", &host[..end.unwrap_or(host.len())]))
}

/// Checks an address: scheme, host and perhaps port.
fn origin(url: &str) -> Result<String, String> {
    let check = || {
        let origin = url.trim_end_matches('/');
        let address: ureq::http::Uri = origin.parse().context("it is no address")?;
        let is_http = matches!(address.scheme_str(), Some("http" | "https"));
        ensure!(is_http, "it begins with http:// or https://");
        let host = address.authority().context("it names no host")?;
        ensure!(!host.as_str().contains('@'), "secrets belong into {TOKEN}, not into an address");
        ensure!(address.path() == "/" && address.query().is_none(), "it ends with host and port");
        anyhow::Ok(origin.to_owned())
    };
    check().map_err(|error| format!("{error:#}, as http://localhost:8001"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_others_are_those_that_are_named_or_beside_it() -> Result<()> {
        let named = json!({"Create order": "https://create.example.org", "Store": "http://x:1/"});
        let found = others("http://localhost:8001", &named)?;
        assert_eq!(found.create, "https://create.example.org");
        assert_eq!(found.store, "http://x:1");
        let found = others("http://[::1]:18001", &json!({"Monitoring": "http://[::1]:18001"}))?;
        assert_eq!(found.create, "http://[::1]:8000");
        assert_eq!(others("http://shop", &Value::Null)?.store, "http://shop:8002");
        let wrong = json!({"Store": "file:///etc/passwd"});
        assert!(others("http://shop", &wrong).is_err());
        Ok(())
    }

    #[test]
    fn an_address_is_a_scheme_and_a_host() {
        for right in ["http://localhost:8001", "https://shop.example.org/", "http://[::1]:8001"] {
            assert_eq!(origin(right).as_deref(), Ok(right.trim_end_matches('/')));
        }
        for wrong in [
            "localhost:8001",
            "ftp://x",
            "http://",
            "http://me:secret@x",
            "http://x/api",
            "http://x?a",
        ] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }
}
