//! The records of `cargo xtask reproduce`, as far as the page has them.

use c1m_record::{Level, Refused, Resolution, Sockstat};
use serde::Deserialize;

/// One act. docs/schema/reproduce.json has all of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Act {
    /// Where it stands in its line: at the root, or below `acts` of the whole run.
    #[serde(skip)]
    pub(super) place: String,
    pub(super) name: String,
    pub(super) tcp_mem: [u64; 3],
    #[serde(default)]
    pub(super) page_bytes: Option<u64>,
    pub(super) held: u64,
    pub(super) answered: u64,
    pub(super) sampled: u64,
    pub(super) ramp_s: f64,
    pub(super) crossings: Vec<ActCrossing>,
    pub(super) held_pages: u64,
    pub(super) refused: Option<Refused>,
    pub(super) slab: Option<Vec<SlabShare>>,
    pub(super) memory_bytes_per_connection: f64,
    pub(super) server_user_bytes_per_connection: Option<f64>,
    pub(super) sockstat: Sockstat,
    pub(super) dropped: Option<u64>,
}

/// The first crossing of one level, upwards.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct ActCrossing {
    pub(super) level: Level,
    pub(super) connections: Option<u64>,
    pub(super) expected: Option<u64>,
    pub(super) error_percent: Option<f64>,
    pub(super) pages: Option<u64>,
    pub(super) limit_pages: u64,
    pub(super) hook: Option<String>,
    #[serde(alias = "precision")]
    pub(super) resolution: Option<Resolution>,
}

/// What one slab cache holds for a connection.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct SlabShare {
    pub(super) cache: String,
    pub(super) objects_per_connection: f64,
    pub(super) bytes_per_connection: f64,
}

/// The whole run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Reproduction {
    pub(super) kernel: String,
    pub(super) cpus: u64,
    pub(super) memory_bytes: u64,
    pub(super) connections: u64,
    pub(super) acts: Vec<Act>,
    pub(super) restored: bool,
    pub(super) elapsed_s: f64,
    pub(super) missed: Vec<String>,
}

impl Act {
    /// For people.
    pub(super) fn title(&self) -> &str {
        match self.name.as_str() {
            "default" => "Act 1: the article's default tcp_mem, 7.53 KiB pinned a connection",
            "cure" => "Act 2: the article's cure, 7.53 KiB pinned a connection",
            "idle" => "Act 3: idle connections",
            other => other,
        }
    }
}
