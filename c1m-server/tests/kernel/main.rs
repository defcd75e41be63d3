//! Real eBPF on the running kernel, with real sockets: what `--trace` reports, compared with what the kernel itself says.
//!
//! Needs root, and a kernel that takes the probes. Where they are refused the tests are counted as ignored, with the reason: see
//! [`offer`]. The same program runs in guests, with `C1M_SERVER` for the server's place there.

mod calls;
mod container;
mod count;
mod ends;
mod environment;
mod held;
mod hooks;
mod host;
mod inherit;
mod memory;
mod nested;
mod nginx;
mod offer;
mod orphans;
mod privilege;
mod queues;
mod refused;
mod server;
mod tables;
mod watch;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use offer::{
    Offer::{DropReasons, Functions, Ipv6, Kprobes, Tracing},
    test,
};
use server::by_kprobes;

fn main() -> ExitCode {
    watch::run_role();
    let mut arguments = Arguments::from_args();
    // One host: one tcp_mem, and counters that see everybody.
    arguments.test_threads = Some(1);
    c1m_sys::process::raise_nofile().expect("the limit of open files can be raised");
    let tests = vec![
        test(
            "crossings_and_refusals_are_the_kernels_own",
            &[Tracing, DropReasons],
            memory::crossings_and_refusals,
        ),
        test(
            "aborted_orphans_are_the_kernels_own",
            &[Tracing, Functions],
            orphans::aborted_orphans,
        ),
        test(
            "orphans_given_up_for_memory_are_the_kernels_own",
            &[Tracing, Functions],
            orphans::out_of_memory,
        ),
        test("a_dry_run_says_how_and_binds_nothing", &[Tracing], hooks::dry_run),
        test("a_hook_can_be_left_out", &[Tracing], hooks::left_out),
        test(
            "functions_are_hooked_where_the_kernel_lets_them",
            &[Tracing, Functions],
            hooks::functions,
        ),
        test("crossings_and_refusals_by_kprobes", &[Tracing, DropReasons, Kprobes], || {
            by_kprobes(memory::crossings_and_refusals)
        }),
        test("aborted_orphans_by_kprobes", &[Tracing, Kprobes], || {
            by_kprobes(orphans::aborted_orphans)
        }),
        test("every_function_by_kprobes", &[Tracing, Kprobes], || by_kprobes(hooks::functions)),
        test("overflows_of_an_accept_queue_by_kprobes", &[Tracing, Kprobes], || {
            by_kprobes(queues::accept_queue)
        }),
        test("searches_without_a_port_by_kprobes", &[Tracing, Kprobes], || {
            by_kprobes(calls::ports)
        }),
        test(
            "overflows_of_an_accept_queue_are_the_kernels_own",
            &[Tracing, Functions],
            queues::accept_queue,
        ),
        test("searches_without_a_port_are_the_callers_errors", &[Tracing], calls::ports),
        test("failed_calls_are_the_callers_errors", &[Tracing], calls::failed_calls),
        test("without_privilege_nothing_is_touched", &[], refused::without_privilege),
        test("a_wrong_object_is_told_before_the_port", &[Tracing], refused::wrong_objects),
        test("no_thread_keeps_a_capability", &[Tracing], privilege::no_thread_keeps_a_capability),
        test("connections_are_counted_however_they_end", &[Tracing], count::however_they_end),
        test("connections_are_counted_over_ipv6", &[Tracing, Ipv6], count::over_ipv6),
        test("a_client_on_the_watched_port_is_not_counted", &[Tracing], count::clients_on_the_port),
        test("two_servers_count_each_its_own", &[Tracing], count::two_servers),
        test("states_are_those_that_ss_shows", &[Tracing], held::states),
        test("tables_hold_what_the_iterator_tells", &[Tracing], tables::as_the_iterator),
        test("a_namespace_has_tables_of_its_own", &[Tracing], tables::own_tables),
        test("what_stands_still_is_counted_right", &[Tracing], tables::while_they_change),
        test("sockets_reset_and_not_closed_have_a_holder", &[Tracing], held::reset_and_not_closed),
        test("sockets_of_no_process_are_told", &[Tracing], held::of_no_process),
        test("a_shared_socket_is_counted_once", &[Tracing], held::shared),
        test("a_snapshot_tells_the_same_again", &[Tracing], held::again_and_again),
        test("tables_of_threads_are_looked_through", &[Tracing], held::tables_of_threads),
        test("other_network_namespaces_are_looked_into", &[Tracing], held::other_namespaces),
        test("without_privilege_sock_diag_tells_what_it_can", &[], held::without_privilege),
        test(
            "unknown_inside_a_privileged_container_is_not_zero",
            &[Tracing],
            container::privileged,
        ),
        test("a_rootless_container_is_told_what_it_lacks", &[], container::rootless),
        test("a_namespace_that_is_closed_is_told", &[Tracing], container::confined),
        test("a_watch_names_limit_instant_and_socket", &[Tracing], watch::limit_instant_and_socket),
        test("nginx_with_slow_readers_is_named", &[Tracing], nginx::slow_readers),
        test("a_watch_counts_what_was_there_before", &[Tracing], watch::what_was_there),
        test("a_watch_finds_the_ports_of_a_process", &[Tracing], watch::ports_of_a_process),
        test("a_watch_sees_tcp_mem_in_a_namespace", &[Tracing], watch::in_a_namespace),
        test("a_backlog_of_zero_is_counted_up_and_down", &[Tracing], watch::backlog_of_zero),
        test(
            "a_backlog_of_zero_is_counted_over_ipv6",
            &[Tracing, Ipv6],
            watch::backlog_of_zero_over_ipv6,
        ),
        test(
            "a_program_that_interrupts_itself_has_a_backup",
            &[Tracing, DropReasons],
            nested::refusals,
        ),
        test("connections_are_counted_again", &[Tracing], nested::recount),
        test("examples_come_again_and_for_each_place", &[Tracing], calls::examples),
        test("a_full_ring_buffer_takes_no_examples_away", &[Tracing], calls::full_ring),
        test("a_watched_command_has_an_exit_code", &[Tracing], watch::commands),
        test("a_watch_goes_on_while_its_file_cant_be_written", &[Tracing], watch::full_disk),
        test("processes_beyond_the_bound_are_said", &[Tracing], watch::many_children),
        test("a_watched_command_gets_signals", &[Tracing], watch::signals),
        test(
            "a_signal_while_attaching_ends_a_watch_in_order",
            &[Tracing],
            watch::signal_while_attaching,
        ),
        test("each_signal_ends_a_watch_in_order", &[Tracing], ends::by_each_signal),
        test("a_watch_whose_lines_nobody_reads_ends", &[Tracing], ends::unread_lines),
        test("a_watch_whose_json_nobody_reads_ends", &[Tracing], ends::unread_json),
        test("a_watch_takes_any_interval", &[Tracing], watch::any_interval),
        test(
            "a_watched_command_inherits_what_it_would_without_a_watch",
            &[Tracing],
            inherit::as_without_a_watch,
        ),
        test("threads_are_for_allowed_cpus_and_pages_for_all", &[Tracing], environment::fewer_cpus),
        test(
            "from_a_cgroup_namespace_no_cgroup_is_taken_for_anothers",
            &[Tracing],
            environment::cgroup_namespace,
        ),
        test("the_softer_limits_of_a_cgroup_stop_a_plan", &[], environment::softer_limits),
        test(
            "a_network_namespace_that_a_mount_keeps_is_found",
            &[Tracing],
            environment::kept_by_a_mount,
        ),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}
