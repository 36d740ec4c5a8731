//! API keys as the file `API_KEYS_FILE` has them, and the scopes that keys and tokens have. The file
//! has hashes of keys: who reads it can use none.

mod scope;

use std::fmt::Write;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use scope::Scope;

/// What keys begin with, so that people and secret scanners know one when they see it.
const PREFIX: &str = "ordersaga_";

/// An entry of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Whose key it is. While a key is replaced, two entries may have the same name.
    pub name: String,
    /// SHA-256 of the key, 64 hexadecimal digits.
    pub sha256: String,
    /// What may be done with it.
    pub scopes: Vec<Scope>,
    /// The client whose orders alone may be placed, seen and cancelled with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<i64>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<toml::value::Datetime>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<ApiKey>,
}

impl ApiKey {
    /// Makes a key, and the entry for it. The key itself is kept nowhere.
    pub fn generate(
        name: String,
        scopes: Vec<Scope>,
        client_id: Option<i64>,
        expires: Option<DateTime<Utc>>,
    ) -> Result<(String, Self)> {
        let mut random = [0; 32];
        let filled = SystemRandom::new().fill(&mut random);
        filled.map_err(|_| anyhow!("the system gives no random numbers"))?;
        let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let expires = expires.map(|time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string().parse());
        let sha256 = hex(&hash(&key));
        let entry = Self { name, sha256, scopes, client_id, expires: expires.transpose()? };
        entry.check()?;
        Ok((key, entry))
    }

    /// The entry as it stands in the file.
    pub fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(&File { key: vec![self.clone()] })?)
    }

    /// The hash, by which the key is found.
    pub fn hash(&self) -> Result<[u8; 32]> {
        digest(&self.sha256).context("sha256: 64 hexadecimal digits are expected")
    }

    /// When it ends, if it does.
    pub fn end(&self) -> Result<Option<DateTime<Utc>>> {
        let time = self.expires.as_ref().map(|time| {
            let time = DateTime::parse_from_rfc3339(&time.to_string());
            time.context("expires: a date and time with Z or an offset is expected")
        });
        Ok(time.transpose()?.map(|time| time.to_utc()))
    }

    fn check(&self) -> Result<()> {
        let is_name = (1..=100).contains(&self.name.len())
            && self.name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        ensure!(is_name, "name: 1 to 100 visible ASCII characters are expected");
        self.hash()?;
        self.end()?;
        ensure!(!self.scopes.is_empty(), "scopes: at least one is expected");
        ensure!(self.client_id.is_none_or(|id| id > 0), "client_id: a positive number is expected");
        if self.client_id.is_some() && self.scopes.contains(&Scope::Admin) {
            bail!("scopes: admin cannot be bound to a client_id");
        }
        Ok(())
    }
}

/// The entries of a file's text. Errors never quote it: somebody may have put a key there.
pub fn parse(text: &str) -> Result<Vec<ApiKey>> {
    let file: File = toml::from_str(text).map_err(|error| anyhow!("{}", error.message()))?;
    for (number, entry) in file.key.iter().enumerate() {
        let at = || format!("entry {} of the file", number + 1);
        entry.check().with_context(at)?;
        let before = &file.key[..number];
        let is_twice = before.iter().any(|it| it.sha256.eq_ignore_ascii_case(&entry.sha256));
        ensure!(!is_twice, "{}: its sha256 stands twice", at());
        let another =
            before.iter().any(|it| it.name == entry.name && it.client_id != entry.client_id);
        ensure!(!another, "{}: another entry of this name has another client_id", at());
    }
    Ok(file.key)
}

/// The hash of a key.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_key_has_an_entry_that_does_not_tell_it() {
        let scopes = vec![Scope::OrdersRead, Scope::ItemsWrite];
        let end = DateTime::from_timestamp(1_800_000_000, 0);
        let (key, entry) = ApiKey::generate("a desk".to_owned(), scopes, Some(7), end).unwrap();
        assert_eq!(key.len(), PREFIX.len() + 43);
        assert_eq!((entry.hash().unwrap(), entry.end().unwrap()), (hash(&key), end));
        let text = entry.to_toml().unwrap();
        assert!(!text.contains(&key), "{text}");
        assert_eq!(parse(&text).unwrap(), [entry]);
        let (other, _) = ApiKey::generate("b".to_owned(), vec![Scope::Admin], None, None).unwrap();
        assert_ne!(other, key);
    }

    #[test]
    fn a_wrong_file_is_refused_and_never_quoted() {
        let hash = "ab".repeat(32);
        let key = |rest: &str| format!("[[key]]\nname = \"a\"\nsha256 = \"{hash}\"\n{rest}\n");
        let good = key("scopes = [\"orders:read\"]");
        assert!(parse(&good).is_ok() && parse("").is_ok());
        let other = good.replace("ab", "cd");
        assert!(parse(&format!("{good}{other}")).is_ok(), "a key is being replaced");
        for (text, part) in [
            (good.repeat(2), "stands twice"),
            (format!("{good}{}", good.replace("abab", "ABAB")), "stands twice"),
            (format!("{good}{other}client_id = 7\n"), "another client_id"),
            (key("scopes = []"), "scopes"),
            (key("scopes = [\"orders\"]"), "orders:write"),
            (key("scopes = [\"admin\"]\nclient_id = 1"), "admin"),
            (key("scopes = [\"orders:read\"]\nclient_id = 0"), "client_id"),
            (key("scopes = [\"orders:read\"]\nexpires = 2027-01-01"), "expires"),
            (key("scopes = [\"orders:read\"]\nkey = \"geheim\""), "unknown field"),
            (good.replace("ab", "zz"), "sha256"),
            (good.replace("\"a\"", "\"\""), "name"),
            (good.replace("\"a\"", "\"a\\n\""), "name"),
            ("[[key]]\nsha256 = geheim".to_owned(), ""),
        ] {
            let message = format!("{:#}", parse(&text).unwrap_err());
            assert!(message.contains(part) && !message.contains("geheim"), "{text}: {message}");
        }
    }
}
