//! The header `Authorization` (RFC 6750).

use poem::http::{HeaderMap, header};

use super::Refused;

/// The longest credentials that are looked at: a token with many claims has some 2 KiB.
const LONGEST: usize = 8 * 1_024;

/// The credentials of a request; none if it shows none.
pub(super) fn credentials(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Refused::malformed("the header Authorization is given twice"));
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or(Refused::malformed("Authorization: Bearer and the key or token are expected"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused::malformed("the scheme of Authorization must be Bearer"));
    }
    let token = token.trim_matches(' ');
    // As RFC 6750 has it: token68.
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
    if token.is_empty() || token.len() > LONGEST || !token.bytes().all(legal) {
        return Err(Refused::malformed("what follows Bearer is no key or token"));
    }
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    fn read(values: &[&[u8]]) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        credentials(&headers).map(|it| it.map(str::to_owned)).map_err(|it| it.reason.label())
    }

    #[test]
    fn a_bearer_has_one_key_or_token() {
        assert_eq!(read(&[]), Ok(None));
        for given in ["Bearer abc.DEF-_~+/=", "bearer abc.DEF-_~+/=", "BEARER   abc.DEF-_~+/= "] {
            assert_eq!(read(&[given.as_bytes()]), Ok(Some("abc.DEF-_~+/=".to_owned())), "{given}");
        }
        let long = format!("Bearer {}", "a".repeat(LONGEST + 1));
        for wrong in
            ["Bearer", "Bearer ", "Basic dXNlcg==", "abc", "Bearer a b", "Bearer a,b", &long]
        {
            assert_eq!(read(&[wrong.as_bytes()]), Err("malformed"), "{wrong}");
        }
        assert_eq!(read(&[b"Bearer \xff"]), Err("malformed"));
        assert_eq!(read(&[b"Bearer a", b"Bearer a"]), Err("malformed"));
    }
}
