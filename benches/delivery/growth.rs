//! Databases that have grown, each compared with the empty one of the same run.

use anyhow::Context as _;
use anyhow::ensure;

use crate::audience::DEAD;
use crate::audience::HOSTILE;
use crate::audience::NEIGHBOUR;
use crate::audience::ONE;
use crate::copies;
use crate::database::Store;
use crate::measure::Bench;
use crate::measure::Extent;
use crate::pause;
use crate::protocol::Style;
use crate::results::Results;
use crate::results::millis;
use crate::stage::Stage;
use crate::throughput;

/// Growth costs less than 15 % of the throughput.
const OF_EMPTY_MIN: f64 = 0.85;
/// The steady p99 stays under twice the empty one's.
const P99_OF_EMPTY_MAX: f64 = 2.0;
const HOSTILE_RESIDENT_MAX_MIB: f64 = 512.0;
/// Events that are really published, to be copied.
const SEEDS: u64 = 10_000;
/// For first attempts at the dead receiver.
const FIRST_ATTEMPTS: std::time::Duration = std::time::Duration::from_secs(2);
/// Events for each kind of hostile receivers: more than may be under way.
const HOSTILE_EVENTS: u64 = 100;

/// Many settled deliveries.
pub(crate) fn history(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.subscribe(bench, ONE)?;
    let style = bench.options.batches();
    let seeds = bench.publish(stage, ONE, style, Extent::Events(SEEDS))?;
    results.lost += seeds.lost;
    let wanted = bench.options.history;
    stage.restart_after(bench, |database| copies::copy_deliveries(database, wanted))?;
    compare(bench, stage, &format!("{wanted} settled"), results)
}

/// Many deliveries that wait for a dead receiver; then hostile ones beside it.
pub(crate) fn pending(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    let mut dead = DEAD.at("http", bench.door()?);
    dead.urls = vec![format!("http://{}/dead", closed_port()?)];
    stage.subscribe_at(dead)?;
    let style = bench.options.batches();
    bench.publish_only(stage, DEAD, style, Extent::Events(SEEDS))?;
    pause(FIRST_ATTEMPTS);
    let wanted = bench.options.pending;
    stage.restart_after(bench, |database| {
        copies::copy_deliveries(database, wanted)?;
        let waiting = database.number("SELECT CAST(count(*) AS text) FROM due WHERE owner = 0")?;
        ensure!(wanted <= waiting, "{waiting} deliveries wait instead of {wanted}");
        Ok(())
    })?;
    stage.subscribe(bench, ONE)?;
    compare(bench, stage, &format!("{wanted} pending"), results)?;
    beside_hostile(bench, stage, results)
}

/// Many organizations and subscriptions.
pub(crate) fn organizations(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.subscribe(bench, ONE)?;
    stage.subscribe(bench, NEIGHBOUR)?;
    let wanted = bench.options.organizations;
    stage.restart_after(bench, |database| copies::copy_organizations(database, wanted))?;
    let subscriptions = wanted * copies::SUBSCRIPTIONS_EACH;
    let name = format!("{wanted} organizations, {subscriptions} subscriptions");
    compare(bench, stage, &name, results)
}

/// Throughput and latency of what has grown beside those of the empty database.
fn compare(
    bench: &mut Bench,
    stage: &mut Stage,
    what: &str,
    results: &mut Results,
) -> anyhow::Result<()> {
    let store = stage.service.store;
    eprintln!("{}: {} MB on disk", store.name(), stage.service.database.bytes()? / 1_000_000);
    let (found, limits) = throughput::beside_bare(bench, stage, ONE, bench.options.batches())?;
    let row = results.add_of(store.name(), &format!("batches, {what}"), &found, &limits);
    let steady = throughput::at_steady_rate(bench, stage)?;
    let slow = results.add(store.name(), &format!("steady, {what}"), &steady).arrival.p99;
    let (of_limit, p99_ms) = empty(results, store)?;
    let name = |figure| format!("{}: {what}, {figure} of the empty database's", store.name());
    results.at_least(name("throughput"), row.of_limit.unwrap_or_default() / of_limit, OF_EMPTY_MIN);
    results.below(name("steady p99"), millis(slow) / p99_ms, P99_OF_EMPTY_MAX);
    Ok(())
}

/// Batches of the bare limit and steady p99 in ms, of an empty database.
fn empty(results: &Results, store: Store) -> anyhow::Result<(f64, f64)> {
    let empty = results.empty.get(&store).copied().unwrap_or_default();
    let missing = "the empty database was not measured";
    Ok((empty.of_limit.context(missing)?, empty.p99_ms.context(missing)?))
}

/// How much memory it takes when 200 receivers do their worst as well.
fn beside_hostile(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    let one_a_call = Style::Closed { callers: 1, batch: 1 };
    for audience in HOSTILE {
        stage.subscribe(bench, audience)?;
    }
    for audience in HOSTILE {
        bench.publish_only(stage, audience, one_a_call, Extent::Events(HOSTILE_EVENTS))?;
    }
    let (mut found, style) = (Vec::new(), bench.options.batches());
    for _ in 0..bench.options.repeat {
        found.push(bench.publish(stage, ONE, style, bench.options.extent())?);
    }
    let store = stage.service.store.name();
    let receivers: u32 = HOSTILE.iter().map(|audience| audience.fan_out).sum();
    let name = format!("batches, {} pending, {receivers} hostile", bench.options.pending);
    let row = results.add(store, &name, &found);
    results.below(format!("{store}: {name}, MiB"), row.peak_mib(), HOSTILE_RESIDENT_MAX_MIB);
    stage.service.kill();
    Ok(())
}

/// An address that refuses connections.
fn closed_port() -> anyhow::Result<std::net::SocketAddr> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
