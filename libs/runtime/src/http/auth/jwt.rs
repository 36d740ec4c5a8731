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
pub(super) mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    fn base64(bytes: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// A key made for a test.
    pub(in crate::http::auth) struct Signer {
        id: &'static str,
        key: Ed25519KeyPair,
    }

    impl Signer {
        pub(in crate::http::auth) fn new(id: &'static str) -> Self {
            let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            Self { id, key: Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap() }
        }

        pub(in crate::http::auth) fn jwk(&self) -> Value {
            let x = base64(self.key.public_key());
            json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "use": "sig", "x": x})
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
            let signature = self.key.sign(message.as_bytes());
            format!("{message}.{}", base64(signature))
        }

        pub(in crate::http::auth) fn token(&self, claims: &Value) -> String {
            self.sign(&json!({"alg": "EdDSA", "kid": self.id}), claims)
        }
    }

    pub(in crate::http::auth) fn key_set(keys: &[Value]) -> String {
        json!({"keys": keys}).to_string()
    }

    fn now() -> i64 {
        i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap()
    }

    pub(in crate::http::auth) fn claims() -> Value {
        json!({"iss": "https://id.example", "aud": "orders", "sub": "shop", "exp": now() + 300,
               "scope": "openid orders:read"})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    fn without(name: &str) -> Value {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        claims
    }

    pub(in crate::http::auth) fn demands() -> Demands {
        Demands {
            issuer: "https://id.example".to_owned(),
            audience: "orders".to_owned(),
            client_claim: "ordersaga_client_id".to_owned(),
        }
    }

    fn verify(token: &str, keys: &[Value]) -> Result<Principal, &'static str> {
        match demands().verify(token, &KeySet::parse(&key_set(keys)).unwrap()) {
            Verified::Good(principal) => Ok(principal),
            Verified::UnknownKey => Err("unknown key"),
            Verified::Refused(refused) => Err(refused.detail),
        }
    }

    #[test]
    fn claims_say_who_it_is_and_what_it_may_do() {
        let signer = Signer::new("one");
        let read = |claims: Value| verify(&signer.token(&claims), &[signer.jwk()]);
        let shop = read(claims()).unwrap();
        assert_eq!((shop.name(), shop.client()), (Some("shop"), None));
        assert!(shop.has(Scope::OrdersRead) && !shop.has(Scope::OrdersWrite));
        assert!(shop.until().is_some());
        let listed = read(with("scp", json!(["orders:write", "else"]))).unwrap();
        assert!(listed.has(Scope::OrdersRead) && listed.has(Scope::OrdersWrite));
        assert!(!read(without("scope")).unwrap().has(Scope::OrdersRead));
        for client in [json!(7), json!("7")] {
            let bound = read(with("ordersaga_client_id", client)).unwrap();
            assert_eq!(bound.client(), Some(7.try_into().unwrap()));
        }
        for client in [json!(0), json!(-7), json!(7.5), json!(""), json!(null), json!([7])] {
            let outcome = read(with("ordersaga_client_id", client.clone()));
            assert!(outcome.unwrap_err().contains("client claim"), "{client}");
        }
        let audiences = json!(["other", "orders"]);
        assert!(read(with("aud", audiences)).is_ok());
    }

    #[test]
    fn claims_must_be_right_and_in_time() {
        let signer = Signer::new("one");
        let read = |claims: Value| verify(&signer.token(&claims), &[signer.jwk()]);
        for (claims, part) in [
            (with("exp", json!(now() - 70)), "expired"),
            (with("nbf", json!(now() + 70)), "not valid yet"),
            (with("iss", json!("https://evil.example")), "another issuer"),
            (with("iss", json!(["https://id.example"])), ""),
            (with("aud", json!("else")), "another audience"),
            (with("aud", json!([])), "another audience"),
            (with("sub", json!("")), "sub"),
            (with("sub", json!("a\nb")), "sub"),
            (with("sub", json!("a".repeat(256))), "sub"),
            (with("exp", json!("never")), ""),
            (with("nbf", json!("now")), ""),
            (without("exp"), "lacks"),
            (without("iss"), "lacks"),
            (without("aud"), "lacks"),
            (without("sub"), "lacks"),
        ] {
            let detail = read(claims.clone()).expect_err(&claims.to_string());
            assert!(detail.contains(part), "{claims}: {detail}");
        }
        // Clocks may differ by a minute.
        assert!(read(with("exp", json!(now() - 50))).is_ok());
        assert!(read(with("nbf", json!(now() + 50))).is_ok());
    }

    #[test]
    fn only_a_signature_by_the_key_that_is_named_counts() {
        let (one, two) = (Signer::new("one"), Signer::new("two"));
        let token = one.token(&claims());
        let set = [two.jwk(), one.jwk()];
        assert!(verify(&token, &set).is_ok());
        assert_eq!(verify(&token, &[two.jwk()]).unwrap_err(), "unknown key");
        let stolen = two.sign(&json!({"alg": "EdDSA", "kid": "one"}), &claims());
        assert!(verify(&stolen, &set).unwrap_err().contains("signature"));
        // A token need not name a key, if there is but one.
        let nameless = one.sign(&json!({"alg": "EdDSA"}), &claims());
        assert!(verify(&nameless, &[one.jwk()]).is_ok());
        assert_eq!(verify(&nameless, &set).unwrap_err(), "unknown key");
        let (message, _) = token.rsplit_once('.').unwrap();
        let (header, _) = message.split_once('.').unwrap();
        let changed = base64(with("sub", json!("admin")).to_string());
        let signature = &token[message.len() + 1..];
        for wrong in [
            format!("{header}.{changed}.{signature}"),
            format!("{message}."),
            message.to_owned(),
            format!("{token}.{signature}"),
            format!("{token}="),
            String::new(),
        ] {
            assert!(verify(&wrong, &set).is_err(), "{wrong}");
        }
        let critical = one.sign(&json!({"alg": "EdDSA", "kid": "one", "crit": ["b64"]}), &claims());
        assert!(verify(&critical, &set).unwrap_err().contains("crit"));
    }

    #[test]
    fn the_algorithm_is_the_keys_and_never_none_or_a_secret() {
        let signer = Signer::new("one");
        let public = base64(signer.key.public_key());
        for algorithm in ["none", "None", "HS256", "HS512", "RS256", "ES256", "PS256", "XX"] {
            let header = json!({"alg": algorithm, "kid": "one"});
            let message =
                format!("{}.{}", base64(header.to_string()), base64(claims().to_string()));
            let key =
                ring::hmac::Key::new(ring::hmac::HMAC_SHA256, signer.key.public_key().as_ref());
            let hmac = base64(ring::hmac::sign(&key, message.as_bytes()));
            for signature in [String::new(), hmac, base64(signer.key.sign(message.as_bytes()))] {
                let token = format!("{message}.{signature}");
                assert!(verify(&token, &[signer.jwk()]).is_err(), "{token}");
            }
        }
        // A secret in the set is no key, and neither is one for something else.
        for key in [
            json!({"kty": "oct", "kid": "one", "k": public}),
            json!({"kty": "oct", "kid": "one", "alg": "HS256", "k": public}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "enc", "x": public}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "alg": "RS256", "x": public}),
            json!({"kty": "OKP", "crv": "X25519", "kid": "one", "x": public}),
            json!({"kty": "new", "kid": "one"}),
            json!({}),
        ] {
            assert!(KeySet::parse(&key_set(std::slice::from_ref(&key))).is_err(), "{key}");
            assert!(verify(&signer.token(&claims()), &[key, signer.jwk()]).is_ok());
        }
        for wrong in ["", "[]", "{}", r#"{"keys":[]}"#] {
            assert!(KeySet::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_usual_algorithms_are_verified() {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pair.as_ref(), &random).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "ec", "x": base64(x), "y": base64(y)});
        let header = json!({"alg": "ES256", "kid": "ec"});
        let message = format!("{}.{}", base64(header.to_string()), base64(claims().to_string()));
        let signature = pair.sign(&random, message.as_bytes()).unwrap();
        let token = format!("{message}.{}", base64(signature));
        assert!(verify(&token, std::slice::from_ref(&jwk)).is_ok());
        assert!(verify(&token.replace(&message, &format!("{message}a")), &[jwk]).is_err());

        // Nothing here makes keys of RSA: these were made once, with openssl.
        let rsa: Value = serde_json::from_str(include_str!("rsa.json")).unwrap();
        for algorithm in ["RS256", "PS256"] {
            let token = rsa[algorithm].as_str().unwrap();
            assert!(verify(token, &[rsa["jwk"].clone()]).is_ok(), "{algorithm}");
            let other = rsa[if algorithm == "RS256" { "PS256" } else { "RS256" }].as_str().unwrap();
            let (message, _) = token.rsplit_once('.').unwrap();
            let (_, signature) = other.rsplit_once('.').unwrap();
            let mixed = format!("{message}.{signature}");
            assert!(verify(&mixed, &[rsa["jwk"].clone()]).is_err(), "{algorithm}");
            let mut for_the_other = rsa["jwk"].clone();
            for_the_other["alg"] = json!(if algorithm == "RS256" { "PS256" } else { "RS256" });
            assert!(verify(token, &[for_the_other]).unwrap_err().contains("algorithm"));
        }
    }
}
