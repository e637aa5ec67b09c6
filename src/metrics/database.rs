//! How the connections to a server are used: not counted here, but asked for at each look.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::instruments::label;
use super::{Metrics, Values};

/// Connections for one kind of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Lent just now.
    pub in_use: usize,
    /// Most that are lent at once.
    pub size: usize,
    /// How often somebody had to wait for one, since the start.
    pub waits: u64,
    /// How long all of them have waited together.
    pub waited: Duration,
}

/// The engine's, and those of calls, as labels.
const WORK: [&str; 2] = ["engine", "calls"];

type Ask = dyn Fn() -> Option<[Pool; 2]> + Send + Sync;

/// Nothing is shown before there is somebody to ask, nor where there is no server.
#[derive(Default)]
pub(super) struct Pools(OnceLock<Box<Ask>>);

impl Pools {
    fn now(&self) -> Option<[Pool; 2]> {
        self.0.get().and_then(|ask| ask())
    }

    fn labelled(&self) -> impl Iterator<Item = (Pool, [KeyValue; 1])> {
        let labels = WORK.map(|work| [label("work", work)]);
        self.now().into_iter().flatten().zip(labels)
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Pools").field(&self.now()).finish()
    }
}

impl Metrics {
    /// From now on `ask` says at each look how the engine's connections are used, and those
    /// of calls. It must not block. The first that is named stays.
    pub fn pools_by(&self, ask: impl Fn() -> Option<[Pool; 2]> + Send + Sync + 'static) {
        // It is set once in a process.
        let _ = self.values().pools.0.set(Box::new(ask));
    }
}

pub(super) fn observe(meter: &Meter, values: &Arc<Values>) {
    level(
        meter,
        values,
        "hookward_database_connections_in_use",
        "Connections to the database at work",
        |pool| pool.in_use,
    );
    level(
        meter,
        values,
        "hookward_database_connections_max",
        "Most of them that may be at work at once",
        |pool| pool.size,
    );
    let shared = Arc::clone(values);
    meter
        .u64_observable_counter("hookward_database_waits_total")
        .with_description("Times that work had to wait for a connection to the database")
        .with_callback(move |observer| {
            for (pool, labels) in shared.pools.labelled() {
                observer.observe(pool.waits, &labels);
            }
        })
        .build();
    let shared = Arc::clone(values);
    meter
        .f64_observable_counter("hookward_database_wait_seconds_total")
        .with_description("Time that work has waited for connections to the database")
        .with_callback(move |observer| {
            for (pool, labels) in shared.pools.labelled() {
                observer.observe(pool.waited.as_secs_f64(), &labels);
            }
        })
        .build();
}

fn level(
    meter: &Meter,
    values: &Arc<Values>,
    name: &'static str,
    help: &'static str,
    read: fn(&Pool) -> usize,
) {
    let shared = Arc::clone(values);
    meter
        .u64_observable_gauge(name)
        .with_description(help)
        .with_callback(move |observer| {
            for (pool, labels) in shared.pools.labelled() {
                observer.observe(read(&pool) as u64, &labels);
            }
        })
        .build();
}
