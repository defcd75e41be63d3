//! What is exported, and what is made of it: alert rules and dashboard against the tables, and against the real Prometheus and promtool.
//!
//! `C1M_PROMETHEUS` says where Prometheus is, if it is not installed; promtool is beside it. Without them, or without a privilege where one is
//! needed, tests are counted as ignored, with the reason.

mod files;
mod live;
mod program;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One host: one tcp_mem.
    arguments.test_threads = Some(1);
    c1m_sys::process::raise_nofile().expect("the limit of open files can be raised");
    let tests = vec![
        Trial::test("rules_and_dashboard_name_what_is_exported", files::names),
        Trial::ignorable_test("the_rules_load_without_a_complaint", files::rules_load),
        Trial::ignorable_test("each_rule_fires_and_does_not", files::rules_fire),
        Trial::ignorable_test("the_dashboard_asks_what_can_be_asked", files::dashboard_asks),
        Trial::ignorable_test("unanswered_ones_make_no_quantile_shorter", files::quantiles),
        Trial::ignorable_test("pages_of_server_and_client_are_clean", program::server_and_client),
        Trial::ignorable_test("a_scaled_run_fires_the_right_alerts", live::scaled_run),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}
