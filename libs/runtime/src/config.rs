//! Configuration of a service: small groups of arguments, each readable from the command line and
//! from the environment, checked once while parsing. `--help` lists every variable.

mod auth;
mod security;

use std::{
    ffi::{OsStr, OsString},
    fmt,
    net::SocketAddr,
    time::Duration,
};

use clap::{
    Arg, Args, Command, Parser, ValueEnum,
    builder::TypedValueParser,
    error::{Error, ErrorKind},
};

pub use auth::{AuthConfig, AuthMode, KeySetSource};
pub use security::{KafkaSecurity, Login, Mechanism, Tls, readable_file};

/// A value that must not appear in logs, help texts or error messages: a URL with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Parses a [`Secret`] and, unlike clap's own parsers, never repeats a rejected value in the error.
#[derive(Clone)]
pub struct SecretParser {
    /// The value must begin with one of these; none means that any non-empty value will do.
    pub prefixes: &'static [&'static str],
}

/// What `--help` of a service says of its migrations.
pub const MIGRATE_HELP: &str =
    "The argument `migrate` brings the database up to date instead: see `migrate --help`.";

/// The parser of a Postgres URL.
pub const POSTGRES_URL: SecretParser = SecretParser { prefixes: &["postgres://", "postgresql://"] };

impl TypedValueParser for SecretParser {
    type Value = Secret;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Secret, Error> {
        let fits = |value: &&str| {
            !value.is_empty()
                && (self.prefixes.is_empty() || self.prefixes.iter().any(|p| value.starts_with(p)))
        };
        value.to_str().filter(fits).map(Secret::new).ok_or_else(|| {
            let name = arg.map_or_else(String::new, ToString::to_string);
            let expected = match self.prefixes {
                [] => "a non-empty value".to_owned(),
                prefixes => format!("a value that begins with {}", prefixes.join(" or ")),
            };
            Error::raw(ErrorKind::ValueValidation, format!("{name}: {expected} is expected\n"))
                .with_cmd(command)
        })
    }
}

/// Where the services are on a developer's machine.
const LOCAL_ORIGINS: &str = "http://localhost:8000,http://localhost:8001,http://localhost:8002,\
                             http://127.0.0.1:8000,http://127.0.0.1:8001,http://127.0.0.1:8002";
const LOCAL_DOCUMENTS: &str = "Create order=http://localhost:8000/openapi.json,\
                               Monitoring=http://localhost:8001/openapi.json,\
                               Store=http://localhost:8002/openapi.json";

/// A URL with what it is called; all empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TitledUrl {
    /// What it is called.
    pub title: String,
    /// `http` or `https`.
    pub url: String,
    /// The URL's origin.
    pub origin: String,
}

