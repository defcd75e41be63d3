//! Completions of the shells, from the definitions of the command line.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context as _, Result};
use clap_complete::{Generator as _, Shell};

use super::man::commands;

/// Each shell, where its completions of packages stand below a `share` folder, and what is behind the program's name there.
const SHELLS: [(Shell, &str, &str, &str); 3] = [
    (Shell::Bash, "bash-completion/completions", "", ""),
    (Shell::Zsh, "zsh/vendor-completions", "_", ""),
    (Shell::Fish, "fish/vendor_completions.d", "", ".fish"),
];

/// One file a program and shell.
pub(super) fn write(share: &Path) -> Result<()> {
    for (shell, folder, before, behind) in SHELLS {
        let folder = share.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for mut command in commands() {
            let name = command.get_name().to_owned();
            command.set_bin_name(&name);
            command.build();
            let file = folder.join(format!("{before}{name}{behind}"));
            let mut file =
                File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
            shell.try_generate(&command, &mut file)?;
        }
    }
    Ok(())
}
