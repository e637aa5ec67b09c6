//! Deliveries per second of the bare limit, and latency at a steady rate.
//!
//! The bare limit is measured anew right before every throughput that is divided by
//! it: absolute figures of a shared machine move from minute to minute.

use crate::audience::Audience;
use crate::audience::ONE;
use crate::audience::SECURE;
use crate::audience::TEN;
use crate::database::Store;
use crate::measure::Bench;
use crate::measure::Extent;
use crate::measure::Figures;
use crate::protocol::Style;
use crate::results::Results;
use crate::results::median_ratio;
use crate::results::millis;
use crate::stage::Stage;

const UNARY_OF_LIMIT_MIN: f64 = 0.16;
/// Callers that the targets of the unary scenario are for.
const UNARY_CALLERS: u32 = 256;
const STEADY_P50_MAX_MS: f64 = 1.2;
const STEADY_P99_MAX_MS: f64 = 4.0;
const HTTPS_OF_HTTP_MIN: f64 = 0.8;
const BATCHED_CPU_MAX_US: f64 = 60.0;
const UNARY_CPU_MAX_US: f64 = 120.0;
const RESIDENT_MAX_MIB: f64 = 150.0;

fn batched_of_limit_min(store: Store) -> f64 {
    match store {
        Store::Sqlite => 0.45,
        Store::Postgres => 0.40,
    }
}

fn fan_out_of_limit_min(store: Store) -> f64 {
    match store {
        Store::Sqlite => 0.50,
        Store::Postgres => 0.45,
    }
}

/// The client alone.
pub(crate) fn bare(bench: &mut Bench, results: &mut Results) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for _ in 0..bench.options.repeat {
        found.push(bench.bare()?);
    }
    results.add("-", "bare limit", &found);
    Ok(())
}

/// Latency at a rate that leaves the machine idle most of the time.
pub(crate) fn steady(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.subscribe(bench, ONE)?;
    let found = at_steady_rate(bench, stage)?;
    let (store, name) = (stage.service.store, format!("steady {}/s", bench.options.rate));
    let row = results.add(store.name(), &name, &found);
    let (p50, p99) = (millis(row.arrival.p50), millis(row.arrival.p99));
    results.empty.entry(store).or_default().p99_ms = Some(p99);
    let what = |figure| format!("{}: {name}, {figure} in ms", store.name());
    results.below(what("p50"), p50, STEADY_P50_MAX_MS);
    results.below(what("p99"), p99, STEADY_P99_MAX_MS);
    Ok(())
}

/// Batches to one subscription.
pub(crate) fn batched(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.subscribe(bench, ONE)?;
    let (found, limits) = beside_bare(bench, stage, ONE, bench.options.batches())?;
    results.add("-", "bare limit", &limits);
    let (store, name) = (stage.service.store, format!("batches of {}", bench.options.batch));
    let row = results.add_of(store.name(), &name, &found, &limits);
    let of_limit = row.of_limit.unwrap_or_default();
    results.empty.entry(store).or_default().of_limit = Some(of_limit);
    let what = |figure| format!("{}: {name}, {figure}", store.name());
    results.at_least(what("of the bare limit"), of_limit, batched_of_limit_min(store));
    results.below(what("CPU us per delivery"), row.service_us(), BATCHED_CPU_MAX_US);
    results.below(what("memory in MiB"), row.peak_mib(), RESIDENT_MAX_MIB);
    Ok(())
}

/// One event a call to one subscription.
pub(crate) fn unary(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.subscribe(bench, ONE)?;
    for callers in bench.options.clients.clone() {
        let style = Style::Closed { callers, batch: 1 };
        let (found, limits) = beside_bare(bench, stage, ONE, style)?;
        let (store, name) = (stage.service.store, format!("unary, {callers} callers"));
        let row = results.add_of(store.name(), &name, &found, &limits);
        let what = |figure| format!("{}: {name}, {figure}", store.name());
        results.below(what("memory in MiB"), row.peak_mib(), RESIDENT_MAX_MIB);
        if callers == UNARY_CALLERS {
            let of_limit = row.of_limit.unwrap_or_default();
            results.at_least(what("of the bare limit"), of_limit, UNARY_OF_LIMIT_MIN);
            results.below(what("CPU us per delivery"), row.service_us(), UNARY_CPU_MAX_US);
        }
    }
    Ok(())
}

/// Batches of events that go to ten subscriptions each.
pub(crate) fn fan_out(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.subscribe(bench, TEN)?;
    let (found, limits) = beside_bare(bench, stage, TEN, bench.options.batches())?;
    let (store, name) = (stage.service.store, format!("fan-out {}", TEN.fan_out));
    let row = results.add_of(store.name(), &name, &found, &limits);
    let what = format!("{}: {name}, of the bare limit", store.name());
    results.at_least(what, row.of_limit.unwrap_or_default(), fan_out_of_limit_min(store));
    Ok(())
}

/// Batches over HTTP and over HTTPS in turn, to the same receiver.
pub(crate) fn https(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.subscribe(bench, ONE)?;
    stage.subscribe_at(SECURE.at("https", bench.secure_door()?))?;
    let (style, extent) = (bench.options.batches(), bench.options.extent());
    bench.warm_up(stage, ONE, style)?;
    bench.warm_up(stage, SECURE, style)?;
    let (mut plain, mut secure) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.repeat {
        plain.push(bench.publish(stage, ONE, style, extent)?);
        secure.push(bench.publish(stage, SECURE, style, extent)?);
    }
    let store = stage.service.store.name();
    results.add(store, "batches, HTTP", &plain);
    results.add(store, "batches, HTTPS", &secure);
    let ratio = median_ratio(&secure, &plain, |figures| figures.delivered_per_s);
    results.at_least(format!("{store}: HTTPS, of HTTP"), ratio, HTTPS_OF_HTTP_MIN);
    Ok(())
}

/// A throughput, and the bare limits that were measured right before each.
pub(crate) fn beside_bare(
    bench: &mut Bench,
    stage: &mut Stage,
    audience: Audience,
    style: Style,
) -> anyhow::Result<(Vec<Figures>, Vec<Figures>)> {
    bench.warm_up(stage, audience, style)?;
    let (mut found, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.repeat {
        limits.push(bench.bare()?);
        found.push(bench.publish(stage, audience, style, bench.options.extent())?);
    }
    Ok((found, limits))
}

/// One event a call, at a fixed rate.
pub(crate) fn at_steady_rate(bench: &mut Bench, stage: &mut Stage) -> anyhow::Result<Vec<Figures>> {
    let (style, extent) = (bench.options.steady(), Extent::Seconds(bench.options.steady_seconds));
    bench.warm_up(stage, ONE, style)?;
    (0..bench.options.repeat).map(|_| bench.publish(stage, ONE, style, extent)).collect()
}