/// The HTTP server and its limits.
#[derive(Args, Clone, Debug)]
pub struct HttpConfig {
    /// Address and port to serve HTTP on.
    #[arg(
        id = "http_listen",
        long = "http-listen",
        env = "HTTP_LISTEN",
        default_value = "127.0.0.1:8000"
    )]
    pub listen: SocketAddr,
    /// Largest request body accepted, in bytes; a larger one is answered 413.
    #[arg(id = "http_body_limit_bytes", long = "http-body-limit-bytes", env = "HTTP_BODY_LIMIT_BYTES",
          default_value = "16384", value_parser = positive)]
    pub body_limit_bytes: usize,
    /// Longest time a request may take, in seconds; then it is answered 504. Long-polls have their own.
    #[arg(id = "http_timeout_seconds", long = "http-timeout-seconds", env = "HTTP_TIMEOUT_SECONDS",
          default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// Requests handled at the same time; one more is answered 429 with Retry-After, never queued.
    /// A request whose body is still on its way, or that waits for news, is not one of them.
    #[arg(id = "http_concurrency", long = "http-concurrency", env = "HTTP_CONCURRENCY",
          default_value = "1024", value_parser = positive)]
    pub concurrency: usize,
    /// Requests that wait for news at the same time; one more is answered at once.
    #[arg(id = "http_long_polls", long = "http-long-polls", env = "HTTP_LONG_POLLS",
          default_value = "2048", value_parser = positive)]
    pub long_polls: usize,
    /// Streams of events that are open at the same time; one more is answered 429.
    #[arg(id = "http_streams", long = "http-streams", env = "HTTP_STREAMS",
          default_value = "2000", value_parser = positive)]
    pub streams: usize,
    /// Connections at the same time; fewer if the process may not open so many files. For one more
    /// an idle one is closed, of the client address that has the most; with none idle it is refused.
    #[arg(id = "http_connections", long = "http-connections", env = "HTTP_CONNECTIONS",
          default_value = "4096", value_parser = positive)]
    pub connections: usize,
    /// How much of each limit one client address may take, in percent. Behind a proxy, which has
    /// one address for all: 100.
    #[arg(id = "http_address_share", long = "http-address-share", env = "HTTP_ADDRESS_SHARE",
          default_value = "75", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub address_share: u8,
    /// Largest head of a request, in bytes; a larger one is answered 431.
    #[arg(id = "http_head_limit_bytes", long = "http-head-limit-bytes", env = "HTTP_HEAD_LIMIT_BYTES",
          default_value = "16384", value_parser = clap::value_parser!(u32).range(8192..=1_048_576))]
    pub head_limit_bytes: u32,
    /// A connection over which no request came and no page went for so many seconds is closed.
    #[arg(id = "http_silence_seconds", long = "http-silence-seconds", env = "HTTP_SILENCE_SECONDS",
          default_value = "75", value_parser = seconds)]
    pub silence: Duration,
    /// Names under which clients reach the service, joined by commas, as shop.example.org or
    /// .example.org for all below it. localhost and IP addresses always may; a request to another
    /// Host is answered 421.
    #[arg(id = "http_hosts", long = "http-hosts", env = "HTTP_HOSTS", default_value = "",
          hide_default_value = true, value_delimiter = ',', value_parser = host)]
    pub hosts: Vec<String>,
    /// Origins of pages that may read and change something here (CORS), joined by commas, each a
    /// scheme and a host. The service's own always may; a change that another asks for is answered
    /// 403. Those at localhost or 127.0.0.1 may only where the service is reached so as well.
    #[arg(id = "http_origins", long = "http-origins", env = "HTTP_ORIGINS",
          default_value = LOCAL_ORIGINS, value_delimiter = ',', value_parser = origin)]
    pub origins: Vec<String>,
    /// Documents of other services that Swagger UI offers beside this one's, as title=URL joined by
    /// commas; this service's title stands for itself. Those at localhost are offered only to who
    /// reaches the service there. They must allow this one's origin.
    #[arg(id = "docs_urls", long = "docs-urls", env = "DOCS_URLS",
          default_value = LOCAL_DOCUMENTS, value_delimiter = ',', value_parser = titled_url)]
    pub documents: Vec<TitledUrl>,
    /// Address and port on which /health, /ready and /metrics are served besides, for probes and
    /// Prometheus: they are answered there however many clients the service has.
    #[arg(id = "admin_listen", long = "admin-listen", env = "ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,
    /// Who may use it.
    #[command(flatten)]
    pub auth: AuthConfig,
}

/// The service's own database.
#[derive(Args, Clone, Debug)]
pub struct PostgresConfig {
    /// Postgres URL of the service role, as postgres://user:password@host:port/database.
    #[arg(id = "database_url", long = "database-url", env = "DATABASE_URL",
          hide_env_values = true, value_parser = POSTGRES_URL)]
    pub url: Secret,
    /// Connections in the pool.
    #[arg(id = "database_connections", long = "database-connections", env = "DATABASE_CONNECTIONS",
          default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
}

/// Brings the service's database up to date, as its owner and for as long as it takes, and ends.
#[derive(Parser, Clone, Debug)]
pub struct MigrationConfig {
    /// Postgres URL of the owner role, as postgres://user:password@host:port/database.
    #[arg(id = "database_migration_url", long = "database-migration-url",
          env = "DATABASE_MIGRATION_URL", hide_env_values = true, value_parser = POSTGRES_URL)]
    pub owner: Secret,
    /// Logs.
    #[command(flatten)]
    pub log: LogConfig,
}

