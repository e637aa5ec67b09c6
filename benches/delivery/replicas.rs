//! Several replicas on one database: what each more costs, and what the database carries.
//!
//! On one machine they share its cores, so the sum says little. What counts is what a
//! delivery costs each process, in CPU time and in write-ahead log: see `docs/SCALING.md`.

use crate::audience::ONE;
use crate::measure::Bench;
use crate::measure::float;
use crate::results::Results;
use crate::results::median;
use crate::stage::Stage;

const COUNTS: [usize; 3] = [1, 2, 4];
const WAL: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8";

/// Batches, published to all replicas alike.
pub(crate) fn replicas(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.subscribe(bench, ONE)?;
    let (style, extent) = (bench.options.batches(), bench.options.extent());
    for count in COUNTS {
        stage.grow_to(bench, count)?;
        bench.warm_up(stage, ONE, style)?;
        let (mut found, mut wal) = (Vec::new(), Vec::new());
        for _ in 0..bench.options.repeat {
            let before = stage.service.database.number(WAL)?;
            let figures = bench.publish(stage, ONE, style, extent)?;
            let written = stage.service.database.number(WAL)?.saturating_sub(before);
            wal.push(float(written) / float(figures.delivered));
            found.push(figures);
        }
        let wal = median(wal.into_iter());
        let name = format!("batches, {count} replicas, {wal:.0} B of WAL a delivery");
        results.add(stage.service.store.name(), &name, &found);
    }
    Ok(())
}
