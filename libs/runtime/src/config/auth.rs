//! Who may use a service.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::readable_file;

/// How clients prove who they are.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// Not at all: every client may do everything.
    #[default]
    Off,
    /// By a key of `API_KEYS_FILE`.
    ApiKey,
    /// By a JSON Web Token, signed by a key of `JWT_JWKS`.
    Jwt,
}

/// Who may use the service.
#[derive(Args, Clone, Debug, Default)]
pub struct AuthConfig {
    /// How clients prove who they are, by `Authorization: Bearer …`. With off every client may do
    /// everything.
    #[arg(id = "auth", long = "auth", env = "AUTH", default_value = "off")]
    pub mode: AuthMode,
    /// Allows AUTH=off on an address that is not loopback. Set it to true only where nothing but a
    /// gateway that authenticates clients can reach the service [default: false].
    #[arg(id = "auth_off_in_public", long = "auth-off-in-public", env = "AUTH_OFF_IN_PUBLIC")]
    pub off_in_public: Option<bool>,
    /// TOML file of the keys that AUTH=api-key accepts. `ordersaga api-key new` makes entries. It is
    /// read again when it changes.
    #[arg(id = "api_keys_file", long = "api-keys-file", env = "API_KEYS_FILE",
          value_parser = readable_file)]
    pub api_keys_file: Option<PathBuf>,
    /// File or http(s) URL of the JSON Web Key Set that AUTH=jwt accepts signatures of. It is read
    /// again: a file when it changes, a URL every 5 minutes and when a token names an unknown key.
    #[arg(id = "jwt_jwks", long = "jwt-jwks", env = "JWT_JWKS", value_parser = key_set)]
    pub jwks: Option<KeySetSource>,
    /// The issuer (iss) that tokens must have, exactly.
    #[arg(id = "jwt_issuer", long = "jwt-issuer", env = "JWT_ISSUER", value_parser = non_empty)]
    pub issuer: Option<String>,
    /// The audience that tokens must be for: one of their aud.
    #[arg(id = "jwt_audience", long = "jwt-audience", env = "JWT_AUDIENCE",
          value_parser = non_empty)]
    pub audience: Option<String>,
    /// The claim that binds a token to a client, by its id. A token without it is bound to none.
    #[arg(id = "jwt_client_claim", long = "jwt-client-claim", env = "JWT_CLIENT_CLAIM",
          default_value = "ordersaga_client_id", value_parser = non_empty)]
    pub client_claim: String,
    /// Requests a second that one principal may send, or with AUTH=off one address, after up to ten
    /// seconds' at once; more are answered 429. 0 for no limit.
    #[arg(id = "client_requests_per_second", long = "client-requests-per-second",
          env = "CLIENT_REQUESTS_PER_SECOND", default_value = "0",
          value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub requests_per_second: u32,
}

/// Where a JSON Web Key Set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySetSource {
    /// A file of this machine.
    File(PathBuf),
    /// An http or https URL.
    Url(String),
}

fn key_set(value: &str) -> Result<KeySetSource, String> {
    if value.starts_with("https://") || value.starts_with("http://") {
        let url = url::Url::parse(value).map_err(|error| format!("no URL: {error}"))?;
        // It would be shown by --help and in errors.
        if url.password().is_some() || !url.username().is_empty() {
            return Err("a URL without user and password is expected".to_owned());
        }
        return Ok(KeySetSource::Url(value.to_owned()));
    }
    readable_file(value).map(KeySetSource::File)
}

fn non_empty(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(value.to_owned()) }
}

impl AuthConfig {
    /// Whether the settings fit each other and the address that is served: if not, what to do.
    pub fn check(&self, listen: SocketAddr) -> Result<(), String> {
        self.check_mode()?;
        let is_public = !listen.ip().to_canonical().is_loopback();
        if self.mode == AuthMode::Off && is_public && self.off_in_public != Some(true) {
            return Err(format!(
                "HTTP_LISTEN is {listen}, which is not a loopback address, and AUTH is off: \
                 everybody who reaches it could do everything. Set AUTH=api-key or AUTH=jwt; or, if \
                 only a gateway that authenticates clients can reach it, AUTH_OFF_IN_PUBLIC=true"
            ));
        }
        Ok(())
    }