/// What is remembered of requests that may be repeated.
#[derive(Args, Clone, Debug)]
pub struct IdempotencyConfig {
    /// Seconds an Idempotency-Key is remembered.
    #[arg(id = "idempotency_ttl_seconds", long = "idempotency-ttl-seconds",
          env = "IDEMPOTENCY_TTL_SECONDS", default_value = "86400", value_parser = seconds)]
    pub ttl: Duration,
    /// Keys remembered at the same time; then a request under a new one is answered 503. Estimated
    /// once a second: what comes meanwhile goes over it.
    #[arg(id = "idempotency_keys_limit", long = "idempotency-keys-limit",
          env = "IDEMPOTENCY_KEYS_LIMIT", default_value = "20000000",
          value_parser = clap::value_parser!(i64).range(1..))]
    pub keys_limit: i64,
}

/// The broker.
#[derive(Args, Clone, Debug)]
pub struct KafkaConfig {
    /// Bootstrap brokers, as host:port,host:port.
    #[arg(id = "kafka_brokers", long = "kafka-brokers", env = "KAFKA_BROKERS",
          default_value = "127.0.0.1:9092", value_parser = brokers)]
    pub brokers: String,
    /// How connections to it are secured.
    #[command(flatten)]
    pub security: KafkaSecurity,
    /// Put before every topic's name, so that several stacks can share a broker: "t7." makes topics t7.incoming.
    #[arg(id = "kafka_topic_prefix", long = "kafka-topic-prefix", env = "KAFKA_TOPIC_PREFIX",
          default_value = "", value_parser = topic_prefix)]
    pub topic_prefix: String,
    /// Consumer group.
    #[arg(id = "kafka_group", long = "kafka-group", env = "KAFKA_GROUP")]
    pub group: String,
    /// After so many milliseconds without a heartbeat the group gives a consumer's partitions to others.
    #[arg(id = "kafka_session_timeout_ms", long = "kafka-session-timeout-ms",
          env = "KAFKA_SESSION_TIMEOUT_MS", default_value = "6000", value_parser = milliseconds)]
    pub session_timeout: Duration,
}

/// How log lines look.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people, in colour.
    Pretty,
}

/// Logging.
#[derive(Args, Clone, Debug)]
pub struct LogConfig {
    /// Form of the log lines [default: pretty on a terminal, else json].
    #[arg(id = "log_format", long = "log-format", env = "LOG_FORMAT")]
    pub format: Option<LogFormat>,
    /// Level, or tracing directives such as "info,sqlx=warn".
    #[arg(id = "log_level", long = "log-level", env = "LOG_LEVEL",
          default_value = "info", value_parser = log_directives)]
    pub level: String,
}

/// How a consumer's spans belong to the traces of what it consumes.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceConsumers {
    /// One span per batch, in a trace of its own, linked to the records' traces.
    Link,
    /// One span per record, in the record's trace; what it causes follows from it.
    Parent,
}

/// Traces.
#[derive(Args, Clone, Debug)]
pub struct TraceConfig {
    /// URL of the collector that gets spans by OTLP over HTTP, without its path /v1/traces; empty: no tracing.
    #[arg(id = "otel_exporter_otlp_endpoint", long = "otel-exporter-otlp-endpoint",
          env = "OTEL_EXPORTER_OTLP_ENDPOINT", default_value = "", hide_default_value = true,
          value_parser = collector)]
    pub endpoint: String,
    /// Part of the requests that is traced, from 0 to 1, where the client has not decided by its traceparent.
    #[arg(id = "otel_traces_sampler_arg", long = "otel-traces-sampler-arg",
          env = "OTEL_TRACES_SAMPLER_ARG", default_value = "1", value_parser = ratio)]
    pub ratio: f64,
    /// How a consumer's spans belong to the traces of the records it consumes.
    #[arg(
        id = "trace_consumers",
        long = "trace-consumers",
        env = "TRACE_CONSUMERS",
        default_value = "link"
    )]
    pub consumers: TraceConsumers,
}

