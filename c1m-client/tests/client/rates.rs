//! `--rate`: what is reached of it, and from when latencies count.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    ANY_PORT,
    common::{Manner, Server, client::Client},
    eventually,
};

#[test]
fn a_rate_is_not_exceeded() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let mut client = Client::start(&format!(
        "--connect {} --connections 300 --rate 400 --hold 0s --require 'rate<=400' --require 'rate<=100%'",
        server.address
    ));
    client.plan();
    let ramped = client.ramped();
    // The last one is planned after 299/400 s, and none is opened before its time.
    assert!(ramped.ramp_s >= 0.7475, "{}", ramped.ramp_s);
    assert!(ramped.rate_per_s.unwrap() <= 400.0, "{ramped:?}");
    assert_eq!(ramped.established, 300);
    assert_eq!(client.summary().rate_per_s, ramped.rate_per_s);
    assert_eq!(client.end().0, Some(0));
}

#[test]
fn a_rate_that_is_not_reached_is_told_and_can_be_required() {
    let server = Server::start(ANY_PORT, Manner::Good);
    // A microsecond for each, one after the other.
    let mut client = Client::start(&format!(
        "--connect {} --connections 1000 --rate 1m --in-flight 1 --workers 1 --hold 0s --quiet --require 'rate>=95%' --require 'rate>=1'",
        server.address
    ));
    client.plan();
    let reached = client.ramped().rate_per_s.unwrap();
    let summary = client.summary();
    let held: Vec<bool> = summary.requirements.iter().map(|it| it.held).collect();
    assert_eq!(held, [false, true], "{summary:?}");
    let (code, stderr) = client.end();
    let said = format!("of 1000000 connections per second was not reached: {reached:.0} were");
    assert!(code == Some(1) && stderr.contains(&said), "{stderr}");
}

#[test]
fn a_pause_of_the_server_shows_in_the_latencies_of_all_that_it_kept_waiting() {
    let server = Server::start(ANY_PORT, Manner::Good);
    // Four seconds, of which the server sleeps one. Eight connections are in flight then, and wait for it. Those that are planned meanwhile,
    // and those that are late behind them, are not even opened: a half of all, if the client may catch up at twice the rate.
    let mut client = Client::start(&format!(
        "--connect {} --connections 2000 --rate 500 --in-flight 8 --workers 1 --hold 0s --require 'connect_p90>=300ms' --require 'first_byte_p90>=300ms'",
        server.address
    ));
    client.plan();
    eventually("a quarter of the connections", || server.held.load(Relaxed) >= 500);
    server.sleep(Duration::from_secs(1));
    client.ramped();
    let summary = client.summary();
    assert!(summary.requirements.iter().all(|it| it.held), "{:?}", summary.requirements);
    assert_eq!((summary.connected, summary.answered), (2000, 2000));
    assert_eq!(client.end().0, Some(0));
}
