//! What a client shows to get into the broker, and what it wants to see of it.

use std::fs::File;
use std::path::PathBuf;

use clap::error::{Error, ErrorKind};
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use rdkafka::ClientConfig;

use super::{Secret, SecretParser};

/// How connections to the broker are secured; by default they are not. Settings that contradict
/// each other do not parse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaSecurity {
    /// Who the client is; none: it does not say.
    pub login: Option<Login>,
    /// How connections are encrypted; none: they are not.
    pub tls: Option<Tls>,
}

/// A user of the broker, proved by SASL/SCRAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The hash the broker keeps the password under.
    pub mechanism: Mechanism,
}

/// The hash of SASL/SCRAM.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mechanism {
    /// SHA-256.
    #[default]
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    /// SHA-512.
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    /// The name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Files of an encrypted connection, all PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities whose signature on the broker's certificate is trusted; none: the system's.
    pub authorities: Option<PathBuf>,
    /// The client's own certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The arguments as they are written, before they are compared with each other.
#[derive(Args)]
#[group(skip)]
struct Arguments {
    /// Kafka user. When set, the client logs in with SASL/SCRAM.
    #[arg(id = "kafka_user", long = "kafka-user", env = "KAFKA_USER", global = true)]
    user: Option<String>,
    /// Password of the Kafka user.
    #[arg(id = "kafka_password", long = "kafka-password", env = "KAFKA_PASSWORD", global = true,
          hide_env_values = true, value_parser = SecretParser { prefixes: &[] })]
    password: Option<Secret>,
    /// SASL mechanism of the Kafka user.
    #[arg(
        id = "kafka_sasl_mechanism",
        long = "kafka-sasl-mechanism",
        env = "KAFKA_SASL_MECHANISM",
        default_value = "SCRAM-SHA-256",
        ignore_case = true,
        global = true
    )]
    mechanism: Mechanism,
    /// Encrypt connections to the broker and check its certificate [default: true if one of the
    /// files below is given, else false].
    #[arg(id = "kafka_tls", long = "kafka-tls", env = "KAFKA_TLS", global = true)]
    tls: Option<bool>,
    /// PEM file of the authorities that may have signed the broker's certificate [default: those
    /// the system trusts].
    #[arg(id = "kafka_ca_file", long = "kafka-ca-file", env = "KAFKA_CA_FILE", global = true,
          value_parser = readable_file)]
    ca_file: Option<PathBuf>,
    /// PEM file of the client's own certificate, if the broker asks for one.
    #[arg(id = "kafka_certificate_file", long = "kafka-certificate-file", global = true,
          env = "KAFKA_CERTIFICATE_FILE", value_parser = readable_file)]
    certificate_file: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    #[arg(id = "kafka_key_file", long = "kafka-key-file", env = "KAFKA_KEY_FILE", global = true,
          value_parser = readable_file)]
    key_file: Option<PathBuf>,
}

/// Value parser of a file that can be opened.
pub fn readable_file(value: &str) -> Result<PathBuf, String> {
    let opened = File::open(value).and_then(|file| file.metadata());
    match opened {
        Ok(file) if file.is_file() => Ok(value.into()),
        Ok(_) => Err("this is not a file".to_owned()),
        Err(error) => Err(format!("the file cannot be read: {error}")),
    }
}

impl TryFrom<Arguments> for KafkaSecurity {
    type Error = String;

    fn try_from(given: Arguments) -> Result<Self, String> {
        let both = |one: &str, other: &str| {
            format!("{one} and {other} belong together, and only one of them is set")
        };
        let login = match (given.user, given.password) {
            (Some(user), Some(password)) if !user.is_empty() => {
                Some(Login { user, password, mechanism: given.mechanism })
            }
            (None, None) => None,
            _ => return Err(both("KAFKA_USER", "KAFKA_PASSWORD")),
        };
        let certificate = match (given.certificate_file, given.key_file) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(both("KAFKA_CERTIFICATE_FILE", "KAFKA_KEY_FILE")),
        };
        let authorities = given.ca_file;
        let has_files = authorities.is_some() || certificate.is_some();
        if given.tls == Some(false) && has_files {
            return Err("KAFKA_TLS is false, and files for TLS are given".to_owned());
        }
        let tls = given.tls.unwrap_or(has_files).then_some(Tls { authorities, certificate });
        Ok(Self { login, tls })
    }
}

