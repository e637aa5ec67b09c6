//! What security and telemetry cost: the same publishing to a service with them, and to one
//! without, in turn.
//!
//! Both run all the while, each on a database of its own. Secured is one with API keys, TLS
//! on the gRPC port and encryption at rest; the load generator has its end of TLS to do on
//! the same cores, and that counts: its CPU time stands beside. Observed is one that sends
//! traces to a collector and whose metrics are read.

use std::iter;

use anyhow::Context as _;
use anyhow::ensure;

use crate::audience::ONE;
use crate::fitting::Fitting;
use crate::measure::Bench;
use crate::measure::Figures;
use crate::metrics_reader::MetricsReader;
use crate::options::Options;
use crate::options::Role;
use crate::protocol::Style;
use crate::report::Row;
use crate::results::Results;
use crate::results::median_ratio;
use crate::stage::Stage;
use crate::worker::Worker;

/// Security costs no more than 10 %.
const OF_OPEN_MIN: f64 = 0.9;
/// Traces and metrics no more than 5 %.
const OF_UNOBSERVED_MIN: f64 = 0.95;
const PLAINTEXT: &str = "SELECT CAST(count(*) AS text) FROM event WHERE payload_version = 0";

/// Batches, then one event a call, to a service without security and to secured ones.
pub(crate) fn secured(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    let store = stage.service.store;
    prepare(bench, stage)?;
    let wanted: &[Fitting] = if bench.options.parts {
        &[Fitting::Secured, Fitting::Callers, Fitting::Storage]
    } else {
        &[Fitting::Secured]
    };
    let mut others = Vec::new();
    for fitting in wanted {
        let other = Stage::set_with(bench, store, *fitting)?;
        let mut other = other.context("the store of the first one is there")?;
        prepare(bench, &mut other)?;
        others.push(other);
    }
    let mut stages: Vec<&mut Stage> = iter::once(stage).chain(&mut others).collect();
    let mut comparison = Comparison::new(bench, stages.len());
    for turn in 0..bench.options.repeat {
        comparison.renew(bench, &mut stages, turn)?;
        comparison.measure(bench, &mut stages)?;
    }
    comparison.report(&stages, OF_OPEN_MIN, results);
    if bench.options.keep {
        for other in &mut others {
            other.service.keep();
        }
    }
    Ok(())
}

/// The same to one that nobody observes, and to one whose traces are sampled and whose
/// metrics are read every second, which is more often than anybody does.
pub(crate) fn observed(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    let mut collector = Worker::start(Role::Collector, &[])?;
    let address = collector.doors.plain.context("it listens")?;
    prepare(bench, stage)?;
    let store = stage.service.store;
    let other = Stage::set_with(bench, store, Fitting::Traces(address))?;
    let mut other = other.context("the store of the first one is there")?;
    prepare(bench, &mut other)?;
    let stages = &mut [stage, &mut other];
    let mut comparison = Comparison::new(bench, stages.len());
    let mut pages = 0;
    for turn in 0..bench.options.repeat {
        comparison.renew(bench, stages, turn)?;
        let reader = MetricsReader::start(stages[1].service.admin.clone());
        comparison.measure(bench, stages)?;
        pages += reader.stop()?;
    }
    comparison.report(stages, OF_UNOBSERVED_MIN, results);
    let spans = collector.tally()?.unique;
    eprintln!("{}: {spans} spans came, {pages} pages of metrics were read", store.name());
    ensure!(0 < spans && 0 < pages, "it was not observed");
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
    let fitting = stage.service.fitting;
    let plaintext = stage.service.database.number(PLAINTEXT)?;
    let as_told = fitting.encrypts() == (plaintext == 0);
    ensure!(as_told, "{}: {plaintext} events are stored as plaintext", fitting.name());
    Ok(())
}

/// What was found of each stage, the first being the one without, by style.
struct Comparison {
    styles: Vec<(String, Style)>,
    found: Vec<Vec<Vec<Figures>>>,
}

impl Comparison {
    fn new(bench: &Bench, stages: usize) -> Comparison {
        let styles = styles(&bench.options);
        let found = vec![vec![Vec::new(); stages]; styles.len()];
        Comparison { styles, found }
    }

    /// Every turn but the first, which finds new ones, has new processes: what is theirs for as
    /// long as they run, such as where their memory happens to be, is not what is compared.
    fn renew(&self, bench: &mut Bench, stages: &mut [&mut Stage], turn: u32) -> anyhow::Result<()> {
        if turn == 0 {
            return Ok(());
        }
        for stage in stages {
            stage.restart_after(bench, |_| Ok(()))?;
            let (_, style) = self.styles[0];
            bench.warm_up(stage, ONE, style)?;
        }
        Ok(())
    }

    /// One after the other and back again, in every style: what the machine does meanwhile, and
    /// what one leaves behind for the next, is not always the same one's burden.
    fn measure(&mut self, bench: &mut Bench, stages: &mut [&mut Stage]) -> anyhow::Result<()> {
        let extent = bench.options.extent();
        let there = 0..stages.len();
        let order: Vec<usize> = there.clone().chain(there.rev()).collect();
        for ((_, style), found) in self.styles.iter().zip(&mut self.found) {
            for at in &order {
                found[*at].push(bench.publish(stages[*at], ONE, *style, extent)?);
            }
        }
        Ok(())
    }

    /// Divides the throughput of each by that of the first.
    fn report(self, stages: &[&mut Stage], of_plain_min: f64, results: &mut Results) {
        let store = stages[0].service.store.name();
        for ((name, _), found) in self.styles.iter().zip(&self.found) {
            let rows = stages.iter().zip(found).map(|(stage, found)| {
                let name = format!("{name}, {}", stage.service.fitting.name());
                results.add(store, &name, found)
            });
            let rows: Vec<Row> = rows.collect();
            let plain = &rows[0];
            for (row, fitted) in rows.iter().zip(found).skip(1) {
                eprintln!("{store}: {}, by turn: {}", row.name, by_turn(fitted, &found[0]));
                let ratio = median_ratio(fitted, &found[0], |figures| figures.delivered_per_s);
                let what = format!(
                    "{store}: {}, of the throughput without (CPU us per delivery: service and \
                     database {:.1}, without {:.1}; load {:.1}, without {:.1})",
                    row.name,
                    row.service_us(),
                    plain.service_us(),
                    row.load_us(),
                    plain.load_us(),
                );
                results.at_least(what, ratio, of_plain_min);
            }
        }
    }
}

/// How far the turns are from each other.
fn by_turn(fitted: &[Figures], plain: &[Figures]) -> String {
    let turns = fitted.iter().zip(plain);
    let ratios = turns.map(|(one, other)| one.delivered_per_s / other.delivered_per_s);
    ratios.map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" ")
}
