//! The Debian package, from the metadata in c1m-server/Cargo.toml.

use std::path::Path;

use anyhow::{Result, anyhow};
use cargo_deb::{
    BuildProfile, CargoDeb, CargoLockingFlags, OutputPath,
    compress::{CompressConfig, Format},
    config::{BuildOptions, DebugSymbolOptions},
    listener::Listener,
};

use crate::place;

/// The command that makes it in a process of its own, whose environment says the time that is in it.
pub(crate) const COMMAND: &str = "deb-of-stage";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of the target folder that has everything
    name: String,

    /// For a try: the faster compression
    #[arg(long)]
    fast: bool,
}

/// Prints where the package is.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = place::root();
    let (manifest, folder) = (root.join("c1m-server/Cargo.toml"), place::target().join(&args.name));
    let package = CargoDeb {
        no_build: true,
        verbose: false,
        verbose_cargo_build: false,
        install: (false, false),
        deb_output: Some(OutputPath { path: &folder, is_dir: true }),
        compress_config: CompressConfig {
            fast: args.fast,
            compress_type: Format::Xz,
            compress_system: true,
            rsyncable: false,
        },
        options: BuildOptions {
            manifest_path: Some(Path::new(&manifest)),
            // Debug symbols are apart already.
            debug: DebugSymbolOptions {
                strip_override: Some(false),
                ..DebugSymbolOptions::default()
            },
            build_profile: BuildProfile {
                profile_name: Some(args.name.clone()),
                ..BuildProfile::default()
            },
            cargo_locking_flags: CargoLockingFlags { locked: true, ..CargoLockingFlags::default() },
            ..BuildOptions::default()
        },
    };
    package.process(&Warnings).map_err(|error| anyhow!("cannot make the Debian package: {error}"))
}

/// Only what somebody has to look at.
struct Warnings;

impl Listener for Warnings {
    fn warning(&self, text: String) {
        // That a program depends on nothing is what a static one is for.
        if text.contains("No $auto deps") {
            return;
        }
        eprintln!("warning: {text}");
    }

    fn info(&self, _: String) {}
}
