//! Which tokens are accepted, and which are not.

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
struct Signer {
    id: &'static str,
    key: Ed25519KeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id, key: Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap() }
    }

    fn jwk(&self) -> Value {
        let x = base64(self.key.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "use": "sig", "x": x})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
        let signature = self.key.sign(message.as_bytes());
        format!("{message}.{}", base64(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "EdDSA", "kid": self.id}), claims)
    }
}

fn key_set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

fn now() -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap()
}

fn claims() -> Value {
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

fn demands() -> Demands {
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
        let message = format!("{}.{}", base64(header.to_string()), base64(claims().to_string()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, signer.key.public_key().as_ref());
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
