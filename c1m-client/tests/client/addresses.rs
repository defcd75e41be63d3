//! What `--connect`, `--source` and `--metrics-addr` take for an address: link-local ones with a scope, localhost, and what is refused.

use std::sync::atomic::Ordering::Relaxed;

use c1m_preflight::plan::{Wish, plan};
use c1m_server::serve::{Config, Running, Server as RealServer};
use c1m_sys::interface::number_of;
use c1m_testkit::namespace::{LINK, is_own_network};
use c1m_text::address::parse;

use super::{
    ANY_PORT,
    common::{Manner, Server, client::Client},
};

/// c1m-server's own, which takes no Host with a scope in it.
fn real_server(listen: &str) -> Running {
    let wish = Wish {
        workers: Some(1),
        max_connections: None,
        backlog: 1024,
        somaxconn: None,
        nofile: 1000,
        cores: 1,
    };
    let config = Config {
        listen: parse(listen).unwrap(),
        plan: plan(&wish).unwrap(),
        max_connections: None,
        keepalive: None,
        header_timeout: std::time::Duration::from_secs(60),
    };
    RealServer::bind(config).unwrap().start().unwrap()
}

#[test]
fn a_link_local_server_is_reached_by_the_name_and_by_the_number_of_an_interface() {
    const NAME: &str =
        "addresses::a_link_local_server_is_reached_by_the_name_and_by_the_number_of_an_interface";
    if !is_own_network(NAME, LINK) {
        return;
    }
    let server = real_server("[fe80::1%c1m-far]:0");
    let port = server.address().port();
    let number = number_of("c1m-near").unwrap().unwrap();
    for scope in ["c1m-near", &number.to_string()] {
        for more in ["--sample 20", "--sample 20 --source fe80::2", "--pin 6K --source fe80::2"] {
            let mut client = Client::start(&format!(
                "--connect [fe80::1%{scope}]:{port} --metrics-addr [fe80::2%{scope}]:0 --connections 20 --hold 0s {more}"
            ));
            let plan = client.plan();
            // Not from fd00::2, to which this server may have no route.
            assert_eq!((plan.target, plan.sources), (format!("[fe80::1%{number}]:{port}"), 1));
            let url = plan.metrics.unwrap();
            assert!(url.starts_with(&format!("http://[fe80::2%25{number}]:")), "{url}");
            let ramped = client.ramped();
            assert_eq!((ramped.established, ramped.failed), (20, 0), "{more}");
            if more.starts_with("--sample") {
                assert_eq!((ramped.answered, client.sample().answered), (20, 20), "{more}");
            }
            assert!(client.summary().errors.is_empty(), "{more}");
            assert_eq!(client.end().0, Some(0));
        }
    }
    // What listens can be typed as it is shown, on the host that it is on.
    let own = server.address();
    let mut client =
        Client::start(&format!("--connect {own} --connections 5 --sample 5 --hold 0s"));
    assert_eq!(client.plan().target, own.to_string());
    assert_eq!((client.ramped().answered, client.sample().answered), (5, 5));
}

#[test]
fn localhost_is_the_loopback_address_of_ipv4() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let port = server.address.port();
    let mut client = Client::start(&format!(
        "--connect localhost:{port} --metrics-addr localhost:0 --connections 5 --hold 0s"
    ));
    let plan = client.plan();
    assert_eq!(plan.target, server.address.to_string());
    assert!(plan.metrics.unwrap().starts_with("http://127.0.0.1:"));
    assert_eq!(client.ramped().answered, 5);
    assert_eq!(server.requests.load(Relaxed), 5);
    client.summary();
    assert_eq!(client.end().0, Some(0));
}

#[test]
fn what_is_no_address_is_wrong_usage_with_one_error() {
    let connect = |address: &str| format!("--connect {address}");
    let scoped = "--connect 127.0.0.1:9 --source fe80::1%lo".to_owned();
    for (flags, says) in [
        (connect("[fe80::1]:80"), "such as [fe80::1%eth0]:8000"),
        (connect("[fe80::1%no-such0]:80"), "no interface `no-such0`"),
        (connect("[fe80::1%lo]:0"), "`0` is not a port: use a number from 1"),
        (connect("example.org:80"), "names are not looked up"),
        (connect("127.0.0.1"), "the port is missing"),
        (connect("127.0.0.1:65536"), "`65536` is not a port"),
        (connect("::1:80"), "[ADDR]:PORT, such as [::1]:8000"),
        (connect("127.0.0.1:9 --metrics-addr [fe80::1]:0"), "such as [fe80::1%eth0]:8000"),
        (connect("127.0.0.1:9 --metrics-addr example.org:0"), "names are not looked up"),
        (connect("127.0.0.1:9 --source example.org"), "names are not looked up"),
        (scoped, "leave %lo out"),
        (connect("[::1]:9 --source fe80::1"), "fe80::1 is link-local"),
    ] {
        let (code, stderr) = Client::start(&format!("{flags} --connections 1")).end();
        assert_eq!(code, Some(2), "{flags}: {stderr}");
        assert!(stderr.contains(says), "{flags}: {stderr}");
    }
}
