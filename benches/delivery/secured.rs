//! What security costs: the same publishing to a service with API keys, TLS on the gRPC
//! port and encryption at rest, and to one without any of it, in turn.
//!
//! Both run all the while, each on a database of its own. The load generator has its end
//! of TLS to do on the same cores, and that counts: its CPU time stands beside.

use std::iter;

use anyhow::Context as _;
use anyhow::ensure;

use crate::audience::ONE;
use crate::measure::Bench;
use crate::options::Options;
use crate::protocol::Style;
use crate::report::Row;
use crate::results::Results;
use crate::results::median_ratio;
use crate::security::Security;
use crate::stage::Stage;

/// It costs no more than 10 %.
const OF_OPEN_MIN: f64 = 0.9;
const PLAINTEXT: &str = "SELECT CAST(count(*) AS text) FROM event WHERE payload_version = 0";

/// Batches, then one event a call, to a service without security and to secured ones.
pub(crate) fn secured(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    let store = stage.service.store;
    prepare(bench, stage)?;
    let wanted: &[Security] = if bench.options.parts {
        &[Security::All, Security::Callers, Security::Storage]
    } else {
        &[Security::All]
    };
    let mut others = Vec::new();
    for security in wanted {
        let other = Stage::set_with(bench, store, *security)?;
        let mut other = other.context("the store of the first one is there")?;
        prepare(bench, &mut other)?;
        others.push(other);
    }
    let mut stages: Vec<&mut Stage> = iter::once(stage).chain(&mut others).collect();
    for (name, style) in styles(&bench.options) {
        compare(bench, &mut stages, &name, style, results)?;
    }
    if bench.options.keep {
        for other in &mut others {
            other.service.keep();
        }
    }
    Ok(())
}

/// What is published, and as what it stands in the table.
fn styles(options: &Options) -> Vec<(String, Style)> {
    let batches = (format!("batches of {}", options.batch), options.batches());
    let unary = options.clients.iter().map(|callers| {
        (format!("unary, {callers} callers"), Style::Closed { callers: *callers, batch: 1 })
    });
    iter::once(batches).chain(unary).collect()
}

/// Warms a service up, at once: connections that show no credentials are closed after half
/// a minute. What it has stored by then must be as it was told.
fn prepare(bench: &mut Bench, stage: &mut Stage) -> anyhow::Result<()> {
    stage.subscribe(bench, ONE)?;
    for (_, style) in styles(&bench.options) {
        bench.warm_up(stage, ONE, style)?;
    }
    let security = stage.service.security;
    let plaintext = stage.service.database.number(PLAINTEXT)?;
    let as_told = security.encrypts() == (plaintext == 0);
    ensure!(as_told, "{}: {plaintext} events are stored as plaintext", security.name());
    Ok(())
}

/// Measures each stage in every turn, and divides its throughput by that of the first.
fn compare(
    bench: &mut Bench,
    stages: &mut [&mut Stage],
    name: &str,
    style: Style,
    results: &mut Results,
) -> anyhow::Result<()> {
    let extent = bench.options.extent();
    let mut found = vec![Vec::new(); stages.len()];
    for turn in 0..bench.options.repeat {
        let mut order: Vec<usize> = (0..stages.len()).collect();
        // What one leaves behind for the next is not always the same one's burden.
        if turn % 2 == 1 {
            order.reverse();
        }
        for at in order {
            found[at].push(bench.publish(stages[at], ONE, style, extent)?);
        }
    }
    let store = stages[0].service.store.name();
    let rows = stages.iter().zip(&found).map(|(stage, found)| {
        let name = format!("{name}, {}", stage.service.security.name());
        results.add(store, &name, found)
    });
    let rows: Vec<Row> = rows.collect();
    let open = &rows[0];
    for (row, secured) in rows.iter().zip(&found).skip(1) {
        let ratio = median_ratio(secured, &found[0], |figures| figures.delivered_per_s);
        let what = format!(
            "{store}: {}, of the throughput without (CPU us per delivery: service and database \
             {:.1}, without {:.1}; load {:.1}, without {:.1})",
            row.name,
            row.service_us(),
            open.service_us(),
            row.load_us(),
            open.load_us(),
        );
        results.at_least(what, ratio, OF_OPEN_MIN);
    }
    Ok(())
}
