//! What developers of c1m run.

mod btf_fixture;

#[derive(clap::Parser)]
enum Command {
    /// Cut a small BTF fixture for tests out of a kernel's BTF
    BtfFixture(btf_fixture::Args),
}

fn main() -> anyhow::Result<()> {
    match <Command as clap::Parser>::parse() {
        Command::BtfFixture(args) => btf_fixture::run(&args),
    }
}
