//! What is measured, in which order, and the medians of it.
//!
//! The bare limit is measured anew beside every throughput that is divided by it:
//! absolute figures of a shared machine move from minute to minute.

use crate::database::Store;
use crate::measure::Bench;
use crate::measure::Figures;
use crate::options::Options;
use crate::options::Scenario;
use crate::protocol::Quantiles;
use crate::protocol::Style;
use crate::report::Row;
use crate::report::Target;
use crate::service::Service;
use crate::worker::Worker;

/// Of the issue that asked for this benchmark.
const BATCHED_RATIO_MIN: f64 = 0.20;
const STEADY_P50_MAX_MS: f64 = 2.0;
const STEADY_P99_MAX_MS: f64 = 8.0;
const HISTORY_RATIO_MIN: f64 = 0.9;

/// What came of all of it.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) targets: Vec<Target>,
    /// Of the PostgreSQL that was measured.
    pub(crate) postgres: Option<String>,
    /// Deliveries that were accepted and did not arrive.
    pub(crate) lost: u64,
}

/// The client alone.
pub(crate) fn bare(bench: &mut Bench, results: &mut Results) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for _ in 0..bench.options.repeat {
        found.push(bench.bare()?);
    }
    results.add("-", "bare limit", &found, None);
    Ok(())
}

/// Everything that is asked for on one store. `false`: it is not installed.
pub(crate) fn on_store(
    bench: &mut Bench,
    store: Store,
    results: &mut Results,
) -> anyhow::Result<bool> {
    let asked = bench.options.scenario;
    let short = [Scenario::Steady, Scenario::Batched, Scenario::Unary];
    if short.into_iter().any(|part| asked.holds(part)) {
        let Some(mut service) = start(&bench.options, store, results)? else { return Ok(false) };
        let mut load = bench.load(&service)?;
        if asked.holds(Scenario::Steady) {
            steady(bench, &service, &mut load, results)?;
        }
        if asked.holds(Scenario::Batched) {
            batched(bench, &service, &mut load, results)?;
        }
        if asked.holds(Scenario::Unary) {
            unary(bench, &service, &mut load, results)?;
        }
        if bench.options.keep {
            service.keep();
        }
    }
    if asked.holds(Scenario::History) {
        let Some(mut service) = start(&bench.options, store, results)? else { return Ok(false) };
        let mut load = bench.load(&service)?;
        history(bench, &service, &mut load, results)?;
        if bench.options.keep {
            service.keep();
        }
    }
    Ok(true)
}

fn start(
    options: &Options,
    store: Store,
    results: &mut Results,
) -> anyhow::Result<Option<Service>> {
    let service = Service::start(options, store)?;
    if let Some(service) = &service
        && store == Store::Postgres
    {
        results.postgres = Some(crate::database::version(&service.database.url)?);
    }
    Ok(service)
}

fn steady(
    bench: &mut Bench,
    service: &Service,
    load: &mut Worker,
    results: &mut Results,
) -> anyhow::Result<()> {
    let style = Style::Open { per_second: bench.options.rate };
    bench.warm_up(service, load, style)?;
    let mut found = Vec::new();
    for _ in 0..bench.options.repeat {
        let seconds = Some(bench.options.steady_seconds);
        found.push(bench.publish(service, load, style, seconds, None)?);
    }
    let name = format!("steady {}/s", bench.options.rate);
    let row = results.add(service.store.name(), &name, &found, None);
    let (p50, p99) = (millis(row.arrival.p50), millis(row.arrival.p99));
    let store = service.store.name();
    results.targets.push(Target::below(
        format!("{store}: {name}, p50 in ms"),
        p50,
        STEADY_P50_MAX_MS,
    ));
    results.targets.push(Target::below(
        format!("{store}: {name}, p99 in ms"),
        p99,
        STEADY_P99_MAX_MS,
    ));
    Ok(())
}

