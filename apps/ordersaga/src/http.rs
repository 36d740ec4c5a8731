//! Requests to the services, and their answers as people are told of them.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{RootCerts, TlsConfig};

/// How long a request may take; more than the longest long poll.
const LIMIT: Duration = Duration::from_secs(40);
const CONNECT: Duration = Duration::from_secs(5);
/// How often a read is tried, and how long is waited between two tries at the most.
const TRIES: u32 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A stream says something every few seconds.
const SILENCE: Duration = Duration::from_mins(1);

/// Sends requests; clones share its connections.
#[derive(Clone)]
pub(crate) struct Http {
    agent: Agent,
    /// What `Authorization` says.
    bearer: Option<String>,
    /// How long a request may take, unless its caller says so.
    limit: Duration,
}

/// An answer of a service.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Who has answered, for messages.
    pub(crate) url: String,
    pub(crate) status: u16,
    /// As it came; for people.
    pub(crate) text: String,
    /// The same as JSON, null when it is not.
    pub(crate) body: Value,
    /// What the service's clock said, in the form of HTTP.
    pub(crate) date: Option<String>,
    retry_after: Option<Duration>,
}

impl Http {
    /// With a token for services that ask for one.
    pub(crate) fn new(token: Option<&str>) -> Self {
        Self::within(token, LIMIT)
    }