/// Stopping.
#[derive(Args, Clone, Debug)]
pub struct ShutdownConfig {
    /// After a SIGTERM the service has so many seconds to finish its work; then it exits with an error.
    #[arg(id = "shutdown_timeout_seconds", long = "shutdown-timeout-seconds",
          env = "SHUTDOWN_TIMEOUT_SECONDS", default_value = "20", value_parser = seconds)]
    pub timeout: Duration,
}

/// Reads a service's configuration; a wrong setting is one clear message and exit code 2.
/// `defaults` are the service's own, by argument id: `[("http_listen", "127.0.0.1:8002")]`.
pub fn parse<C: Parser>(defaults: &[(&'static str, &'static str)]) -> C {
    parse_from(defaults, std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Reads the settings of `SERVICE migrate`, as [`parse`] does; none if the process was not started
/// as that.
pub fn migration<C: Parser>(service: &str) -> Option<C> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != "migrate") {
        return None;
    }
    let name = std::iter::once(OsString::from(format!("{service} migrate")));
    Some(parse_from(&[], name.chain(arguments)).unwrap_or_else(|error| error.exit()))
}

fn parse_from<C: Parser>(
    defaults: &[(&'static str, &'static str)],
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<C, Error> {
    let mut command = C::command();
    for &(id, value) in defaults {
        command = command.mut_arg(id, |arg| arg.default_value(value).required(false));
    }
    let matches = command.clone().try_get_matches_from(arguments)?;
    C::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Ends the process as [`parse`] does, if settings contradict each other, with what to do.
pub(crate) fn hold(outcome: Result<(), String>) {
    if let Err(message) = outcome {
        let error: Error = Error::raw(ErrorKind::ArgumentConflict, format!("{message}\n"));
        error.exit();
    }
}

/// Value parser of a positive number of seconds, up to a day.
pub fn seconds(value: &str) -> Result<Duration, String> {
    whole(value, 86_400).map(Duration::from_secs)
}

/// Value parser of a positive number of milliseconds, up to a day.
pub fn milliseconds(value: &str) -> Result<Duration, String> {
    whole(value, 86_400_000).map(Duration::from_millis)
}

fn whole(value: &str, most: u64) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("a whole number from 1 to {most} is expected")),
    }
}

fn positive(value: &str) -> Result<usize, String> {
    whole(value, u64::from(u32::MAX)).and_then(|n| usize::try_from(n).map_err(|e| e.to_string()))
}