fn batched(
    bench: &mut Bench,
    service: &Service,
    load: &mut Worker,
    results: &mut Results,
) -> anyhow::Result<()> {
    let style = batches(&bench.options);
    bench.warm_up(service, load, style)?;
    let (mut found, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.repeat {
        limits.push(bench.bare()?);
        let seconds = Some(bench.options.seconds);
        found.push(bench.publish(service, load, style, seconds, None)?);
    }
    let limit = results.add("-", "bare limit", &limits, None).delivered_per_s;
    let name = format!("batches of {}", bench.options.batch);
    let row = results.add(service.store.name(), &name, &found, Some(limit));
    let ratio = row.delivered_per_s / limit;
    let what = format!("{}: {name}, of the bare limit", service.store.name());
    results.targets.push(Target::at_least(what, ratio, BATCHED_RATIO_MIN));
    Ok(())
}

fn unary(
    bench: &mut Bench,
    service: &Service,
    load: &mut Worker,
    results: &mut Results,
) -> anyhow::Result<()> {
    for callers in bench.options.clients.clone() {
        let style = Style::Closed { callers, batch: 1 };
        bench.warm_up(service, load, style)?;
        let (mut found, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..bench.options.repeat {
            limits.push(bench.bare()?);
            let seconds = Some(bench.options.seconds);
            found.push(bench.publish(service, load, style, seconds, None)?);
        }
        let limit = median(limits.iter().map(|found| found.delivered_per_s));
        let name = format!("unary, {callers} callers");
        results.add(service.store.name(), &name, &found, Some(limit));
    }
    Ok(())
}

/// Really published and really delivered, by the process that is then measured.
fn history(
    bench: &mut Bench,
    service: &Service,
    load: &mut Worker,
    results: &mut Results,
) -> anyhow::Result<()> {
    let style = batches(&bench.options);
    let (seconds, events) = (Some(bench.options.seconds), bench.options.history);
    bench.warm_up(service, load, style)?;
    let mut young = Vec::new();
    for _ in 0..bench.options.repeat {
        young.push(bench.publish(service, load, style, seconds, None)?);
    }
    eprintln!("{}: filling with {events} deliveries", service.store.name());
    let filling = bench.publish(service, load, style, None, Some(events))?;
    results.lost += filling.lost;
    let mut old = Vec::new();
    for _ in 0..bench.options.repeat {
        old.push(bench.publish(service, load, style, seconds, None)?);
    }
    let store = service.store.name();
    let before = results.add(store, "batches, young database", &young, None).delivered_per_s;
    let name = format!("batches, {events} settled before");
    let after = results.add(store, &name, &old, None).delivered_per_s;
    let what = format!("{store}: {name}, of the young database");
    results.targets.push(Target::at_least(what, after / before, HISTORY_RATIO_MIN));
    eprintln!("{store}: {} MB on disk", service.database.bytes()? / 1_000_000);
    Ok(())
}

fn batches(options: &Options) -> Style {
    Style::Closed { callers: options.calls, batch: options.batch }
}

impl Results {
    /// Adds the medians of `found` to the table.
    fn add(&mut self, store: &str, name: &str, found: &[Figures], limit: Option<f64>) -> &Row {
        self.lost += found.iter().map(|figures| figures.lost).sum::<u64>();
        let all = |figure: fn(&Figures) -> f64| median(found.iter().map(figure));
        let quantiles = |of: fn(&Figures) -> Quantiles| {
            let middle = |figure: fn(&Quantiles) -> u64| {
                let mut all: Vec<u64> = found.iter().map(|figures| figure(&of(figures))).collect();
                all.sort_unstable();
                all[all.len() / 2]
            };
            Quantiles { p50: middle(|q| q.p50), p99: middle(|q| q.p99), max: middle(|q| q.max) }
        };
        let names = found[0].cpu_us.iter().map(|(name, _)| *name).enumerate();
        let cpu_us = names.map(|(at, name)| (name, median(found.iter().map(|f| f.cpu_us[at].1))));
        let delivered_per_s = all(|figures| figures.delivered_per_s);
        self.rows.push(Row {
            store: store.to_owned(),
            name: name.to_owned(),
            delivered_per_s,
            published_per_s: all(|figures| figures.published_per_s),
            of_limit: limit.map(|limit| delivered_per_s / limit),
            arrival: quantiles(|figures| figures.arrival),
            answer: quantiles(|figures| figures.answer),
            cpu_us: cpu_us.collect(),
            delivered: found.iter().map(|figures| figures.delivered).sum(),
            lost: found.iter().map(|figures| figures.lost).sum(),
            duplicates: found.iter().map(|figures| figures.duplicates).sum(),
            refused: found.iter().map(|figures| figures.refused).sum(),
        });
        let row = self.rows.last().expect("just pushed");
        eprintln!("{row}");
        row
    }
}

/// Of at least one figure; the upper one of two in the middle.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn millis(micros: u64) -> f64 {
    crate::measure::float(micros) / 1000.0
}
