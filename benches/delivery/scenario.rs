//! What is measured, and in which order.
//!
//! Each scenario has a service with an empty database of its own, so that none finds
//! what another has left. One that fails is told at the end and does not stop the others.

use crate::database;
use crate::database::Store;
use crate::fitted;
use crate::growth;
use crate::intake;
use crate::measure::Bench;
use crate::options::Scenario;
use crate::replicas;
use crate::results::Results;
use crate::snapshot;
use crate::stage::Stage;
use crate::throughput;

type Play = fn(&mut Bench, &mut Stage, &mut Results) -> anyhow::Result<()>;

/// The steady rate and batches come first: grown databases are compared with them.
const PLAYS: [(Scenario, Play); 13] = [
    (Scenario::Steady, throughput::steady),
    (Scenario::Batched, throughput::batched),
    (Scenario::Unary, throughput::unary),
    (Scenario::FanOut, throughput::fan_out),
    (Scenario::Https, throughput::https),
    (Scenario::Secured, fitted::secured),
    (Scenario::Observed, fitted::observed),
    (Scenario::Intake, intake::intake),
    (Scenario::Snapshot, snapshot::snapshot),
    (Scenario::Replicas, replicas::replicas),
    (Scenario::History, growth::history),
    (Scenario::Pending, growth::pending),
    (Scenario::Organizations, growth::organizations),
];
/// Those that SQLite has nothing to show for.
const POSTGRES_ONLY: [Scenario; 2] = [Scenario::Snapshot, Scenario::Replicas];
/// Those that are compared with an empty database.
const GROWN: [Scenario; 3] = [Scenario::History, Scenario::Pending, Scenario::Organizations];

/// Everything that is asked for on one store. `false`: it is not installed.
pub(crate) fn on_store(
    bench: &mut Bench,
    store: Store,
    results: &mut Results,
) -> anyhow::Result<bool> {
    let grown = GROWN.into_iter().any(|scenario| bench.options.asks_for(scenario));
    for (scenario, play) in PLAYS {
        let compared = grown && [Scenario::Steady, Scenario::Batched].contains(&scenario);
        if !bench.options.asks_for(scenario) && !compared {
            continue;
        }
        if POSTGRES_ONLY.contains(&scenario) && store == Store::Sqlite {
            continue;
        }
        let Some(mut stage) = Stage::set(bench, store)? else { return Ok(false) };
        if store == Store::Postgres {
            results.postgres = Some(database::version(&stage.service.database.url)?);
        }
        eprintln!("{}: {scenario:?}", store.name());
        if let Err(error) = play(bench, &mut stage, results) {
            let failure = format!("{}, {scenario:?}: {error:#}", store.name());
            eprintln!("{failure}");
            results.failures.push(failure);
        }
        if bench.options.keep {
            stage.service.keep();
        }
    }
    Ok(true)
}