    fn check_mode(&self) -> Result<(), String> {
        let keys = [("API_KEYS_FILE", self.api_keys_file.is_some())];
        let jwt = [
            ("JWT_JWKS", self.jwks.is_some()),
            ("JWT_ISSUER", self.issuer.is_some()),
            ("JWT_AUDIENCE", self.audience.is_some()),
        ];
        let (wanted, others): (&[_], Vec<_>) = match self.mode {
            AuthMode::Off => (&[], keys.into_iter().chain(jwt).collect()),
            AuthMode::ApiKey => (&keys, jwt.to_vec()),
            AuthMode::Jwt => (&jwt, keys.to_vec()),
        };
        let mode = self.mode.to_possible_value();
        let mode = mode.as_ref().map_or("off", |mode| mode.get_name());
        if let Some((name, _)) = wanted.iter().find(|(_, is_set)| !is_set) {
            return Err(format!("AUTH={mode} needs {name}, which is not set"));
        }
        // Somebody believes in a protection that is not there.
        if let Some((name, _)) = others.iter().find(|(_, is_set)| *is_set) {
            return Err(format!("{name} is set, but AUTH={mode} does not use it: change AUTH"));
        }
        if self.mode != AuthMode::Off && self.off_in_public == Some(true) {
            return Err(format!("AUTH_OFF_IN_PUBLIC is true, but AUTH={mode}: unset one of them"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Program {
        #[command(flatten)]
        auth: AuthConfig,
    }

    fn check(listen: &str, arguments: &[&str]) -> Result<(), String> {
        let all = ["program"].iter().chain(arguments);
        let program = Program::try_parse_from(all).map_err(|error| error.to_string())?;
        program.auth.check(listen.parse().unwrap())
    }

    #[test]
    fn without_authentication_only_loopback_is_served() {
        for listen in ["127.0.0.1:8000", "127.9.9.9:1", "[::1]:8000", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(check(listen, &[]), Ok(()), "{listen}");
        }
        for listen in ["0.0.0.0:8000", "192.0.2.1:8000", "[::]:8000", "[2001:db8::1]:8000"] {
            let message = check(listen, &[]).unwrap_err();
            assert!(message.contains("AUTH_OFF_IN_PUBLIC=true"), "{message}");
            assert!(check(listen, &["--auth-off-in-public=false"]).is_err());
            assert_eq!(check(listen, &["--auth-off-in-public=true"]), Ok(()));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let keys = format!("--api-keys-file={}", file.path().display());
        assert_eq!(check("0.0.0.0:8000", &["--auth=api-key", &keys]), Ok(()));
    }

    #[test]
    fn each_mode_has_its_settings_and_no_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let with = |name: &str| format!("--{name}={}", file.path().display());
        let (keys, jwks) = (with("api-keys-file"), with("jwt-jwks"));
        let jwt = ["--auth=jwt", &jwks, "--jwt-issuer=https://id.example", "--jwt-audience=orders"];
        assert_eq!(check("127.0.0.1:1", &jwt), Ok(()));
        for (arguments, named) in [
            (vec!["--auth=api-key"], "API_KEYS_FILE"),
            (vec!["--auth=jwt"], "JWT_JWKS"),
            (jwt[..2].to_vec(), "JWT_ISSUER"),
            (jwt[..3].to_vec(), "JWT_AUDIENCE"),
            (vec![keys.as_str()], "API_KEYS_FILE"),
            (jwt[1..].to_vec(), "JWT_JWKS"),
            ([&jwt[..], &[keys.as_str()]].concat(), "API_KEYS_FILE"),
            ([&jwt[..], &["--auth-off-in-public=true"]].concat(), "AUTH_OFF_IN_PUBLIC"),
            (vec!["--auth=jwt", "--jwt-jwks=https://u:geheim@id.example/keys"], "--jwt-jwks"),
            (vec!["--auth=jwt", "--jwt-jwks=/nowhere/keys.json"], "--jwt-jwks"),
        ] {
            let message = check("127.0.0.1:1", &arguments).unwrap_err();
            assert!(message.contains(named), "{arguments:?}: {message}");
        }
    }
}
