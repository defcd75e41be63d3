//! `--metrics-addr`: what is told, and what a look saw, as it is scraped.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use anyhow::Context as _;
use c1m_host::process;
use c1m_program::{
    EnvironmentRefused,
    exporter::{Bound, Scrapes},
    metrics::{CONTENT_TYPE, OWN, Own, Page},
};
use c1m_record::Record;
use c1m_sys::process::{cpu_seconds, page_bytes};

use crate::output::metrics::{Seen, tables};

/// As [`Bound::of`].
///
/// # Errors
/// The address can't be bound.
pub(super) fn bind(address: Option<SocketAddr>) -> Result<Option<Bound>, EnvironmentRefused> {
    Bound::of(address).map_err(|error| EnvironmentRefused(error.to_string()))
}

/// What is published at once.
#[derive(Debug, Clone, Default)]
struct Published {
    own: Own,
    seen: Seen,
}

/// The metrics of a running command.
#[derive(Debug)]
pub(super) struct Metrics {
    /// As it is taken, record by record.
    seen: Seen,
    /// As of the last look: exchanged as a whole, so that neither side waits while the other one works.
    published: Arc<Mutex<Arc<Published>>>,
}

impl Metrics {
    /// Answers from now on.
    pub(super) fn start(bound: Bound) -> anyhow::Result<Self> {
        let mut metrics = Self { seen: Seen::new(page_bytes().ok()), published: Arc::default() };
        metrics.publish();
        let published = metrics.published.clone();
        let render = move |scrapes| {
            let latest = published.lock().unwrap_or_else(PoisonError::into_inner).clone();
            page(&latest, scrapes)
        };
        bound.serve(CONTENT_TYPE, render).context("cannot start the thread of the metrics")?;
        Ok(metrics)
    }

    pub(super) fn take(&mut self, time: SystemTime, record: &Record) {
        self.seen.take(time, record);
    }

    /// Who holds the memory is no longer known: no sample is better than an old one.
    pub(super) fn forget_holders(&mut self) {
        self.seen.forget_holders();
    }

    /// Takes what a look saw, and hands it over.
    pub(super) fn sample<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        let now = SystemTime::now();
        records.into_iter().for_each(|record| self.take(now, record));
        self.publish();
    }

    /// Hands over what was taken. A scraper that has hold of the place at this very instant gets it at the next look: nothing here waits for it.
    fn publish(&mut self) {
        let published = Arc::new(Published { own: own(), seen: self.seen.clone() });
        if let Ok(mut place) = self.published.try_lock() {
            *place = published;
        }
    }
}

fn page(latest: &Published, scrapes: Scrapes) -> String {
    let own = Own {
        scrapes: scrapes.count,
        last_scrape: scrapes.last,
        scrape_errors: scrapes.errors,
        ..latest.own.clone()
    };
    let page = Page::default().with(OWN, &own);
    tables().into_iter().fold(page, |page, table| page.with(table, &latest.seen)).text()
}

fn own() -> Own {
    Own {
        program: "c1m-server",
        version: env!("CARGO_PKG_VERSION"),
        cpu_s: cpu_seconds().ok(),
        rss_bytes: process::memory().ok().map(|memory| memory.rss_bytes),
        ..Own::default()
    }
}
