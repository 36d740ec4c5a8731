//! Variables of the environment: names that are nearly ours, and proxies in the way of loopback.

use std::env;

use strsim::damerau_levenshtein;

use super::finding::{Finding, or_ok};
use super::seen::Surroundings;

/// Every variable that a service or the tool reads; a test holds the list to README.
const KNOWN: &[&str] = &[
    "ADMIN_LISTEN",
    "API_KEYS_FILE",
    "AUTH",
    "AUTH_OFF_IN_PUBLIC",
    "CACHE_TTL_SECONDS",
    "CLIENT_REQUESTS_PER_SECOND",
    "DATABASE_CONNECTIONS",
    "DATABASE_MIGRATION_URL",
    "DATABASE_URL",
    "DOCS_URLS",
    "HTTP_ADDRESS_SHARE",
    "HTTP_BODY_LIMIT_BYTES",
    "HTTP_CONCURRENCY",
    "HTTP_CONNECTIONS",
    "HTTP_HEAD_LIMIT_BYTES",
    "HTTP_HOSTS",
    "HTTP_LISTEN",
    "HTTP_LONG_POLLS",
    "HTTP_ORIGINS",
    "HTTP_SILENCE_SECONDS",
    "HTTP_STREAMS",
    "HTTP_TIMEOUT_SECONDS",
    "IDEMPOTENCY_KEYS_LIMIT",
    "IDEMPOTENCY_TTL_SECONDS",
    "ITEMS_LIMIT",
    "ITEMS_PER_SECOND",
    "JWT_AUDIENCE",
    "JWT_CLIENT_CLAIM",
    "JWT_ISSUER",
    "JWT_JWKS",
    "KAFKA_BROKERS",
    "KAFKA_CA_FILE",
    "KAFKA_CERTIFICATE_FILE",
    "KAFKA_GROUP",
    "KAFKA_KEY_FILE",
    "KAFKA_PASSWORD",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SESSION_TIMEOUT_MS",
    "KAFKA_TLS",
    "KAFKA_TOPIC_PREFIX",
    "KAFKA_USER",
    "LOG_FORMAT",
    "LOG_LEVEL",
    "ORDERSAGA_MAVEN_URL",
    "ORDERSAGA_MOUNTS_BEFORE",
    "ORDERSAGA_TEST_ALL",
    "ORDERSAGA_TEST_PARTS",
    "ORDERSAGA_TOKEN",
    "ORDERSAGA_URL",
    "ORDER_DEADLINE_SECONDS",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_TRACES_SAMPLER_ARG",
    "OUTBOX_LIMIT",
    "REDIS_CA_FILE",
    "REDIS_URL",
    "SHARDS",
    "SHARDS_MIGRATION",
    "SHUTDOWN_TIMEOUT_SECONDS",
    "STATUS_GRACE_MS",
    "STATUS_URL",
    "STUCK_AFTER_MS",
    "SWEEP_INTERVAL_MS",
    "TRACE_CONSUMERS",
    "WORKER_THREADS",
];

/// What begins so is meant for ordersaga.
const OURS: &[&str] =
    &["ORDERSAGA_", "HTTP_", "IDEMPOTENCY_", "OUTBOX_", "ITEMS_", "SHARDS_", "STUCK_"];

/// So many letters may be wrong in a name that was meant.
const TYPOS: usize = 2;

/// Variables whose names are nearly ours have no effect, which nobody tells.
pub(super) fn variables(_: &Surroundings) -> Vec<Finding> {
    let names: Vec<_> = env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    let found = names.iter().filter_map(|name| judge(name)).collect();
    or_ok(found, "no variable is nearly one of ours")
}

