//! JSON Web Tokens (RFC 7519): which are accepted, and what they say of their bearer.

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header, Validation};
use ordersaga_contract::ClientId;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Principal, Reason, Refused, Scope, ring_verifier};

/// By so much clocks may differ, in seconds.
const LEEWAY: u64 = 60;
/// The longest name of a principal.
const LONGEST_NAME: usize = 255;

/// The public keys by which tokens are signed.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

/// A key, and the algorithms that it is for.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    public: DecodingKey,
}

#[derive(Deserialize)]
struct File {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys that are for something else, or of an unknown kind, are left
    /// out, and so are secrets: a set is public.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = serde_json::from_str(text).context("no JSON Web Key Set")?;
        let keys: Vec<_> = file.keys.into_iter().filter_map(Key::read).collect();
        ensure!(!keys.is_empty(), "it has no key that signatures can be verified by");
        Ok(Self(keys))
    }

    /// The key that a token names. One that names none is taken for signed by the only one there is.
    fn find(&self, header: &Header) -> Option<&Key> {
        match (&header.kid, &self.0[..]) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (id, keys) => keys.iter().find(|key| key.id == *id),
        }
    }
}

impl Key {
    fn read(key: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|it| *it != PublicKeyUse::Signature) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            _ => return None,
        };
        if let Some(algorithm) = jwk.common.key_algorithm {
            let algorithm = Algorithm::try_from(algorithm).ok()?;
            algorithms.retain(|known| *known == algorithm);
        }
        let public = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Self { id: jwk.common.key_id, algorithms, public })
    }
}

/// What is asked of tokens.
#[derive(Debug)]
pub(super) struct Demands {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) client_claim: String,
}

/// What became of a token.
#[derive(Debug)]
pub(super) enum Verified {
    /// It is good.
    Good(Principal),
    /// It names a key that is not in the set: a newer set may have it.
    UnknownKey,
    /// It is not accepted.
    Refused(Refused),
}

#[derive(Deserialize)]
struct Claims {
    /// Compared already; it must be a text, and not a list of which one is right.
    iss: String,
    sub: String,
    exp: f64,
    scope: Option<String>,
    scp: Option<Vec<String>>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Demands {
    /// Whose token it is. What costs nothing is looked at before the signature is verified.
    pub(super) fn verify(&self, token: &str, keys: &KeySet) -> Verified {
        let Ok(header) = jsonwebtoken::decode_header(token) else {
            return invalid("it is no JSON Web Token, or its algorithm is not accepted");
        };
        // Something that we do not know and must understand.
        if header.crit.is_some() {
            return invalid("the token has the header crit, of which nothing is known here");
        }
        let Some(key) = keys.find(&header) else { return Verified::UnknownKey };
        if !key.algorithms.contains(&header.alg) {
            return invalid("the token's algorithm is not that of its key");
        }
        ring_verifier::install();
        let decoded = jsonwebtoken::decode(token, &key.public, &self.validation(key));
        let principal = decoded.map_err(|error| refusal(error.kind()));
        match principal.and_then(|decoded| self.principal(decoded.claims)) {
            Ok(principal) => Verified::Good(principal),
            Err(refused) => Verified::Refused(refused),
        }
    }

    fn validation(&self, key: &Key) -> Validation {
        let mut validation = Validation::default();
        validation.algorithms.clone_from(&key.algorithms);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        validation
    }

    fn principal(&self, claims: Claims) -> Result<Principal, Refused> {
        let refused = |detail| Refused::new(Reason::Invalid, detail);
        let is_name = (1..=LONGEST_NAME).contains(&claims.sub.len())
            && !claims.sub.contains(char::is_control);
        if !is_name || claims.iss != self.issuer {
            return Err(refused("the token's iss or sub is wrong"));
        }
        let client = claims.others.get(&self.client_claim).map(client_of).transpose();
        let client = client.map_err(|()| refused("the token's client claim is no client_id"))?;
        let named = claims.scope.iter().flat_map(|scopes| scopes.split(' '));
        let listed = claims.scp.iter().flatten().map(String::as_str);
        // A token may have scopes of other services as well.
        let scopes = named.chain(listed).filter_map(|scope| scope.parse::<Scope>().ok()).collect();
        let until = expiry(claims.exp).ok_or(refused("the token's exp is no time"))?;
        Ok(Principal::new("jwt", claims.sub, scopes, client, Some(until)))
    }
}

/// A number, or its digits: JavaScript does not keep large ones. Anything else binds to nothing, and
/// must not be taken for a token that is not bound.
fn client_of(claim: &Value) -> Result<ClientId, ()> {
    let number = match claim {
        Value::Number(number) => number.as_i64(),
        Value::String(digits) => digits.parse().ok(),
        _ => None,
    };
    number.and_then(|number| ClientId::try_from(number).ok()).ok_or(())
}

fn expiry(seconds: f64) -> Option<DateTime<Utc>> {
    // It was compared with the time already; this is to end streams.
    #[expect(clippy::cast_possible_truncation)]
    let seconds = seconds.min(253_402_300_000.0) as i64;
    DateTime::from_timestamp(seconds, 0)
}

fn invalid(detail: &'static str) -> Verified {
    Verified::Refused(Refused::new(Reason::Invalid, detail))
}

fn refusal(error: &ErrorKind) -> Refused {
    let (reason, detail) = match error {
        ErrorKind::ExpiredSignature => (Reason::Expired, "the token has expired"),
        ErrorKind::ImmatureSignature => (Reason::Invalid, "the token is not valid yet"),
        ErrorKind::InvalidIssuer => (Reason::Invalid, "the token is of another issuer"),
        ErrorKind::InvalidAudience => (Reason::Invalid, "the token is for another audience"),
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => (
            Reason::Invalid,
            "the token lacks one of exp, iss, aud and sub, or one is no such claim",
        ),
        ErrorKind::InvalidSignature => (Reason::Invalid, "the token's signature is wrong"),
        _ => (Reason::Invalid, "the token cannot be read"),
    };
    Refused::new(reason, detail)
}

#[cfg(test)]
mod tests;
