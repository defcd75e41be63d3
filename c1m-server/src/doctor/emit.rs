//! Writes what a run needs as files for /etc, each value with its reason and its risk.

use std::{io::Write, path::Path};

use c1m_limits::{limits::of, preflight::Examination};
use c1m_preflight::Looked;
use c1m_program::EnvironmentRefused;
use c1m_record::PlannedLimit;
use c1m_text::escape;

use super::beside::Folder;

/// Below the folder that was named, as below /etc.
const SYSCTL: &str = "sysctl.d/90-c1m.conf";
const UNIT: &str = "systemd/system/c1m-server.service.d/90-c1m.conf";
const LIMITS: &str = "security/limits.d/90-c1m.conf";

/// Writes all three, and says where. Without `force`, a file that exists is left alone, and then none is written.
pub(super) fn write(
    folder: &Path,
    force: bool,
    looked: &Looked,
    told: &mut impl Write,
) -> Result<(), EnvironmentRefused> {
    let nofile = nofile(looked);
    let texts = [
        (SYSCTL, sysctl(&looked.examination, looked.run.connections)),
        (UNIT, unit(nofile, looked)),
        (LIMITS, limits(nofile, looked)),
    ];
    let refused = |error: super::beside::Error| EnvironmentRefused(error.to_string());
    let root = Folder::create(folder).map_err(refused)?;
    let names: Vec<&str> = texts.iter().map(|(name, _)| *name).collect();
    if !force {
        root.has_none_of(&names).map_err(refused)?;
    }
    for (name, text) in texts {
        root.write(name, &text, force).map_err(refused)?;
        // Nobody has to read it.
        let _ = writeln!(told, "wrote {}", escape::line(&folder.join(name).to_string_lossy()));
    }
    Ok(())
}

/// Never less than there is.
fn nofile(looked: &Looked) -> u64 {
    let needed = looked.host.tables.needed;
    needed.saturating_add(needed / 4).max(looked.host.readings.nofile.unwrap_or(0))
}

fn sysctl(examination: &Examination, connections: u64) -> String {
    let mut text =
        format!("# What {connections} connections need of this host, by `c1m-server doctor`.\n");
    let with_settings: Vec<&PlannedLimit> =
        examination.hit().filter(|limit| !limit.settings.is_empty()).collect();
    if with_settings.is_empty() {
        text += "# No kernel setting has to be changed.\n";
    }
    for limit in with_settings {
        let known = |value: Option<u64>| value.map_or("unknown".into(), |value| value.to_string());
        text += &format!(
            "\n# {}: {} {} now, {} needed{}.\n# Risk: {}.\n",
            limit.limit.name(),
            known(limit.now),
            limit.unit,
            known(limit.needed),
            limit.stops_at.map_or(String::new(), |at| format!("; met at connection {at}")),
            limit.risk
        );
        for setting in &limit.settings {
            text += &format!("{} = {}\n", setting.name, setting.value);
        }
    }
    for limit in examination.hit().filter(|limit| limit.settings.is_empty()) {
        let elsewhere =
            if of(limit.limit).is_resource_limit() { " See the other two files." } else { "" };
        text += &format!(
            "\n# {}: no kernel setting moves it. {}.{elsewhere}\n",
            limit.limit.name(),
            limit.fix.as_deref().unwrap_or_default()
        );
    }
    text
}

fn reason(looked: &Looked) -> String {
    format!(
        "# One descriptor table needs {} descriptors for its part of {} connections.\n\
         # Risk: it can't be raised above fs.nr_open ({}).\n",
        looked.host.tables.needed,
        looked.run.connections,
        looked.host.readings.nr_open.map_or("unknown".into(), |most| most.to_string())
    )
}

fn unit(nofile: u64, looked: &Looked) -> String {
    format!(
        "# A unit of systemd does not read limits.conf: this is what counts for it.\n{}[Service]\nLimitNOFILE={nofile}\n",
        reason(looked)
    )
}

fn limits(nofile: u64, looked: &Looked) -> String {
    format!(
        "# For what is started from a log-in; units of systemd do not read it.\n{}* hard nofile {nofile}\n* soft nofile {nofile}\n\
         root hard nofile {nofile}\nroot soft nofile {nofile}\n",
        reason(looked)
    )
}
