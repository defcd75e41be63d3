//! Real eBPF on the running kernel, with real sockets: what `--trace` reports, held against what the kernel itself says.
//!
//! Needs root, and a kernel that takes the probes. Where they are refused the tests are counted as ignored, with the reason.

mod calls;
mod count;
mod hooks;
mod host;
mod memory;
mod orphans;
mod privilege;
mod queues;
mod refused;
#[path = "../schema/mod.rs"]
mod schema;
mod server;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};
use server::Skip;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One host: one tcp_mem, and counters that see everybody.
    arguments.test_threads = Some(1);
    c1m_server::sys::process::raise_nofile().expect("the limit of open files can be raised");
    let tests = vec![
        test("crossings_and_refusals_are_the_kernels_own", memory::crossings_and_refusals),
        test("aborted_orphans_are_the_kernels_own", orphans::aborted_orphans),
        test("orphans_given_up_for_memory_are_the_kernels_own", orphans::out_of_memory),
        test("a_dry_run_says_how_and_binds_nothing", hooks::dry_run),
        test("functions_are_hooked_where_the_kernel_lets_them", hooks::functions),
        test("overflows_of_an_accept_queue_are_the_kernels_own", queues::accept_queue),
        test("searches_without_a_port_are_the_callers_errors", calls::ports),
        test("failed_calls_are_the_callers_errors", calls::failed_calls),
        test("without_privilege_nothing_is_touched", refused::without_privilege),
        test("a_wrong_object_is_told_before_the_port", refused::wrong_objects),
        test("no_thread_keeps_a_capability", privilege::no_thread_keeps_a_capability),
        test("connections_are_counted_however_they_end", count::however_they_end),
        test("connections_are_counted_over_ipv6", count::over_ipv6),
        test("a_client_on_the_watched_port_is_not_counted", count::clients_on_the_port),
        test("two_servers_count_each_its_own", count::two_servers),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn test(name: &str, run: fn() -> Result<(), Skip>) -> Trial {
    Trial::ignorable_test(name, move || match run() {
        Ok(()) => Ok(Completion::Completed),
        Err(Skip(reason)) => Ok(Completion::ignored_with(reason)),
    })
}
