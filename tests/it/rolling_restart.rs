//! Promise: replicas are replaced one after the other while 500 events a second are
//! published, and nobody notices: nothing is lost, nothing comes twice, nothing waits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::harness::engine::Engine;
use crate::harness::eventually::Punctuality;
use crate::harness::fleet::{Fleet, Flow, PER_SECOND, Published, name, payload};
use crate::harness::receiver::Receiver;
use crate::harness::service::Settings;
use crate::harness::wire::Received;

const REPLICAS: usize = 3;
const ORGANIZATIONS: usize = 4;
/// What is published before the first is replaced.
const BEFORE: usize = 8 * PER_SECOND;
/// What is published between one and the next, less than an orchestrator lets pass.
const BETWEEN: usize = 2 * PER_SECOND;
/// What may come on top on a machine that runs other tests beside this one: each new replica
/// starts on the cores that the others send with.
const COMPANY: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_three_replicas_are_replaced() {
    let Some(engine) = Engine::postgres() else { return };
    let receiver = Receiver::answering([200]).await;
    let settings = Settings::new(engine);
    let mut fleet = Fleet::start(&settings, REPLICAS).await;
    for number in 0..ORGANIZATIONS {
        fleet.organization(&name(number)).subscribe(&receiver, "azodha", "*").await;
    }
    let flow = Flow::start(&fleet, ORGANIZATIONS);
    flow.goes_on(PER_SECOND).await;
    let usual = Instant::now();
    flow.goes_on(BEFORE).await;

    let punctuality = Punctuality::watch();
    let rolling = Instant::now();
    for _ in 0..REPLICAS {
        fleet.replace(&settings).await;
        flow.goes_on(BETWEEN).await;
    }
    let rolled = Instant::now();

    flow.goes_on(PER_SECOND).await;
    let published = flow.end().await;
    let arrived = receiver.received(published.len()).await;
    fleet.stop().await;
    let times = times(&published, &arrived);
    assert_eq!(receiver.count(), published.len(), "each came once");
    let p99 = |from, to| percentile(&times, from, to);
    let (before, meanwhile) = (p99(usual, rolling), p99(rolling, rolled));
    println!(
        "{} events; p99 from publish to arrival {before:?}, and {meanwhile:?} in the {:?} in \
         which three replicas were replaced",
        published.len(),
        rolled - rolling,
    );
    assert!(
        meanwhile <= 2 * before + COMPANY + punctuality.worst(),
        "p99 {meanwhile:?}, usually {before:?}"
    );
}

/// When each event was published, and how long it took to arrive. Panics where one did not,
/// or twice.
fn times(published: &[Published], received: &[Received]) -> Vec<(Instant, Duration)> {
    let mut arrivals = HashMap::new();
    for request in received {
        let text = request.text().to_owned();
        assert!(arrivals.insert(text, request.arrival).is_none(), "{} came twice", request.text());
    }
    let time = |one: &Published| {
        let arrival =
            arrivals.get(&payload(&one.id)).unwrap_or_else(|| panic!("{} did not come", one.id));
        (one.at, arrival.saturating_duration_since(one.at))
    };
    published.iter().map(time).collect()
}

/// What 99 of a hundred of those took at most that were published in this stretch.
fn percentile(times: &[(Instant, Duration)], from: Instant, to: Instant) -> Duration {
    let within = times.iter().filter(|(at, _)| (from..to).contains(at));
    let mut took: Vec<Duration> = within.map(|(_, took)| *took).collect();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}
