//! What each connection asks for: the opening request, and later samples and heartbeats.

use std::net::SocketAddr;

use c1m_program::http::response::{Response, request};

use crate::pin::PinPlan;

/// What connections ask c1m-server for first: a body that goes on for as long as the connection.
pub const FIRST_PATH: &str = "/";
/// What samples and heartbeats ask c1m-server for.
pub const CHECK_PATH: &str = "/bytes/64";

/// The paths of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// `None`: connections are idle from the start.
    pub first: Option<String>,
    /// Of samples and heartbeats.
    pub check: String,
}

/// A request whose answer is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    request: Vec<u8>,
    /// As the path says it; `None`: by the response's own framing alone.
    body_bytes: Option<u64>,
}

impl Check {
    /// `/bytes/N` is answered by N bytes.
    fn new(path: &str, host: &SocketAddr) -> Self {
        let number =
            path.strip_prefix("/bytes/").map(|rest| rest.split('?').next().unwrap_or(rest));
        let digits = number.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let body_bytes = digits.and_then(|digits| digits.parse().ok());
        Self { request: request(path, host), body_bytes }
    }

    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// What is wrong with a complete response, as errors name it; `None`: it is right.
    #[must_use]
    pub fn fault(&self, response: Response) -> Option<String> {
        match response.status {
            200..=299 if self.body_bytes.is_none_or(|bytes| bytes == response.body_bytes) => None,
            200..=299 => Some("wrong length".into()),
            status => Some(format!("status {status}")),
        }
    }
}

/// What a connection does first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening<'a> {
    /// `None`: it is idle from the start.
    pub request: Option<&'a [u8]>,
    /// Leave the answer in the kernel's receive queue.
    pub unread: bool,
    /// Pages of tcp_mem that the answer is planned to hold.
    pub pages: u64,
}

/// The requests of a run. They are the same for all connections but for the pages to pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    plain: Option<Vec<u8>>,
    unread: bool,
    /// The plan, and a request for each of its steps.
    pin: Option<(PinPlan, Vec<Vec<u8>>)>,
    check: Check,
}

impl Workload {
    /// The first request, if there is one, is that of every connection, unless `pin` gives it
    /// something to leave unread.
    #[must_use]
    pub fn new(paths: &Requests, unread: bool, pin: Option<PinPlan>, host: &SocketAddr) -> Self {
        let pin = pin.map(|plan| {
            let path = |body_bytes| format!("/bytes/{body_bytes}");
            let requests =
                plan.steps.iter().map(|step| request(&path(step.body_bytes), host)).collect();
            (plan, requests)
        });
        let plain = paths.first.as_ref().map(|path| request(path, host));
        Self { plain, unread, pin, check: Check::new(&paths.check, host) }
    }

    #[must_use]
    pub fn pin(&self) -> Option<&PinPlan> {
        self.pin.as_ref().map(|(plan, _)| plan)
    }

    /// What connection `index` of this part does first. Pages are spread by the index, so that any
    /// run of connections has its share.
    #[must_use]
    pub fn opening(&self, index: u64) -> Opening<'_> {
        let plain = Opening { request: self.plain.as_deref(), unread: self.unread, pages: 0 };
        let Some((plan, requests)) = &self.pin else { return plain };
        let pages = plan.pages.of(plan.first + index);
        match plan.steps.iter().position(|step| step.pages == pages && pages > 0) {
            Some(step) => Opening { request: Some(&requests[step]), unread: true, pages },
            // Nothing to pin: an idle connection like any other.
            None => Opening { unread: false, ..plain },
        }
    }

    /// What samples and heartbeats ask.
    #[must_use]
    pub fn check(&self) -> &Check {
        &self.check
    }
}