impl FromArgMatches for KafkaSecurity {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let contradiction = |message| Error::raw(ErrorKind::ArgumentConflict, message);
        Arguments::from_arg_matches(matches)?.try_into().map_err(contradiction)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for KafkaSecurity {
    fn augment_args(command: Command) -> Command {
        Arguments::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Arguments::augment_args_for_update(command)
    }
}

impl KafkaSecurity {
    /// Settings of a client of these brokers.
    pub fn client(&self, brokers: &str) -> ClientConfig {
        let mut client = ClientConfig::new();
        self.apply_to(&mut client);
        client.set("bootstrap.servers", brokers);
        client
    }

    /// Sets what librdkafka needs for it. The broker's certificate is checked with its name.
    pub fn apply_to(&self, client: &mut ClientConfig) {
        let protocol = match (&self.login, &self.tls) {
            (None, None) => "plaintext",
            (None, Some(_)) => "ssl",
            (Some(_), None) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        if let Some(login) = &self.login {
            client
                .set("sasl.mechanisms", login.mechanism.name())
                .set("sasl.username", &login.user)
                .set("sasl.password", login.password.expose());
        }
        let Some(tls) = &self.tls else { return };
        if let Some(authorities) = &tls.authorities {
            client.set("ssl.ca.location", authorities.to_string_lossy());
        }
        if let Some((certificate, key)) = &tls.certificate {
            client
                .set("ssl.certificate.location", certificate.to_string_lossy())
                .set("ssl.key.location", key.to_string_lossy());
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Program {
        #[command(flatten)]
        kafka: KafkaSecurity,
    }

    fn parsed(arguments: &[&str]) -> Result<KafkaSecurity, String> {
        let all = ["program"].iter().chain(arguments);
        Program::try_parse_from(all).map(|p| p.kafka).map_err(|error| error.to_string())
    }

    fn settings(arguments: &[&str]) -> impl Fn(&str) -> Option<String> {
        let mut client = ClientConfig::new();
        parsed(arguments).unwrap().apply_to(&mut client);
        move |name| client.get(name).map(str::to_owned)
    }

    const LOGIN: [&str; 2] = ["--kafka-user=store", "--kafka-password=geheim"];

    #[test]
    fn what_is_given_decides_the_protocol() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ca = format!("--kafka-ca-file={}", file.path().display());
        let protocol = |arguments: &[&str]| settings(arguments)("security.protocol").unwrap();
        assert_eq!(parsed(&[]).unwrap(), KafkaSecurity::default());
        assert_eq!(protocol(&[]), "plaintext");
        assert_eq!(protocol(&["--kafka-tls=true"]), "ssl");
        assert_eq!(protocol(&[&ca]), "ssl");
        assert_eq!(protocol(&LOGIN), "sasl_plaintext");
        assert_eq!(protocol(&[LOGIN[0], LOGIN[1], &ca]), "sasl_ssl");
        assert_eq!(settings(&LOGIN)("sasl.mechanisms").as_deref(), Some("SCRAM-SHA-256"));
        let other = settings(&[LOGIN[0], LOGIN[1], "--kafka-sasl-mechanism=scram-sha-512"]);
        assert_eq!(other("sasl.mechanisms").as_deref(), Some("SCRAM-SHA-512"));
    }

    #[test]
    fn contradictions_are_named_by_variable_and_exit_with_2() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let with = |name: &str| format!("{name}={}", file.path().display());
        let (ca, key) = (with("--kafka-ca-file"), with("--kafka-key-file"));
        for (arguments, variable) in [
            (vec![LOGIN[0]], "KAFKA_PASSWORD"),
            (vec![LOGIN[1]], "KAFKA_USER"),
            (vec!["--kafka-user=", LOGIN[1]], "KAFKA_USER"),
            (vec![key.as_str()], "KAFKA_CERTIFICATE_FILE"),
            (vec!["--kafka-tls=false", &ca], "KAFKA_TLS"),
        ] {
            let all = ["program"].iter().chain(&arguments);
            let error = Program::try_parse_from(all).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let message = error.to_string();
            assert!(message.contains(variable), "{arguments:?}: {message}");
            assert!(!message.contains("geheim"), "{message}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let message = parsed(&["--kafka-ca-file=/nowhere/ca.pem"]).unwrap_err();
        assert!(message.contains("--kafka-ca-file") && message.contains("/nowhere"), "{message}");
        assert!(parsed(&["--kafka-ca-file=/"]).is_err());
    }

    #[test]
    fn the_password_is_never_shown() {
        let debug = format!("{:?}", parsed(&LOGIN).unwrap());
        assert!(debug.contains("store") && !debug.contains("geheim"), "{debug}");
    }
}
