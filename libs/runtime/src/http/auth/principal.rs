//! Whose request it is.

use std::future::ready;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use ordersaga_api_key::hex;
use ordersaga_contract::ClientId;
use poem::{FromRequest, Request, RequestBody};
use sha2::{Digest, Sha256};

use super::{Scope, Scopes};
use crate::http::{Failure, ProblemType};

/// Whose request it is, and what may be done for it. Operations get it as an argument.
#[derive(Debug, Clone)]
pub struct Principal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: Option<String>,
    scopes: Scopes,
    client: Option<ClientId>,
    until: Option<DateTime<Utc>>,
    /// What its idempotency keys begin with where they are kept.
    prefix: String,
}

static ANYONE: LazyLock<Principal> = LazyLock::new(|| Principal::unnamed(Scopes::all()));
static NOBODY: LazyLock<Principal> = LazyLock::new(|| Principal::unnamed(Scopes::default()));

impl Principal {
    /// Every client of a service that does not ask.
    pub(super) fn anyone() -> Self {
        ANYONE.clone()
    }

    /// A client that has shown nothing.
    pub(super) fn nobody() -> Self {
        NOBODY.clone()
    }

    fn unnamed(scopes: Scopes) -> Self {
        let prefix = String::new();
        Self(Arc::new(Inner { name: None, scopes, client: None, until: None, prefix }))
    }

    /// A principal that has proved its name in this way, until its proof ends. One that is bound to
    /// a client is never an administrator: an administrator sees the orders of all clients.
    pub(super) fn new(
        way: &'static str,
        name: String,
        scopes: Scopes,
        client: Option<ClientId>,
        until: Option<DateTime<Utc>>,
    ) -> Self {
        let scopes = if client.is_some() { scopes.without(Scope::Admin) } else { scopes };
        // No key of a client can have this character.
        let digest = Sha256::digest(format!("{way}\n{name}"));
        let prefix = format!("{}\u{1}", hex(&digest[..16]));
        Self(Arc::new(Inner { name: Some(name), scopes, client, until, prefix }))
    }

    /// Its name, as logs and traces have it; none if it has proved none.
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Until when its proof is good, if it ends.
    pub(in crate::http) fn until(&self) -> Option<DateTime<Utc>> {
        self.0.until
    }

    /// The client whose orders alone it may place, see and cancel; none: those of all clients.
    pub fn client(&self) -> Option<ClientId> {
        self.0.client
    }

    /// Whether orders of this client are its to see and to cancel.
    pub fn may_see(&self, client: ClientId) -> bool {
        self.0.client.is_none_or(|own| own == client)
    }

    /// Whether it may see the orders of all clients.
    pub fn sees_all_orders(&self) -> bool {
        self.0.client.is_none() && self.has(Scope::OrdersRead)
    }

    /// Whether it has this scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.0.scopes.include(scope)
    }

    /// 403 unless it may act for this client; `field` is where the request names the client.
    pub fn act_for(&self, client: ClientId, field: &'static str) -> Result<(), Failure> {
        if self.may_see(client) {
            return Ok(());
        }
        let detail = "these credentials are bound to another client_id";
        Err(Failure::new(ProblemType::Forbidden, detail).with_field(field))
    }

    /// The client whose orders a list shows: the one asked for, or the one it is bound to. 403 if
    /// another client's are asked for.
    pub fn list_for(&self, asked: Option<ClientId>) -> Result<Option<ClientId>, Failure> {
        match asked {
            Some(asked) => self.act_for(asked, "client_id").map(|()| Some(asked)),
            None => Ok(self.0.client),
        }
    }

    /// 403 if it is bound to a client: what is asked for is about the orders of all.
    pub fn see_all(&self, what: &'static str) -> Result<(), Failure> {
        if self.0.client.is_none() {
            return Ok(());
        }
        let detail = format!("{what} of all clients, and these credentials are bound to one");
        Err(Failure::new(ProblemType::Forbidden, detail))
    }

    /// An idempotency key as it is kept: keys of different principals never meet.
    pub fn own_key(&self, key: &str) -> String {
        format!("{}{key}", self.0.prefix)
    }
}

impl<'a> FromRequest<'a> for Principal {
    fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
    ) -> impl Future<Output = poem::Result<Self>> + Send {
        // An operation is not reached without one.
        ready(Ok(request.data().cloned().unwrap_or_else(Self::nobody)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn client(id: i64) -> ClientId {
        id.try_into().unwrap()
    }

    fn bound() -> Principal {
        Principal::new("api-key", "shop".to_owned(), Scopes::all(), Some(client(7)), None)
    }

    #[test]
    fn a_bound_principal_has_the_orders_of_its_client_only() {
        let shop = bound();
        assert!(shop.may_see(client(7)) && !shop.may_see(client(8)) && !shop.sees_all_orders());
        assert!(shop.has(Scope::OrdersRead) && !shop.has(Scope::Admin));
        let forbidden = |outcome: Result<(), Failure>| {
            assert_eq!(outcome.unwrap_err().kind(), ProblemType::Forbidden);
        };
        forbidden(shop.act_for(client(8), "client_id"));
        forbidden(shop.list_for(Some(client(8))).map(drop));
        forbidden(shop.see_all("the counts are"));
        assert_eq!(shop.list_for(None).unwrap(), Some(client(7)));
        assert_eq!(shop.list_for(Some(client(7))).unwrap(), Some(client(7)));

        let desk = Principal::new("api-key", "desk".to_owned(), Scopes::all(), None, None);
        assert!(desk.may_see(client(8)) && desk.sees_all_orders() && desk.has(Scope::Admin));
        assert_eq!(desk.list_for(None).unwrap(), None);
        desk.see_all("the counts are").unwrap();
    }

    #[test]
    fn keys_of_different_principals_never_meet() {
        let named = |way, name: &str| {
            Principal::new(way, name.to_owned(), Scopes::all(), None, None).own_key("k")
        };
        let all = [
            named("api-key", "a"),
            named("api-key", "b"),
            named("jwt", "a"),
            Principal::anyone().own_key("k"),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
        assert_eq!(named("api-key", "a"), all[0]);
        assert_eq!(all[3], "k", "as before there were principals");
    }

    #[test]
    fn nobody_may_do_nothing() {
        for scope in Scope::ALL {
            assert!(!Principal::nobody().has(scope) && Principal::anyone().has(scope));
        }
        assert!(!Principal::nobody().sees_all_orders());
    }
}
