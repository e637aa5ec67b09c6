//! How much of a gRPC server's own speed is left when events are stored: calls of one
//! event, beside a handler that does nothing.

use anyhow::Context as _;

use crate::audience::NOBODY;
use crate::audience::ONE;
use crate::measure::Bench;
use crate::measure::Figures;
use crate::options::Role;
use crate::protocol::Style;
use crate::results::Results;
use crate::results::median_ratio;
use crate::stage;
use crate::stage::Stage;
use crate::worker::Worker;

const CALLERS: u32 = 64;
const NOBODY_OF_EMPTY_MIN: f64 = 0.5;
const ONE_OF_EMPTY_MIN: f64 = 0.25;

/// The empty handler, events for nobody and events for one subscription, in turn.
pub(crate) fn intake(
    bench: &mut Bench,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    let style = Style::Closed { callers: CALLERS, batch: 1 };
    let server = Worker::start(Role::Empty, &[])?;
    let address = server.doors.plain.context("a server has an address")?.to_string();
    let mut load = stage::load(&bench.options, &[address], None)?;
    stage.subscribe(bench, ONE)?;
    bench.call_empty(&server, &mut load, NOBODY, style)?;
    bench.warm_up(stage, NOBODY, style)?;
    bench.warm_up(stage, ONE, style)?;
    let (mut empty, mut nobody, mut one) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.options.repeat {
        empty.push(bench.call_empty(&server, &mut load, NOBODY, style)?);
        nobody.push(bench.publish(stage, NOBODY, style, bench.options.extent())?);
        one.push(bench.publish(stage, ONE, style, bench.options.extent())?);
    }
    let store = stage.service.store.name();
    results.add("-", &format!("empty handler, {CALLERS} callers"), &empty);
    let mut compare = |what: &str, found: &[Figures], bound| {
        results.add(store, &format!("intake, {what}, {CALLERS} callers"), found);
        let ratio = median_ratio(found, &empty, |figures| figures.published_per_s);
        results.at_least(format!("{store}: intake, {what}, of an empty handler"), ratio, bound);
    };
    compare("no subscription", &nobody, NOBODY_OF_EMPTY_MIN);
    compare("one subscription", &one, ONE_OF_EMPTY_MIN);
    Ok(())
}
