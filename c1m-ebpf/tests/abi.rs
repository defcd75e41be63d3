//! The records and the table of programs that both sides share.

use std::collections::BTreeSet;

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
