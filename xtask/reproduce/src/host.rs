//! The kernel's files that anybody may read, below `--proc-dir`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use c1m_host::{
    cgroup::{self, Cgroup},
    cpus, files,
    meminfo::{self, Meminfo},
    netstat::{self, TcpExt},
    sockstat,
};
use c1m_record::{FileNr, Sockstat};

use super::End;

/// The files of the kernel that anybody may read.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    proc: PathBuf,
}

impl Host {
    /// `proc` is where the kernel shows its files.
    pub(crate) fn at(proc: &Path) -> Self {
        Self { proc: proc.into() }
    }

    /// The TCP lines of net/sockstat and net/sockstat6.
    pub(crate) fn sockstat(&self) -> Result<Sockstat, End> {
        let v4 = self.read("net/sockstat")?;
        // Without IPv6 there is no such file, and nothing to count.
        let v6 = self.read("net/sockstat6").unwrap_or_default();
        sockstat::parse(&v4, &v6).ok_or_else(|| self.not_understood("net/sockstat"))
    }

    /// Open files of the host.
    pub(crate) fn file_nr(&self) -> Result<FileNr, End> {
        files::parse_file_nr(&self.read("sys/fs/file-nr")?)
            .ok_or_else(|| self.not_understood("sys/fs/file-nr"))
    }

    /// The limits of this process's own memory cgroups; none where there are none.
    pub(crate) fn cgroup(&self) -> Cgroup {
        cgroup::own_at(&self.proc).unwrap_or_default()
    }

    pub(crate) fn memory(&self) -> Result<Meminfo, End> {
        meminfo::parse(&self.read("meminfo")?).map_err(|error| End::Refused(error.to_string()))
    }

    /// Counters of this network namespace.
    pub(crate) fn tcp_ext(&self) -> Result<TcpExt, End> {
        netstat::parse(&self.read("net/netstat")?).map_err(|error| End::Refused(error.to_string()))
    }

    /// CPUs of the host: each has its part of the kernel's counters, whether this process may run there or not.
    pub(crate) fn cpus(&self) -> Result<u64, End> {
        cpus::count(&self.read("stat")?).ok_or_else(|| self.not_understood("stat"))
    }

    fn read(&self, file: &str) -> Result<String, End> {
        let path = self.proc.join(file);
        fs::read_to_string(&path)
            .map_err(|error| End::Refused(format!("cannot read {}: {error}", path.display())))
    }

    fn not_understood(&self, file: &str) -> End {
        End::Refused(format!("{} is not understood on this kernel", self.proc.join(file).display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_is_understood() {
        let host = Host::at(Path::new("/proc"));
        assert!(host.sockstat().unwrap().sockets_used > 0);
        let files = host.file_nr().unwrap();
        assert!(files.allocated > 0 && files.max >= files.allocated);
        assert!(host.cpus().unwrap() > 0);
        assert!(host.memory().unwrap().total_bytes > 0);
        assert!(!host.tcp_ext().unwrap().is_empty());
    }
}
