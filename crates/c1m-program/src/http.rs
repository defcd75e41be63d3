//! HTTP/1: heads of requests and the date of responses here, responses in [`response`], and what
//! both have in common in [`field`]. Pure.
//!
//! Strict where RFC 9110 and RFC 9112 are: what another reader of the same bytes may take for something else is refused.

pub mod field;
pub mod response;

use std::{fmt, net::Ipv6Addr};

/// Heads that are longer are refused with 431.
pub const MAX_HEAD_BYTES: usize = 8192;
/// With more header fields than this a head is refused with 431.
pub const MAX_FIELDS: usize = 64;

/// What the bytes read so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<T> {
    /// More is needed.
    Partial,
    Request(T),
    /// Refused with this status; the connection cannot go on, because nobody knows where the next request starts.
    Refused(u16),
}

/// A status that c1m answers with, in digits, and its reason phrase: RFC 9110, 15, and RFC 6585, 5.
pub fn status(code: u16) -> (&'static str, &'static str) {
    match code {
        200 => ("200", "OK"),
        400 => ("400", "Bad Request"),
        404 => ("404", "Not Found"),
        405 => ("405", "Method Not Allowed"),
        408 => ("408", "Request Timeout"),
        411 => ("411", "Length Required"),
        431 => ("431", "Request Header Fields Too Large"),
        501 => ("501", "Not Implemented"),
        _ => ("505", "HTTP Version Not Supported"),
    }
}

/// A method, in so far as it decides about the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Connect,
    Options,
    /// Another one of RFC 9110 or RFC 5789.
    Known,
    Unknown,
}

impl Method {
    fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "DELETE" | "PATCH" | "TRACE" => Self::Known,
            _ => Self::Unknown,
        }
    }
}

/// One complete request head whose version, Host and target are right.
#[derive(Debug)]
pub struct Head<'a> {
    /// Its length, with the empty line.
    pub bytes: usize,
    pub http_1_0: bool,
    pub method: Method,
    /// Without query; `*` of OPTIONS, and empty for CONNECT, which has none.
    pub path: &'a str,
    pub fields: &'a [httparse::Header<'a>],
}

/// Looks for one request head at the start of `input`, and has `interpret` say what it asks for, or with which status it is refused.
pub fn parse<T>(input: &[u8], interpret: impl FnOnce(&Head<'_>) -> Result<T, u16>) -> Parsed<T> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(input) {
        Err(httparse::Error::Version) => other_version(input, interpret),
        parsed => judge(parsed, &request, input.len(), interpret),
    }
}

fn judge<T>(
    parsed: httparse::Result<usize>,
    request: &httparse::Request<'_, '_>,
    input_bytes: usize,
    interpret: impl FnOnce(&Head<'_>) -> Result<T, u16>,
) -> Parsed<T> {
    use httparse::{Error::TooManyHeaders, Status};
    match parsed {
        Ok(Status::Complete(bytes)) if bytes <= MAX_HEAD_BYTES => {
            let interpreted = head(request, bytes).and_then(|head| interpret(&head));
            interpreted.map_or_else(Parsed::Refused, Parsed::Request)
        }
        Ok(Status::Partial) if input_bytes <= MAX_HEAD_BYTES => Parsed::Partial,
        Ok(_) | Err(TooManyHeaders) => Parsed::Refused(431),
        Err(_) => Parsed::Refused(400),
    }
}

/// What httparse does not know: later versions of HTTP/1, which are read as 1.1 (RFC 9110, 2.5), and other ones, which are refused.
fn other_version<T>(
    input: &[u8],
    interpret: impl FnOnce(&Head<'_>) -> Result<T, u16>,
) -> Parsed<T> {
    let start = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let Some(length) = input[start..].iter().position(|byte| *byte == b'\n') else {
        let goes_on = input.len() <= MAX_HEAD_BYTES;
        return if goes_on { Parsed::Partial } else { Parsed::Refused(431) };
    };
    let line = &input[start..start + length];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.rsplit(|byte| *byte == b' ').next() {
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']) => {
            let mut as_1_1 = input.to_vec();
            as_1_1[start + line.len() - 1] = b'1';
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut request = httparse::Request::new(&mut fields);
            let parsed = request.parse(&as_1_1);
            judge(parsed, &request, input.len(), interpret)
        }
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if *major != b'1' && major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Parsed::Refused(505)
        }
        _ => Parsed::Refused(400),
    }
}

