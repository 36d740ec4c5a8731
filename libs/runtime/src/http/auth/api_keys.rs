//! Keys that clients are given, by their hashes.

use std::collections::HashMap;
use std::fmt;

use chrono::{DateTime, Utc};
use ordersaga_api_key::ApiKey;
use ordersaga_contract::ClientId;

use super::{Principal, Reason, Refused};

/// The keys of a file, by their hashes. A key is looked for by its hash: how long that takes says
/// nothing of other keys.
#[derive(Default)]
pub(super) struct ApiKeys(HashMap<[u8; 32], Principal>);

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl ApiKeys {
    /// Reads a file's text.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let entries = ordersaga_api_key::parse(text)?;
        let keys = entries.into_iter().map(|entry| Ok((entry.hash()?, principal(entry)?)));
        Ok(Self(keys.collect::<anyhow::Result<_>>()?))
    }

    /// Whose key it is, at this time.
    pub(super) fn find(&self, key: &str, now: DateTime<Utc>) -> Result<Principal, Refused> {
        let found = self.0.get(&ordersaga_api_key::hash(key));
        let found = found.ok_or(Refused::new(Reason::Unknown, "there is no such key"))?;
        if found.until().is_some_and(|until| until <= now) {
            return Err(Refused::new(Reason::Expired, "the key has expired"));
        }
        Ok(found.clone())
    }
}

fn principal(entry: ApiKey) -> anyhow::Result<Principal> {
    let client = entry.client_id.map(ClientId::try_from).transpose()?;
    let (scopes, until) = (entry.scopes.iter().copied().collect(), entry.end()?);
    Ok(Principal::new("api-key", entry.name, scopes, client, until))
}

#[cfg(test)]
mod tests {
    use ordersaga_api_key::Scope;

    use super::*;

    #[test]
    fn a_key_is_found_by_itself_and_by_nothing_else_until_it_expires() {
        let end = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let scopes = vec![Scope::OrdersRead, Scope::OrdersWrite];
        let (key, entry) = ApiKey::generate("desk".to_owned(), scopes, Some(7), Some(end)).unwrap();
        let keys = ApiKeys::parse(&entry.to_toml().unwrap()).unwrap();
        let at = |seconds| keys.find(&key, end + chrono::TimeDelta::seconds(seconds));
        let found = at(-1).unwrap();
        assert_eq!((found.name(), found.client()), (Some("desk"), Some(7.try_into().unwrap())));
        assert!(found.has(Scope::OrdersWrite) && !found.has(Scope::ItemsWrite));
        assert_eq!(at(0).unwrap_err().reason, Reason::Expired);
        for other in [&entry.sha256, "", &key[1..], &format!("{key}a")] {
            let refused = keys.find(other, DateTime::UNIX_EPOCH).unwrap_err();
            assert_eq!(refused.reason, Reason::Unknown, "{other}");
        }
        assert_eq!(format!("{keys:?}"), "1 keys");
    }
}