fn brokers(value: &str) -> Result<String, String> {
    let is_address = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| {
            // An IPv6 address without brackets could not be told from its port.
            let is_name = !host.is_empty() && !host.contains(':');
            let is_address = host.starts_with('[') && host.ends_with(']');
            (is_name || is_address) && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    if value.split(',').all(is_address) {
        Ok(value.to_owned())
    } else {
        Err("host:port, or several of them joined by commas, is expected".to_owned())
    }
}

fn host(value: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.chars().all(legal) {
        Ok(value.to_ascii_lowercase())
    } else {
        Err("a name without scheme and port is expected".to_owned())
    }
}

fn origin(value: &str) -> Result<String, String> {
    let value = value.trim();
    if value.is_empty() {
        return Ok(String::new());
    }
    let (origin, rest) = split_origin(value)?;
    if rest.is_empty() { Ok(origin) } else { Err("an origin has no path".to_owned()) }
}

/// A URL's origin as browsers send it, and what follows it.
fn split_origin(url: &str) -> Result<(String, &str), String> {
    let expected = || "http:// or https:// and a host in ASCII are expected".to_owned();
    let (scheme, rest) = url.split_once("://").ok_or_else(expected)?;
    let (scheme, is_secure) = match scheme.to_ascii_lowercase() {
        scheme if scheme == "http" => (scheme, false),
        scheme if scheme == "https" => (scheme, true),
        _ => return Err(expected()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = authority.to_ascii_lowercase();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port: u16 = port.parse().map_err(|_| "the port is no number of one".to_owned())?;
            if port == if is_secure { 443 } else { 80 } {
                return Err("browsers leave out the scheme's own port: leave it out".to_owned());
            }
            host
        }
        _ => &authority,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = if let Some(address) = bare {
        address.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !host.is_empty() && host.chars().all(legal)
    };
    if is_host { Ok((format!("{scheme}://{authority}"), path)) } else { Err(expected()) }
}

fn titled_url(value: &str) -> Result<TitledUrl, String> {
    let value = value.trim();
    if value.is_empty() {
        return Ok(TitledUrl::default());
    }
    let (title, url) = value.split_once('=').ok_or("a title, =, and a URL are expected")?;
    let is_plain = !url.contains(|c: char| !c.is_ascii_graphic());
    let (origin, _) = split_origin(url)?;
    if title.is_empty() || !is_plain {
        return Err("a title, =, and a URL in visible ASCII are expected".to_owned());
    }
    Ok(TitledUrl { title: title.to_owned(), url: url.to_owned(), origin })
}

fn topic_prefix(value: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.chars().all(legal) && value.len() <= 100 {
        Ok(value.to_owned())
    } else {
        Err("at most 100 letters, digits, '.', '_' and '-' are expected".to_owned())
    }
}

fn collector(value: &str) -> Result<String, String> {
    if value.is_empty() || value.starts_with("http://") {
        Ok(value.to_owned())
    } else {
        Err("a URL that begins with http:// is expected".to_owned())
    }
}

fn ratio(value: &str) -> Result<f64, String> {
    let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "a number from 0 to 1 is expected".to_owned())
}

fn log_directives(value: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(value)
        .map(|_| value.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser, Debug)]
    struct Service {
        #[command(flatten)]
        http: HttpConfig,
        #[command(flatten)]
        postgres: PostgresConfig,
        #[command(flatten)]
        kafka: KafkaConfig,
        #[command(flatten)]
        log: LogConfig,
        #[command(flatten)]
        trace: TraceConfig,
        #[command(flatten)]
        shutdown: ShutdownConfig,
    }

    const DEFAULTS: &[(&str, &str)] =
        &[("http_listen", "127.0.0.1:8002"), ("kafka_group", "storage")];

    fn parsed(arguments: &[&str]) -> Result<Service, String> {
        let all = ["service", "--database-url", "postgres://u:geheim@h/db"].iter().chain(arguments);
        parse_from(DEFAULTS, all).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_services_own_and_on_loopback() {
        let service = parsed(&[]).unwrap();
        assert_eq!(service.http.listen.to_string(), "127.0.0.1:8002");
        assert_eq!(service.kafka.group, "storage");
        assert_eq!(service.kafka.brokers, "127.0.0.1:9092");
        assert_eq!(service.kafka.session_timeout, Duration::from_secs(6));
        assert_eq!(service.http.body_limit_bytes, 16384);
        assert_eq!(service.postgres.connections, 8);
        assert_eq!(service.log.level, "info");
        assert_eq!(service.trace.endpoint, "");
        assert_eq!(service.shutdown.timeout, Duration::from_secs(20));
    }

    #[test]
    fn wrong_values_are_named() {
        for (argument, value) in [
            ("--http-listen", "localhost"),
            ("--http-timeout-seconds", "0"),
            ("--http-concurrency", "-1"),
            ("--http-address-share", "0"),
            ("--http-hosts", "http://shop.example.org"),
            ("--http-origins", "desk.example.org"),
            ("--http-origins", "https://desk.example.org/"),
            ("--http-origins", "https://*.example.org"),
            ("--http-origins", "https://desk.example.org:443"),
            ("--http-origins", "https://desk.example.org:99999"),
            ("--http-origins", "https://user@desk.example.org"),
            ("--http-origins", "https://desk.example.org?x"),
            ("--http-origins", "https://магазин.рф"),
            ("--http-origins", "https://:"),
            ("--docs-urls", "https://shop.example.org/openapi.json"),
            ("--docs-urls", "Store=http://"),
            ("--docs-urls", "Store=https://user:geheim@shop.example.org/"),
            ("--docs-urls", "Store=https://a; script-src */"),
            ("--docs-urls", "Store=https://a\n.example/x"),
            ("--docs-urls", "Store=/openapi.json"),
            ("--database-connections", "0"),
            ("--kafka-brokers", "broker"),
            ("--kafka-brokers", "broker:9092,"),
            ("--kafka-brokers", "::1:9092"),
            ("--kafka-topic-prefix", "a b"),
            ("--kafka-session-timeout-ms", "soon"),
            ("--log-level", "info,=x=y"),
            ("--log-format", "xml"),
            ("--otel-exporter-otlp-endpoint", "collector:4318"),
            ("--otel-traces-sampler-arg", "1.5"),
            ("--otel-traces-sampler-arg", "NaN"),
            ("--trace-consumers", "both"),
        ] {
            let message = parsed(&[&format!("{argument}={value}")]).unwrap_err();
            assert!(message.contains(argument), "{argument}={value}: {message}");
        }
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        for (given, origin) in [
            ("HTTPS://Desk.Example.org", "https://desk.example.org"),
            (" http://localhost:8000", "http://localhost:8000"),
            ("http://[::1]:8000", "http://[::1]:8000"),
            ("http://[::1]", "http://[::1]"),
            ("", ""),
        ] {
            assert_eq!(super::origin(given).as_deref(), Ok(origin), "{given}");
        }
        let store = titled_url("Store=http://localhost:8002/openapi.json").unwrap();
        assert_eq!(
            (store.title.as_str(), store.origin.as_str()),
            ("Store", "http://localhost:8002")
        );
    }

    #[test]
    fn a_missing_required_value_is_named() {
        let message = parse_from::<Service>(DEFAULTS, ["service"]).unwrap_err().to_string();
        assert!(message.contains("--database-url"), "{message}");
    }

    #[test]
    fn secrets_are_never_shown() {
        let debug = format!("{:?}", parsed(&[]).unwrap());
        assert!(!debug.contains("geheim") && debug.contains("***"), "{debug}");

        let wrong = ["migrate", "--database-migration-url=mysql://u:geheim@h/db"];
        let message = parse_from::<MigrationConfig>(&[], wrong).unwrap_err().to_string();
        assert!(message.contains("--database-migration-url"), "{message}");
        assert!(message.contains("postgres://"), "{message}");
        assert!(!message.contains("geheim"), "{message}");
    }

    #[test]
    fn help_names_every_variable() {
        use clap::CommandFactory;
        let help = Service::command().render_long_help().to_string();
        for variable in [
            "HTTP_LISTEN",
            "HTTP_BODY_LIMIT_BYTES",
            "HTTP_TIMEOUT_SECONDS",
            "HTTP_CONCURRENCY",
            "HTTP_LONG_POLLS",
            "HTTP_STREAMS",
            "HTTP_CONNECTIONS",
            "HTTP_ADDRESS_SHARE",
            "HTTP_HEAD_LIMIT_BYTES",
            "HTTP_SILENCE_SECONDS",
            "HTTP_HOSTS",
            "HTTP_ORIGINS",
            "DOCS_URLS",
            "ADMIN_LISTEN",
            "AUTH",
            "AUTH_OFF_IN_PUBLIC",
            "API_KEYS_FILE",
            "JWT_JWKS",
            "JWT_ISSUER",
            "JWT_AUDIENCE",
            "JWT_CLIENT_CLAIM",
            "CLIENT_REQUESTS_PER_SECOND",
            "DATABASE_URL",
            "DATABASE_CONNECTIONS",
            "KAFKA_BROKERS",
            "KAFKA_USER",
            "KAFKA_PASSWORD",
            "KAFKA_SASL_MECHANISM",
            "KAFKA_TLS",
            "KAFKA_CA_FILE",
            "KAFKA_CERTIFICATE_FILE",
            "KAFKA_KEY_FILE",
            "KAFKA_TOPIC_PREFIX",
            "KAFKA_GROUP",
            "KAFKA_SESSION_TIMEOUT_MS",
            "LOG_FORMAT",
            "LOG_LEVEL",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_TRACES_SAMPLER_ARG",
            "TRACE_CONSUMERS",
            "SHUTDOWN_TIMEOUT_SECONDS",
        ] {
            assert!(help.contains(&format!("env: {variable}")), "{variable} is missing:\n{help}");
        }
    }
}
