//! Arguments reach no terminal and no log raw.

use c1m_testkit::usage;

/// Each command of xtask by its name: their options are all parsed by the same call.
#[test]
fn no_error_of_the_command_line_has_a_raw_argument() {
    let reproduce = ["connections", "tcp-mem", "stall", "report", "without-hook"];
    let options = reproduce.map(|name| clap::Arg::new(name).long(name));
    let command = clap::Command::new("xtask")
        .subcommand(clap::Command::new("reproduce").args(options))
        .subcommands(["bench", "dist", "faults", "guest", "schema"].map(clap::Command::new));
    assert!(usage::refused(env!("CARGO_BIN_EXE_xtask"), &command) > 40);
}