fn judge(name: &str) -> Option<Finding> {
    // Names are given in capitals; `http_proxy` is no setting of ours.
    if KNOWN.contains(&name) || name.ends_with("_PROXY") || name != name.to_uppercase() {
        return None;
    }
    let nearest = KNOWN.iter().min_by_key(|known| damerau_levenshtein(name, known))?;
    let is_near = name.len() > 2 * TYPOS && damerau_levenshtein(name, nearest) <= TYPOS;
    if is_near {
        let what = format!("nothing reads the variable {name}: is {nearest} meant?");
        return Some(Finding::warning(what).mend(format!("unset {name}; export {nearest}=…")));
    }
    let is_ours = OURS.iter().any(|family| name.starts_with(family));
    let what = format!("nothing reads the variable {name}");
    is_ours.then(|| Finding::warning(what).mend(format!("unset {name}; README lists the settings")))
}

/// A proxy for every address would also get requests to this machine.
pub(super) fn proxy(_: &Surroundings) -> Vec<Finding> {
    let get = |name: &str| {
        let value = env::var(name).or_else(|_| env::var(name.to_uppercase()));
        value.ok().filter(|value| !value.is_empty())
    };
    let proxies = ["http_proxy", "https_proxy", "all_proxy"];
    let set: Vec<_> = proxies.into_iter().filter(|name| get(name).is_some()).collect();
    vec![judge_proxy(&set, get("no_proxy").as_deref().unwrap_or_default())]
}

fn judge_proxy(set: &[&str], exceptions: &str) -> Finding {
    if set.is_empty() {
        return Finding::ok("none is set");
    }
    let exceptions: Vec<_> = exceptions.split(',').map(str::trim).collect();
    let is_excepted = |host: &&str| exceptions.contains(host) || exceptions.contains(&"*");
    let hosts = ["localhost", "127.0.0.1"];
    if hosts.iter().all(is_excepted) {
        return Finding::ok("this machine's own addresses are excepted");
    }
    let set = set.join(", ");
    let what = format!("{set}: clients such as curl send requests to localhost to the proxy");
    Finding::warning(what).mend("export no_proxy=localhost,127.0.0.1,::1")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_name_that_is_nearly_ours_is_told_with_the_one_meant() {
        let found = judge("HTTP_CONCURENCY").unwrap();
        assert_eq!(found.level, Level::Warning);
        assert!(found.what.ends_with("is HTTP_CONCURRENCY meant?"), "{}", found.what);
        assert!(judge("ORDERSAGA_COLOUR").unwrap().what.contains("nothing reads"));
        for name in ["HTTP_CONCURRENCY", "HTTP_PROXY", "PATH", "http_proxy", "KAFKA_HEAP_OPTS"] {
            assert_eq!(judge(name), None, "{name}");
        }
    }

    #[test]
    fn a_proxy_is_told_unless_this_machine_is_excepted() {
        assert_eq!(judge_proxy(&[], "").level, Level::Ok);
        assert_eq!(judge_proxy(&["http_proxy"], "example.org").level, Level::Warning);
        assert_eq!(judge_proxy(&["http_proxy"], "localhost, 127.0.0.1").level, Level::Ok);
        assert_eq!(judge_proxy(&["http_proxy"], "*").level, Level::Ok);
    }

    /// The names in capitals in the first column of README's table of settings.
    fn documented(page: &str) -> BTreeSet<String> {
        let (_, settings) = page.split_once("\n## Settings\n").unwrap();
        let (settings, _) = settings.split_once("\n## ").unwrap();
        let rows = settings.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
        let names = rows.flat_map(|names| names.split(['`', ',', ' ']));
        names.filter(|name| name.len() > 1).map(str::to_owned).collect()
    }

    #[test]
    fn readme_and_the_list_have_the_same_settings() {
        let page = fs::read_to_string(crate::cargo::root().join("README.md")).unwrap();
        let documented = documented(&page);
        let known: BTreeSet<_> =
            KNOWN.iter().filter(|name| !name.starts_with("ORDERSAGA_")).copied().collect();
        let documented: BTreeSet<_> = documented.iter().map(String::as_str).collect();
        assert_eq!(known, documented);
    }
}
