//! A long transaction elsewhere in the database: nothing that is dead can be removed
//! while it holds its snapshot.

use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;

use crate::audience::ONE;
use crate::database::sql;
use crate::measure::Bench;
use crate::measure::Extent;
use crate::measure::float;
use crate::pause;
use crate::results::Results;
use crate::stage::Stage;

/// It costs less than 15 %.
const OF_FREE_MIN: f64 = 0.85;
const OPEN_MAX: Duration = Duration::from_secs(10);
const HELD: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'idle in transaction'
    AND backend_xmin IS NOT NULL";

/// Batches for as long as the snapshot is held, after as much without.
pub(crate) fn snapshot(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.subscribe(bench, ONE)?;
    let (style, repeat) = (bench.options.batches(), bench.options.repeat);
    let seconds = bench.options.snapshot_seconds;
    let part = Extent::Seconds(seconds / float(repeat.into()));
    bench.warm_up(stage, ONE, style)?;
    let (mut free, mut held) = (Vec::new(), Vec::new());
    for _ in 0..repeat {
        free.push(bench.publish(stage, ONE, style, part)?);
    }
    let url = stage.service.database.url.clone();
    let holder = Holder::open(&url)?;
    let since = Instant::now();
    for _ in 0..repeat {
        held.push(bench.publish(stage, ONE, style, part)?);
    }
    let took = since.elapsed().as_secs_f64();
    ensure!(sql(&url, HELD)? == "1", "the snapshot was not held to the end");
    ensure!(seconds <= took, "the snapshot was held for {took:.0} s only");
    drop(holder);
    let store = stage.service.store.name();
    let without = results.add(store, "batches, no snapshot", &free).delivered_per_s;
    let name = format!("batches, a snapshot held for {took:.0} s");
    let with = results.add(store, &name, &held).delivered_per_s;
    let what = format!("{store}: a held snapshot, of the throughput without");
    results.at_least(what, with / without, OF_FREE_MIN);
    Ok(())
}

/// A connection in a transaction. Dropping it ends it.
struct Holder {
    psql: Child,
}

impl Holder {
    fn open(url: &str) -> anyhow::Result<Holder> {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]);
        psql.args(["-c", "BEGIN ISOLATION LEVEL REPEATABLE READ"]);
        // The file, its input, never ends, so that it stays connected.
        psql.args(["-c", "SELECT count(*) FROM event", "-f", "-", url]);
        psql.stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = Holder { psql: psql.spawn().context("psql is needed")? };
        let until = Instant::now() + OPEN_MAX;
        while sql(url, HELD)? != "1" {
            ensure!(Instant::now() < until, "no transaction is open");
            pause(Duration::from_millis(50));
        }
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}
