//! How many workers, and what each of them can hold. Pure.

use std::str::FromStr;

use c1m_text::units::parse_count_as;
use thiserror::Error;

/// Descriptors of a worker's table that are no connections: three standard ones, listener, waker, notices, epoll.
pub const OWN_DESCRIPTORS: u64 = 7;
/// Descriptors of the main thread's table that are no listeners: runtime, signals, tracing.
const MAIN_DESCRIPTORS: u64 = 64;
/// More threads than this help nobody.
pub const MAX_WORKERS: usize = 4096;
/// Below this limit of open files nothing sensible can be planned.
const MIN_NOFILE: u64 = MAIN_DESCRIPTORS + 16;

/// A number of workers, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    Auto,
    Count(usize),
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => match parse_count_as(text) {
                Ok(count @ 1..=4096) => Ok(Self::Count(count)),
                _ => Err("use auto, or a number from 1 to 4096".into()),
            },
        }
    }
}

/// What the user asked for, and what the host allows.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// `None`: as many as needed.
    pub workers: Option<usize>,
    pub max_connections: Option<u64>,
    pub backlog: u32,
    /// net.core.somaxconn, where it can be read.
    pub somaxconn: Option<u32>,
    /// Descriptors that one table can hold.
    pub nofile: u64,
    pub cores: usize,
}

/// How the server is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub workers: usize,
    /// Workers that get new connections at a time: one a core.
    pub window: usize,
    /// Connections that one descriptor table holds.
    pub table: u64,
    /// Free descriptors below which a worker gets no new connections while others have more: what is queued for it when
    /// that is decided must still fit.
    pub margin: u64,
    /// Length of each accept queue.
    pub backlog: u32,
}

impl Plan {
    /// Connections that all tables hold together.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.table.saturating_mul(self.workers as u64)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    #[error(
        "the limit of {nofile} open files is too small: raise the hard limit (ulimit -Hn) to {MIN_NOFILE} at least"
    )]
    NofileTooSmall { nofile: u64 },
    #[error(
        "{workers} workers hold at most {capacity} connections under the limit of {nofile} open files, not {wanted}: \
         use --workers {needed}, or auto"
    )]
    TooFewWorkers { workers: usize, capacity: u64, nofile: u64, wanted: u64, needed: u64 },
    #[error(
        "{wanted} connections need {needed} workers under the limit of {nofile} open files, and at most {most} are \
         possible: raise the hard limit (ulimit -Hn) to {needed_nofile}, or use --max-connections {possible}"
    )]
    TooManyConnections {
        wanted: u64,
        needed: u64,
        nofile: u64,
        most: u64,
        needed_nofile: u64,
        possible: u64,
    },
    #[error(
        "{workers} workers need {workers} listeners, and under the limit of {nofile} open files at most {most} are \
         possible: use --workers {most}, or raise the hard limit (ulimit -Hn)"
    )]
    TooManyWorkers { workers: usize, nofile: u64, most: u64 },
}

impl PlanError {
    /// Whether the command line asked for it, rather than the host refusing it.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::TooFewWorkers { .. } | Self::TooManyWorkers { .. })
    }
}

/// Connections of one table under a limit of `nofile`.
pub fn table(nofile: u64) -> u64 {
    // Descriptors are C ints.
    nofile.min(i32::MAX as u64).saturating_sub(OWN_DESCRIPTORS)
}

/// Workers that the main thread's table has room for: each has a listener there until it runs.
fn most_workers(nofile: u64) -> u64 {
    nofile.saturating_sub(MAIN_DESCRIPTORS).min(MAX_WORKERS as u64)
}

/// Lays the server out.
///
/// # Errors
/// The combination is impossible; the error says which number would do.
pub fn plan(wish: &Wish) -> Result<Plan, PlanError> {
    let nofile = wish.nofile;
    if nofile < MIN_NOFILE {
        return Err(PlanError::NofileTooSmall { nofile });
    }
    let table = table(nofile);
    let backlog = effective_backlog(wish, table);
    let margin = u64::from(backlog) + 1;
    let workers = match wish.workers {
        Some(workers) => explicit(wish, workers, table)?,
        None => automatic(wish, comfortable(wish, table))?,
    };
    Ok(Plan { workers, window: wish.cores.max(1), table, margin, backlog })
}

/// The most connections that a server holds, whatever number it is asked for. `wish.max_connections` plays no part.
#[must_use]
pub fn most(wish: &Wish) -> u64 {
    let nofile = wish.nofile;
    if nofile < MIN_NOFILE {
        return 0;
    }
    let (table, most) = (table(nofile), most_workers(nofile));
    match wish.workers {
        Some(workers) if workers as u64 > most => 0,
        Some(workers) => table.saturating_mul(workers as u64),
        None => comfortable(wish, table).saturating_mul(most),
    }
}

/// Connections of a table that never gets into its margin.
fn comfortable(wish: &Wish, table: u64) -> u64 {
    table - (u64::from(effective_backlog(wish, table)) + 1)
}

/// The kernel caps the queue at somaxconn, and a full queue must fit into the eighth of the table that is kept for it.
fn effective_backlog(wish: &Wish, table: u64) -> u32 {
    let room = u32::try_from(table / 8 - 1).unwrap_or(u32::MAX);
    wish.backlog.min(wish.somaxconn.unwrap_or(u32::MAX)).min(room).max(1)
}

