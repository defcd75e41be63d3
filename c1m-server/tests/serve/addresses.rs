//! What `--listen` and `--metrics-addr` take for an address: link-local ones with a scope, localhost, and what is refused.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    process::Command,
};

use c1m_sys::interface::number_of;
use c1m_text::address::parse;

use c1m_testkit::{
    namespace::{LINK, is_own_network},
    scrape::scrape,
};

use crate::support::*;

/// With these addresses for both options.
fn start(listen: &str, metrics: &str) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_c1m-server"));
    command.args(["--listen", listen, "--metrics-addr", metrics, "--workers", "2", "--quiet"]);
    Program::spawn(command)
}

/// As `peer` sees it, which is at the other end of the link.
fn seen_from(peer: &str, address: SocketAddr) -> SocketAddr {
    parse(&format!("[{}%{peer}]:{}", address.ip(), address.port())).unwrap()
}

#[test]
fn it_listens_on_a_link_local_address_by_the_name_and_by_the_number_of_the_interface() {
    const NAME: &str = "addresses::it_listens_on_a_link_local_address_by_the_name_and_by_the_number_of_the_interface";
    if !is_own_network(NAME, LINK) {
        return;
    }
    let number = number_of("c1m-far").unwrap().unwrap();
    for scope in ["c1m-far", &number.to_string()] {
        let address = format!("[fe80::1%{scope}]:0");
        let program = start(&address, &address);
        let shown = program.listening.address.clone();
        assert!(shown.starts_with(&format!("[fe80::1%{number}]:")), "{shown}");
        assert_eq!(parse(&shown), Ok(program.address));
        ask(&mut connect(program.address));
        ask(&mut connect(seen_from("c1m-near", program.address)));

        let url = program.listening.metrics.clone().unwrap();
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        assert!(host.starts_with(&format!("[fe80::1%25{number}]:")), "{url}");
        let host: SocketAddr = host.replace("%25", "%").parse().unwrap();
        let mut stream = connect(seen_from("c1m-near", host));
        write!(stream, "GET /{path} HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert_eq!(program.finish().accepted, 2);
    }
}

#[test]
fn an_address_of_another_interface_is_refused_by_the_kernel_and_told_as_that() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_c1m-server"));
    let output = command.args(["--listen", "[fe80::c1:c1%lo]:0", "--quiet"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("EADDRNOTAVAIL (this interface does not have the address"), "{stderr}");
}

#[test]
fn localhost_is_the_loopback_address_of_ipv4() {
    let program = start("localhost:0", "LOCALHOST:0");
    assert_eq!(program.address.ip().to_string(), "127.0.0.1");
    ask(&mut connect(program.address));
    assert!(!scrape(&program.listening.metrics.clone().unwrap()).is_empty());
    assert_eq!(program.finish().accepted, 1);
}

#[test]
fn what_is_no_address_is_wrong_usage_with_one_error() {
    for (arguments, says) in [
        (&["--listen", "[fe80::1]:0"][..], "such as [fe80::1%eth0]:8000"),
        (&["--listen", "[fe80::1%no-such0]:0"], "no interface `no-such0`"),
        (&["--listen", "[::1%lo]:0"], "leave %lo out"),
        (&["--listen", "example.org:80"], "`getent hosts example.org`"),
        (&["--listen", "127.0.0.1"], "the port is missing"),
        (&["--listen", "8000"], "the address in front of the port is missing"),
        (&["--listen", "127.0.0.1:65536"], "`65536` is not a port: use a number from 0"),
        (&["--listen", "::1:80"], "[ADDR]:PORT, such as [::1]:8000"),
        (&["--metrics-addr", "[fe80::1]:0"], "such as [fe80::1%eth0]:8000"),
        (&["--metrics-addr", "example.org:80"], "names are not looked up"),
        (&["watch", "--metrics-addr", "[fe80::1]:0"], "such as [fe80::1%eth0]:8000"),
        (&["watch", "--metrics-addr", "example.org:80"], "names are not looked up"),
        (&["doctor", "--connections", "1", "--sources", "example.org"], "names are not looked up"),
    ] {
        let binary = env!("CARGO_BIN_EXE_c1m-server");
        let output = Command::new(binary).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
        assert_eq!(stderr.matches("error:").count(), 1, "{arguments:?}: {stderr}");
    }
}
