//! The records and the table of programs that both sides share.

use std::collections::{BTreeMap, BTreeSet};

use c1m_ebpf::{
    ABSENT, Attachment, Counters, Event, HOOKS, Layout, PROGRAMS, Shared, SocketRecord,
    TRACEPOINTS, has_backup, is_of_tracepoint, kprobe, purpose,
};

#[test]
fn a_record_is_the_same_after_its_words() {
    let words: [u64; Event::WORDS] = std::array::from_fn(|word| word as u64 * 0x0102_0304_0506);
    let event = Event::from_words(words);
    assert_eq!(event.words(), words);
    assert_eq!(event.ktime_ns, words[1], "the second word");
    let socket = SocketRecord { cgroup: words[Event::WORDS - 1], ..event.socket };
    assert_eq!(socket, event.socket, "the last word");
    assert!(Layout::ABSENT.words().iter().all(|offset| *offset == ABSENT));
    // Slots of CPUs share no cache line.
    assert_eq!((size_of::<Counters>() % 64, size_of::<Shared>() % 64), (0, 0));
}

#[test]
fn each_program_has_a_name_of_its_own() {
    let names = PROGRAMS
        .iter()
        .flat_map(|program| [Some(program.name), program.entry_program, program.backup])
        .flatten();
    let mut seen = BTreeSet::new();
    for name in names {
        assert!(seen.insert(name), "{name} twice");
    }
}

/// Hooks that are not reached while their own program runs on that CPU, and why (5.10 to 6.18). A program that is neither here nor has a backup
/// program loses what comes while it is interrupted.
const NEVER_INSIDE_ITSELF: [(&str, &str); 15] = [
    ("mark_victim", "under oom_lock or the lock of the task"),
    ("sys_exit", "at the end of a system call, with preemption off"),
    ("tcp_check_oom_exit", "with softirqs off"),
    ("tcp_out_of_resources_exit", "with softirqs off"),
    ("tcp_conn_request_entry", "in softirqs alone: a listener's"),
    ("tcp_conn_request_exit", "in softirqs alone: a listener's"),
    ("tcp_syn_flood_action_entry", "in softirqs alone: a listener's"),
    ("tcp_v4_syn_recv_sock_entry", "in softirqs alone: a listener's"),
    ("tcp_v4_syn_recv_sock_exit", "in softirqs alone: a listener's"),
    ("tcp_v6_syn_recv_sock_entry", "in softirqs alone: a listener's"),
    ("tcp_v6_syn_recv_sock_exit", "in softirqs alone: a listener's"),
    ("inet_hash_connect_exit", "in system calls alone"),
    ("inet6_hash_connect_exit", "in system calls alone"),
    ("oom_kill_process_entry", "under oom_lock"),
    ("oom_kill_process_exit", "under oom_lock"),
];

#[test]
fn each_program_has_a_backup_or_a_reason_for_none() {
    let reasons: BTreeMap<&str, &str> = NEVER_INSIDE_ITSELF.into();
    assert_eq!(reasons.len(), NEVER_INSIDE_ITSELF.len(), "one stands there twice");
    let mut without = BTreeSet::new();
    for program in PROGRAMS {
        let hook = match program.attachment {
            Attachment::Tracepoint => program.target.to_owned(),
            Attachment::Entry => format!("{}_entry", program.target),
            Attachment::Exit => format!("{}_exit", program.target),
            // The kernel runs no kprobe inside of another one (kernel/trace/bpf_trace.c, trace_call_bpf): a second program would be left out too.
            Attachment::Kprobe | Attachment::Kretprobe => {
                assert_eq!(program.backup, None, "{program:?}");
                continue;
            }
        };
        match program.backup {
            Some(backup) => assert_eq!(backup, format!("{}_backup", program.name)),
            None => {
                assert!(
                    reasons.contains_key(hook.as_str()),
                    "{hook} has no backup program, and no reason for that in NEVER_INSIDE_ITSELF"
                );
                without.insert(hook);
            }
        }
    }
    let stale: Vec<_> = reasons.keys().filter(|hook| !without.contains(**hook)).collect();
    assert!(stale.is_empty(), "these have a backup program, or are no hooks: {stale:?}");
}

#[test]
fn a_program_by_kprobe_is_for_the_same_function_and_has_no_backup() {
    for hook in 0..HOOKS as u32 {
        assert_eq!(purpose(hook), hook);
        assert_eq!(is_of_tracepoint(hook), (hook as usize) < TRACEPOINTS);
        let program = PROGRAMS[hook as usize];
        if is_of_tracepoint(hook) {
            assert_eq!(program.attachment, Attachment::Tracepoint, "{program:?}");
            continue;
        }
        let other = PROGRAMS[kprobe(hook) as usize];
        assert_eq!((purpose(kprobe(hook)), other.target), (hook, program.target));
        assert!(!has_backup(kprobe(hook)), "{other:?}");
        let expected = match program.attachment {
            Attachment::Entry => Attachment::Kprobe,
            _ => Attachment::Kretprobe,
        };
        assert_eq!(other.attachment, expected, "{other:?}");
        // On return the arguments are gone: what reads them needs a program on the entry.
        let needs_entry = expected == Attachment::Kretprobe && other.object.is_some();
        assert_eq!(other.entry_program.is_some(), needs_entry, "{other:?}");
    }
}
