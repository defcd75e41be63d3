//! A response's head: its length, its status, and what body follows.

use std::borrow::Cow;

use super::{
    super::field::{self, is_text, is_token},
    LONGEST_HEAD, Malformed,
};

const MOST_HEADERS: usize = 100;

/// A head that has come whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of it, its empty line included.
    pub(super) length: usize,
    pub(super) status: u16,
    pub(super) body: Body,
}

/// Where the body ends (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    /// With the connection.
    ToEnd,
}

/// `None`: it has not come whole yet.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    // httparse steps over empty lines, which a response does not begin with.
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(Malformed::StatusLine);
    }
    let bytes = as_version_1_1(&bytes[..bytes.len().min(LONGEST_HEAD + 1)]);
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(&bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(malformed(error, &bytes)),
    };
    let status = response.code.filter(|code| *code >= 100).ok_or(Malformed::StatusLine)?;
    let body = match status {
        // Never with a body, whatever the headers say.
        100..=199 | 204 | 304 => Body::Length(0),
        _ => body(response.headers, response.version == Some(0))?,
    };
    Ok(Some(Head { length, status, body }))
}

/// A later minor version is read as the last one that is known (RFC 9110, 2.5), which httparse does not.
fn as_version_1_1(bytes: &[u8]) -> Cow<'_, [u8]> {
    const PREFIX: &[u8] = b"HTTP/1.";
    match bytes.strip_prefix(PREFIX).and_then(|rest| rest.first()) {
        Some(b'2'..=b'9') => {
            let mut bytes = bytes.to_vec();
            bytes[PREFIX.len()] = b'1';
            bytes.into()
        }
        _ => bytes.into(),
    }
}

fn malformed(error: httparse::Error, bytes: &[u8]) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::TooManyHeaders,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Malformed::Header,
        // A bare CR, which may be in either.
        httparse::Error::NewLine => {
            let mut lines = bytes.split(|byte| *byte == b'\n');
            let first = lines.next().unwrap_or_default();
            let first = first.strip_suffix(b"\r").unwrap_or(first);
            match lines.next() {
                Some(_) if !first.contains(&b'\r') => Malformed::Header,
                _ => Malformed::StatusLine,
            }
        }
        _ => Malformed::StatusLine,
    }
}

fn body(headers: &[httparse::Header<'_>], is_1_0: bool) -> Result<Body, Malformed> {
    let values = |name: &'static str| {
        headers.iter().filter(move |it| it.name.eq_ignore_ascii_case(name)).map(|it| it.value)
    };
    let codings: Vec<&[u8]> = values("transfer-encoding").collect();
    let lengths: Vec<&[u8]> = values("content-length").collect();
    match (codings.is_empty(), lengths.is_empty()) {
        (false, false) => Err(Malformed::LengthAndCoding),
        (false, true) if is_1_0 => Err(Malformed::Coding),
        (false, true) => coded(&codings),
        (true, false) => length(&lengths).map(Body::Length),
        (true, true) => Ok(Body::ToEnd),
    }
}

/// The members of all values of a list.
fn members<'a>(values: &[&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    values.iter().flat_map(|value| field::members(value))
}

fn length(values: &[&[u8]]) -> Result<u64, Malformed> {
    let mut lengths =
        members(values).map(|digits| field::decimal(digits).ok_or(Malformed::ContentLength));
    let first = lengths.next().unwrap_or(Err(Malformed::ContentLength))?;
    for other in lengths {
        if other? != first {
            return Err(Malformed::ContentLengths);
        }
    }
    Ok(first)
}

fn coded(values: &[&[u8]]) -> Result<Body, Malformed> {
    let (mut chunked, mut last_is_chunked) = (0, false);
    for coding in members(values) {
        // Others may have parameters.
        let name = coding.split(|byte| *byte == b';').next().unwrap_or(coding).trim_ascii();
        last_is_chunked = name.eq_ignore_ascii_case(b"chunked");
        chunked += u32::from(last_is_chunked);
        let has_parameter = last_is_chunked && name.len() < coding.len();
        let is_name = !name.is_empty() && name.iter().all(|byte| is_token(*byte));
        if !is_name || has_parameter || chunked > 1 {
            return Err(Malformed::Coding);
        }
    }
    Ok(if last_is_chunked { Body::Chunked } else { Body::ToEnd })
}

/// A header field: a name without blanks, a colon, a value without control characters.
pub(super) fn is_field(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let (name, value) = line.split_at(colon);
    !name.is_empty()
        && name.iter().all(|byte| is_token(*byte))
        && value.iter().all(|byte| is_text(*byte))
}