    /// The same, for requests that may take so long.
    pub(crate) fn within(token: Option<&str>, limit: Duration) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(tls)
            .timeout_connect(Some(CONNECT.min(limit)))
            .timeout_global(Some(limit))
            .build();
        Self { agent: config.into(), bearer: token.map(|token| format!("Bearer {token}")), limit }
    }

    /// Asks once.
    pub(crate) fn get(&self, url: &str) -> Result<Answer> {
        self.get_within(url, self.limit)
    }

    /// Asks once, for so long.
    pub(crate) fn get_within(&self, url: &str, limit: Duration) -> Result<Answer> {
        let mut request = self.agent.get(url);
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        let request = request.config().timeout_global(Some(limit)).build();
        answer(url, request.call())
    }

    /// Asks again while the service is busy or away, if it says that one may. Each time it has so
    /// long.
    pub(crate) fn read(&self, url: &str, limit: Duration) -> Result<Answer> {
        let mut tries = 1;
        loop {
            let answer = self.get_within(url, limit)?;
            let pause = matches!(answer.status, 429 | 503)
                .then(|| pause(tries, answer.retry_after, fastrand::f64()));
            match pause.flatten() {
                Some(pause) => wait(pause),
                None => return Ok(answer),
            }
            tries += 1;
        }
    }

    /// Sends once: whether it may be repeated, its caller knows.
    pub(crate) fn post(
        &self,
        url: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer> {
        let mut request = self.agent.post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        let response = match body {
            None => request.send_empty(),
            Some(body) => request.header("content-type", "application/json").send(body.to_string()),
        };
        answer(url, response)
    }

    /// Opens a stream of events; what its service sends is read as it comes.
    pub(crate) fn open(&self, url: &str, seen: Option<&str>) -> Result<Response<ureq::Body>> {
        let mut request = self.agent.get(url).header("accept", "text/event-stream");
        for (name, value) in [("authorization", self.bearer.as_deref()), ("last-event-id", seen)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let request = request.config().timeout_global(None).timeout_per_read(Some(SILENCE)).build();
        let response = request.call();
        if response.as_ref().is_ok_and(|response| response.status() == 200) {
            return Ok(response?);
        }
        let answer = answer(url, response)?;
        bail!(answer.problem())
    }
}

/// The one place in which requests of the tool wait.
pub(crate) fn wait(pause: Duration) {
    #[expect(clippy::disallowed_methods, reason = "nothing tells when a service has room again")]
    std::thread::sleep(pause);
}

/// How long to wait after so many tries; `None` to give up. `jitter` is from 0 to 1, so that those
/// who were refused together do not come back together.
fn pause(tries: u32, retry_after: Option<Duration>, jitter: f64) -> Option<Duration> {
    let own = Duration::from_millis(100) * 2_u32.pow(tries.min(10));
    let least = retry_after.unwrap_or_default();
    (tries < TRIES && least <= LONGEST_PAUSE).then(|| least + own.mul_f64(jitter))
}

fn answer(url: &str, response: Result<Response<ureq::Body>, ureq::Error>) -> Result<Answer> {
    let mut response = response.map_err(|error| no_answer(url, error))?;
    let text = response.body_mut().read_to_string();
    let text = text.with_context(|| format!("the answer of {url} broke off"))?;
    Ok(Answer {
        url: url.to_owned(),
        status: response.status().as_u16(),
        body: serde_json::from_str(&text).unwrap_or_default(),
        text,
        date: header(response.headers(), "date").map(str::to_owned),
        retry_after: retry_after(response.headers()),
    })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    Some(Duration::from_secs(header(headers, "retry-after")?.trim().parse().ok()?))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Why there is no answer, and what to do.
fn no_answer(url: &str, error: ureq::Error) -> anyhow::Error {
    let at = origin_of(url);
    match error {
        ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
            anyhow!("no answer at {at}: is the stack running? `ordersaga up` starts it")
        }
        ureq::Error::HostNotFound => anyhow!("no host is called as {at} says"),
        ureq::Error::Timeout(_) => anyhow!("{at} did not answer {url} in time"),
        error => anyhow!("{at} could not be asked: {error}"),
    }
}

/// Scheme, host and port of an address.
fn origin_of(url: &str) -> &str {
    let begin = url.find("://").map_or(0, |at| at + "://".len());
    let end = url[begin..].find(['/', '?']).map_or(url.len(), |at| begin + at);
    &url[..end]
}

impl Answer {
    /// The body of an answer with this status.
    pub(crate) fn accept(self, status: u16) -> Result<Value> {
        ensure!(self.status == status, "{}", self.problem());
        Ok(self.body)
    }

    /// What it says is wrong, as a sentence.
    pub(crate) fn problem(&self) -> String {
        let part = |name| self.body[name].as_str();
        let at = origin_of(&self.url);
        let Some(kind) = part("type") else {
            let status = self.status;
            return format!(
                "{at} answered {status}, not as ordersaga does: is it the right address?"
            );
        };
        let (title, detail) = (part("title").unwrap_or(kind), part("detail").unwrap_or_default());
        let request = part("request_id").filter(|_| self.status >= 500);
        let request = request.map_or_else(String::new, |id| format!(", request {id}"));
        format!("{at}: {title}: {detail} ({kind}{request})")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer_of(status: u16, body: Value) -> Answer {
        let url = "http://x:8001/api/v1/status?order_id=1".to_owned();
        Answer { url, status, text: body.to_string(), body, date: None, retry_after: None }
    }

    #[test]
    fn a_problem_is_a_sentence_with_its_type() {
        let problem = json!({"type": "urn:ordersaga:problem:not-found", "status": 404,
            "title": "There is no such thing", "detail": "no order 1", "request_id": "ab"});
        let mut answer = answer_of(404, problem);
        assert_eq!(
            answer.problem(),
            "http://x:8001: There is no such thing: no order 1 (urn:ordersaga:problem:not-found)"
        );
        answer.status = 503;
        assert!(answer.problem().ends_with("not-found, request ab)"), "{}", answer.problem());
        assert!(answer.accept(200).is_err());
        let foreign = answer_of(404, Value::Null).problem();
        assert!(foreign.starts_with("http://x:8001 answered 404, not as ordersaga"), "{foreign}");
    }

    #[test]
    fn a_pause_is_as_long_as_the_service_says_and_grows() {
        let (no_jitter, whole) = (0.0, 1.0);
        let said = Some(Duration::from_secs(2));
        assert_eq!(pause(1, said, no_jitter), said);
        assert!(pause(2, said, whole) > pause(1, said, whole));
        assert_eq!(pause(1, None, whole), Some(Duration::from_millis(200)));
        assert_eq!(pause(TRIES, said, no_jitter), None, "it gives up");
        assert_eq!(pause(1, Some(Duration::from_mins(1)), no_jitter), None, "too long");
    }

    #[test]
    fn an_origin_ends_at_the_path() {
        assert_eq!(origin_of("http://[::1]:8001/api?x=http://y/"), "http://[::1]:8001");
        assert_eq!(origin_of("https://x"), "https://x");
    }

    #[test]
    fn where_nothing_listens_one_is_told_what_to_start() {
        let port = ordersaga_devstack::free_port().unwrap();
        let url = format!("http://127.0.0.1:{port}/ready");
        let error = Http::new(None).get(&url).unwrap_err().to_string();
        assert!(error.contains("is the stack running? `ordersaga up`"), "{error}");
    }
}