fn head<'a>(request: &'a httparse::Request<'_, '_>, bytes: usize) -> Result<Head<'a>, u16> {
    let http_1_0 = request.version == Some(0);
    let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    // RFC 9112, 3.2.
    match (hosts.next(), hosts.next()) {
        (None, _) if http_1_0 => {}
        (Some(host), None) if host.value.is_empty() || is_authority(host.value) => {}
        _ => return Err(400),
    }
    let method = Method::of(request.method.unwrap_or_default());
    let path = path(method, request.path.unwrap_or_default()).ok_or(400u16)?;
    Ok(Head { bytes, http_1_0, method, path, fields: &*request.headers })
}

/// The path that a request target names, in each of its four forms: RFC 9112, 3.2. `None`: it is none of them.
fn path(method: Method, target: &str) -> Option<&str> {
    let path = if target.starts_with('/') {
        target
    } else if method == Method::Connect {
        return is_authority(target.as_bytes()).then_some("");
    } else if target == "*" {
        return (method == Method::Options).then_some(target);
    } else {
        let (scheme, rest) = target.split_once("://")?;
        let is_ours = ["http", "https"].iter().any(|it| scheme.eq_ignore_ascii_case(it));
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if !is_ours || authority.starts_with(':') || !is_authority(authority.as_bytes()) {
            return None;
        }
        if path.starts_with('/') { path } else { "/" }
    };
    Some(path.split_once('?').map_or(path, |(path, _)| path))
}

/// A host with or without a port, and nothing else: `uri-host [ ":" port ]`, RFC 3986, 3.2.
fn is_authority(text: &[u8]) -> bool {
    let after_host = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            if !is_ip_literal(&rest[..end]) {
                return false;
            }
            &rest[end + 1..]
        }
        None => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            if end == 0 || !is_name(&text[..end]) {
                return false;
            }
            &text[end..]
        }
    };
    match after_host {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// An IPv6 address, or one of a later version (`v1.x`).
fn is_ip_literal(text: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(text) else { return false };
    if text.parse::<Ipv6Addr>().is_ok() {
        return true;
    }
    let later = text.strip_prefix(['v', 'V']).and_then(|text| text.split_once('.'));
    later.is_some_and(|(version, address)| {
        !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !address.is_empty()
            && address.bytes().all(|byte| byte == b':' || is_name_byte(byte))
    })
}

fn is_name(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let is_right = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(u8::is_ascii_hexdigit)),
            byte => is_name_byte(*byte),
        };
        if !is_right {
            return false;
        }
    }
    true
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// A point in time as HTTP writes it, such as `Sun, 06 Nov 1994 08:49:37 GMT`: RFC 9110, 5.6.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date([u8; 29]);

impl Date {
    /// `seconds` since 1970. Years after 9999 have no such form; they become the last second that has.
    pub fn of(seconds: u64) -> Self {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        const LAST: u64 = 253_402_300_799;
        let seconds = seconds.min(LAST);
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let name = |names: &[&'static str], index: u64| {
            usize::try_from(index).ok().and_then(|index| names.get(index).copied()).unwrap_or("")
        };
        let text = format!(
            "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
            name(&DAYS, days % 7),
            name(&MONTHS, month - 1),
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60
        );
        let mut bytes = [b' '; 29];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is made of a text, and no longer than that.
        f.write_str(str::from_utf8(&self.0).unwrap_or_default())
    }
}

/// Year, month and day of a day that is counted from 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day is the last one; 719468 days before 1970 one such year began with a full cycle of 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