fn explicit(wish: &Wish, workers: usize, table: u64) -> Result<usize, PlanError> {
    let (nofile, most) = (wish.nofile, most_workers(wish.nofile));
    if workers as u64 > most {
        return Err(PlanError::TooManyWorkers { workers, nofile, most });
    }
    let capacity = table.saturating_mul(workers as u64);
    match wish.max_connections {
        Some(wanted) if wanted > capacity => Err(PlanError::TooFewWorkers {
            workers,
            capacity,
            nofile,
            wanted,
            needed: wanted.div_ceil(table),
        }),
        _ => Ok(workers),
    }
}

/// With `comfortable` connections a worker none of them ever gets into its margin.
fn automatic(wish: &Wish, comfortable: u64) -> Result<usize, PlanError> {
    let (nofile, most) = (wish.nofile, most_workers(wish.nofile));
    let cores = (wish.cores.max(1) as u64).min(most);
    let wanted = wish.max_connections.unwrap_or(0);
    let needed = wanted.div_ceil(comfortable).max(cores);
    if needed > most {
        // A margin is at most an eighth of a table.
        let needed_nofile =
            (wanted.div_ceil(MAX_WORKERS as u64) * 8).div_ceil(7) + 2 * MAIN_DESCRIPTORS;
        return Err(PlanError::TooManyConnections {
            wanted,
            needed,
            nofile,
            most,
            needed_nofile: needed_nofile.max(MAX_WORKERS as u64 + MAIN_DESCRIPTORS),
            possible: most.saturating_mul(comfortable),
        });
    }
    // At most MAX_WORKERS by the check above.
    Ok(usize::try_from(needed).unwrap_or(MAX_WORKERS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WISH: Wish = Wish {
        workers: None,
        max_connections: None,
        backlog: 4096,
        somaxconn: Some(4096),
        nofile: 20_000,
        cores: 2,
    };

    #[test]
    fn one_worker_a_core_unless_more_are_needed() {
        assert_eq!(plan(&WISH).map(|p| p.workers), Ok(2));
        let million = Wish { max_connections: Some(1_024_000), ..WISH };
        let planned = plan(&million).unwrap();
        assert_eq!((planned.workers, planned.window, planned.table), (59, 2, 19_993));
        let roomy = Wish { nofile: 1 << 20, ..million };
        assert_eq!(plan(&roomy).map(|p| p.workers), Ok(2));
    }

    #[test]
    fn the_queue_fits_into_the_margin() {
        let planned = plan(&WISH).unwrap();
        assert_eq!((planned.backlog, planned.margin), (2498, 2499));
        let roomy = plan(&Wish { nofile: 1 << 20, ..WISH }).unwrap();
        assert_eq!((roomy.backlog, roomy.margin), (4096, 4097));
        let capped = plan(&Wish { somaxconn: Some(128), ..WISH }).unwrap();
        assert_eq!((capped.backlog, capped.margin), (128, 129));
        assert_eq!(plan(&Wish { backlog: 0, ..WISH }).unwrap().backlog, 1);
    }

    #[test]
    fn the_impossible_is_refused_with_what_would_do() {
        let few = Wish { workers: Some(2), max_connections: Some(40_000), ..WISH };
        let error = plan(&few).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("--workers 3"), "{error}");
        assert!(plan(&Wish { workers: Some(3), ..few }).is_ok());

        let many = Wish { max_connections: Some(1_000_000_000), ..WISH };
        let error = plan(&many).unwrap_err();
        let PlanError::TooManyConnections { needed_nofile, possible, .. } = error else {
            panic!("{error}")
        };
        assert!(!error.is_usage());
        assert!(plan(&Wish { nofile: needed_nofile, ..many }).is_ok());
        assert!(plan(&Wish { max_connections: Some(possible), ..many }).is_ok());
        assert_eq!(most(&many), possible);

        let threads = Wish { workers: Some(500), nofile: 256, ..WISH };
        let PlanError::TooManyWorkers { most, .. } = plan(&threads).unwrap_err() else { panic!() };
        let most = usize::try_from(most).unwrap();
        assert!(plan(&Wish { workers: Some(most), ..threads }).is_ok());

        assert_eq!(
            plan(&Wish { nofile: 64, ..WISH }),
            Err(PlanError::NofileTooSmall { nofile: 64 })
        );
    }

    proptest! {
        #[test]
        fn the_most_is_held_and_one_more_is_not(
            workers in proptest::option::of(1usize..5000),
            backlog: u32,
            nofile in 0u64..3_000_000,
            cores in 1usize..300,
        ) {
            let wish = Wish { workers, max_connections: None, backlog, somaxconn: None, nofile, cores };
            let most = most(&wish);
            let of = |connections| plan(&Wish { max_connections: Some(connections), ..wish });
            prop_assert_eq!(most > 0, of(most).is_ok());
            prop_assert!(of(most + 1).is_err());
        }

        #[test]
        fn a_plan_holds_what_was_wanted(
            workers in proptest::option::of(1usize..5000),
            wanted in proptest::option::of(1u64..20_000_000),
            backlog: u32,
            nofile in 0u64..3_000_000,
            cores in 1usize..300,
        ) {
            let wish = Wish { workers, max_connections: wanted, backlog, somaxconn: None, nofile, cores };
            if let Ok(plan) = plan(&wish) {
                prop_assert!(plan.capacity() >= wanted.unwrap_or(0));
                prop_assert!(plan.margin <= plan.table / 8 && plan.margin > u64::from(plan.backlog));
                prop_assert!(plan.workers as u64 + MAIN_DESCRIPTORS <= nofile);
            }
        }
    }
}
