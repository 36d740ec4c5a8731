//! Finds the end of an HTTP/1.1 response in what was read so far, and the little that is needed of
//! it. No more than that: a general client costs several times as much as the request itself.

use std::ops::Range;

use memchr::{memchr, memmem};

/// A response to look at is never longer.
const LONGEST: usize = 1 << 20;

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Where the body is.
    pub(crate) body: Range<usize>,
    /// The server closes the connection.
    pub(crate) closes: bool,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u32>,
}

/// What was read is no response that this client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an HTTP/1.1 response with a Content-Length")]
pub(crate) struct Malformed;

/// The response at the begin of `read`; `None` while it is not whole. Nothing may follow it: there
/// is only one request at a time.
pub(crate) fn scan(read: &[u8]) -> Result<Option<Answer>, Malformed> {
    const STATUS: Range<usize> = 9..12;
    let version = b"HTTP/1.1 ";
    let known = read.len().min(version.len());
    if read[..known] != version[..known] || read.len() > LONGEST {
        return Err(Malformed);
    }
    let mut answer = Answer { status: 0, body: 0..0, closes: false, retry_after: None };
    let mut length = None;
    let mut at = 0;
    loop {
        let Some(end) = memchr(b'\n', &read[at..]) else { return Ok(None) };
        let line = &read[at..at + end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if at == 0 {
            answer.status = line.get(STATUS).and_then(number).ok_or(Malformed)?;
        } else if line.is_empty() {
            at += end + 1;
            break;
        } else {
            header(line, &mut answer, &mut length)?;
        }
        at += end + 1;
    }
    let whole = at + length.ok_or(Malformed)?;
    if whole > LONGEST || read.len() > whole {
        return Err(Malformed);
    }
    answer.body = at..whole;
    Ok((read.len() == whole).then_some(answer))
}

fn header(line: &[u8], answer: &mut Answer, length: &mut Option<usize>) -> Result<(), Malformed> {
    // Most headers are none of these: their length tells.
    let Some(colon) = memchr(b':', line) else { return Err(Malformed) };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    match name.len() {
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            *length = Some(number(value).ok_or(Malformed)?);
        }
        10 if name.eq_ignore_ascii_case(b"connection") => {
            answer.closes = value.eq_ignore_ascii_case(b"close");
        }
        11 if name.eq_ignore_ascii_case(b"retry-after") => answer.retry_after = number(value),
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => return Err(Malformed),
        _ => {}
    }
    Ok(())
}

/// The id under a name in a flat JSON object, as `{"order_id":17}`.
pub(crate) fn id(body: &[u8], name: &str) -> Option<i64> {
    let rest = value(body, name)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    number(&rest[..digits])
}

/// The word under a name in a flat JSON object, as `{"step":"SHIPPING"}`. Words have no escapes.
pub(crate) fn word<'a>(body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = value(body, name)?.strip_prefix(b"\"")?;
    Some(&rest[..memchr(b'"', rest)?])
}

/// The value under a name, and all that follows it.
fn value<'a>(body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let begin = memmem::find(body, name.as_bytes())?;
    let rest = body[begin + name.len()..].strip_prefix(b"\"")?.trim_ascii_start();
    Some(rest.strip_prefix(b":")?.trim_ascii_start())
}

/// A number of nothing but digits, if it fits.
pub(crate) fn number<T: TryFrom<u64>>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
    T::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nlocation: http://localhost:8001/api/v1/status?order_id=17\r\nContent-Length: 15\r\nx-request-id: f72b\r\n\r\n{\"order_id\":17}";

    #[test]
    fn a_response_is_whole_exactly_with_its_last_byte() {
        for cut in 0..CREATED.len() {
            assert_eq!(scan(&CREATED.as_bytes()[..cut]), Ok(None), "{cut} bytes");
        }
        let answer = scan(CREATED.as_bytes()).unwrap().unwrap();
        assert_eq!(answer.status, 201);
        assert!(!answer.closes);
        assert_eq!(id(&CREATED.as_bytes()[answer.body], "order_id"), Some(17));
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let answer = scan(refusal).unwrap().unwrap();
        assert_eq!((answer.status, answer.retry_after, answer.closes), (503, Some(1), true));
        assert!(answer.body.is_empty());
    }

    #[test]
    fn what_is_no_such_response_is_told_at_once() {
        for wrong in [
            "HTTP/2 200",
            "SSH-",
            "HTTP/1.1 2x1 Created\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno header\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
        ] {
            assert_eq!(scan(wrong.as_bytes()), Err(Malformed), "{wrong}");
        }
    }

    #[test]
    fn words_are_found_however_the_object_is_laid_out() {
        let status = b"{ \"order_id\": 5, \"step\" : \"SHIPPING\",\"initiator\":\"store\"}";
        assert_eq!(word(status, "step"), Some(&b"SHIPPING"[..]));
        assert_eq!(word(status, "initiator"), Some(&b"store"[..]));
        assert_eq!(word(status, "order_id"), None);
        assert_eq!(word(b"{\"step\":\"SHIP", "step"), None);
        assert_eq!(word(b"", "step"), None);
    }

    #[test]
    fn ids_are_found_however_the_object_is_laid_out() {
        assert_eq!(id(b"{\"item_id\": 5, \"order_id\" : 12 }", "order_id"), Some(12));
        assert_eq!(id(b"{\"order_id\":\"12\"}", "order_id"), None);
        assert_eq!(id(b"{}", "order_id"), None);
        assert_eq!(number::<i64>(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(number::<i64>(b"9223372036854775808"), None);
    }
}