/// Connections to sample, evenly over all of them, for one worker: the positions among its own
/// `held`, of which `before` are held by workers before it, and `all` by all workers together.
/// `wanted` must not be above `all`.
pub fn sample(wanted: u64, before: u64, held: u64, all: u64) -> impl Iterator<Item = u64> {
    // Number k of the sample is connection floor(k * all / wanted).
    let (wanted, all) = (u128::from(wanted), u128::from(all));
    let first_from = move |position: u64| match all {
        0 => 0,
        _ => (u128::from(position) * wanted).div_ceil(all),
    };
    (first_from(before)..first_from(before + held))
        .filter_map(move |k| u64::try_from(k * all / wanted.max(1)).ok()?.checked_sub(before))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pin::{Pages, Step};

    fn paths(first: Option<&str>, check: &str) -> Requests {
        Requests { first: first.map(Into::into), check: check.into() }
    }

    fn host() -> SocketAddr {
        "127.0.0.1:80".parse().unwrap()
    }

    #[test]
    fn less_than_a_page_leaves_idle_connections_between_pinning_ones() {
        let pages = Pages::new(1024).unwrap();
        let step = |pages, body_bytes, connections| Step {
            pages,
            body_bytes,
            response_bytes: body_bytes + 80,
            connections,
        };
        let plan = PinPlan {
            bytes_per_connection: 1024,
            pages,
            first: 0,
            overhead_bytes: 832,
            steps: vec![step(0, 0, 6), step(1, 1500, 2)],
            planned_pages: 2,
        };
        let workload = Workload::new(&paths(Some("/"), "/"), true, Some(plan), &host());
        let pinning: Vec<u64> = (0..8).filter(|i| workload.opening(*i).unread).collect();
        assert_eq!(pinning, [1, 5]);
        assert!(
            workload
                .opening(1)
                .request
                .unwrap()
                .starts_with(b"GET /bytes/1500 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n")
        );
        assert!(workload.opening(0).request.unwrap().starts_with(b"GET / HTTP/1.1\r\n"));
        assert_eq!((workload.opening(0).pages, workload.opening(1).pages), (0, 1));
    }

    #[test]
    fn an_idle_connection_asks_for_nothing_until_it_is_sampled() {
        let workload = Workload::new(&paths(None, "/a"), false, None, &host());
        assert_eq!(workload.opening(3), Opening { request: None, unread: false, pages: 0 });
        assert!(
            workload.check().request().starts_with(b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:80\r\n")
        );
    }

    #[test]
    fn a_host_field_has_no_scope() {
        let host = "[fe80::1%7]:80".parse().unwrap();
        let expected = "GET /a HTTP/1.1\r\nHost: [fe80::1]:80\r\n\r\n";
        assert_eq!(request("/a", &host), expected.as_bytes());
    }

    #[test]
    fn an_answer_has_a_status_of_success_and_the_length_that_the_path_says() {
        let fault = |path: &str, status, body_bytes| {
            Check::new(path, &host()).fault(Response { status, body_bytes })
        };
        let wrong_length = Some("wrong length".to_string());
        for (path, status, body_bytes, expected) in [
            ("/bytes/64", 200, 64, None),
            ("/bytes/64?a=b", 206, 64, None),
            ("/bytes/64", 200, 63, wrong_length.clone()),
            ("/bytes/0", 200, 1, wrong_length),
            ("/bytes/64", 404, 64, Some("status 404".into())),
            ("/", 200, 0, None),
            ("/", 204, 0, None),
            ("/", 301, 5, Some("status 301".into())),
            ("/bytes/+5", 200, 3, None),
            ("/bytes/5/a", 200, 3, None),
        ] {
            assert_eq!(fault(path, status, body_bytes), expected, "{path} {status} {body_bytes}");
        }
    }

    proptest! {
        #[test]
        fn workers_together_sample_evenly(held in prop::collection::vec(0u64..50, 1..9), wanted in 1u64..100) {
            let all: u64 = held.iter().sum();
            let wanted = wanted.min(all);
            let mut before = 0;
            let mut chosen = Vec::new();
            for own in &held {
                for position in sample(wanted, before, *own, all) {
                    prop_assert!(position < *own);
                    chosen.push(before + position);
                }
                before += own;
            }
            let expected: Vec<u64> = (0..wanted).map(|k| k * all / wanted).collect();
            prop_assert_eq!(chosen, expected);
        }
    }
}
