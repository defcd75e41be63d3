//! What an act compares: one reading of everything that it changes.

use c1m_host::{
    meminfo::Meminfo,
    netstat::TcpExt,
    slabinfo::{self, Slabinfo},
};
use c1m_record::{FileNr, Sockstat};

use super::{
    End,
    host::Host,
    preflight::page_bytes,
    protocol::{Reply, Request},
    stage::Stage,
};

/// One reading of everything that an act changes.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(crate) sockstat: Sockstat,
    pub(crate) file_nr: FileNr,
    pub(crate) memory: Meminfo,
    /// `None` where the kernel does not show it.
    pub(crate) slab: Option<Slabinfo>,
    pub(crate) tcp_ext: TcpExt,
}

fn slab(text: &str) -> Result<Slabinfo, End> {
    let page = page_bytes()?;
    slabinfo::parse(text, page).map_err(|error| End::Refused(error.to_string()))
}

impl Snapshot {
    pub(crate) fn take(stage: &mut Stage, host: &Host) -> Result<Self, End> {
        // Only root may read it, and some kernels do not have it.
        let slab = match stage.request(&Request::Slabinfo) {
            Ok(Reply::Text { text }) => Some(slab(&text)?),
            Ok(_) | Err(End::Failed(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            sockstat: host.sockstat()?,
            file_nr: host.file_nr()?,
            memory: host.memory()?,
            slab,
            tcp_ext: host.tcp_ext()?,
        })
    }
}
