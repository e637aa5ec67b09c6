//! Promise: replicas are replaced one after the other while 500 events a second are
//! published, and nobody notices: nothing is lost, nothing comes twice, nothing waits.
//!
//! A program of its own, for `cargo test` runs one after the other: milliseconds are measured
//! here, and other tests would take them from it.

#[path = "harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "the other tests use more of it")]
mod harness;

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::harness::engine::Engine;
use crate::harness::fleet::{Fleet, Flow, PER_SECOND, Published, name, payload};
use crate::harness::postgres::Cluster;
use crate::harness::receiver::Receiver;
use crate::harness::service::Settings;
use crate::harness::wire::Received;

const REPLICAS: usize = 3;
const ORGANIZATIONS: usize = 4;
/// What is published before anything is measured.
const BEFORE: usize = 2 * PER_SECOND;
/// What the chart sets replicas to, among other things.
const VALUES: &str = include_str!("../helm/hookward/values.yaml");
/// Files of the write-ahead log, more than the test writes.
const LOG_FILES: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_three_replicas_are_replaced() {
    let Some(cluster) = Cluster::own("min_wal_size = '512MB'\n") else { return };
    settle_in(&cluster);
    let receiver = Receiver::answering([200]).await;
    let settings = Settings::new(Engine::postgres_on(&cluster));
    let mut fleet = Fleet::start(&settings, REPLICAS).await;
    for number in 0..ORGANIZATIONS {
        fleet.organization(&name(number)).subscribe(&receiver, "azodha", "*").await;
    }
    let flow = Flow::start(&fleet, ORGANIZATIONS);
    flow.goes_on(BEFORE).await;

    let between = min_ready_seconds() * PER_SECOND;
    let usual = Instant::now();
    for _ in 0..REPLICAS {
        flow.goes_on(between).await;
    }
    let rolling = Instant::now();
    for _ in 0..REPLICAS {
        fleet.replace(&settings).await;
        flow.goes_on(between).await;
    }
    let rolled = Instant::now();

    let published = flow.end().await;
    let arrived = receiver.received(published.len()).await;
    fleet.stop().await;
    let times = times(&published, &arrived);
    assert_eq!(receiver.count(), published.len(), "each came once");
    let (before, meanwhile) = (p99(&times, usual..rolling), p99(&times, rolling..rolled));
    println!(
        "{} events; p99 from publish to arrival {before:?}, and {meanwhile:?} in the {:?} in \
         which three replicas were replaced",
        published.len(),
        rolled - rolling,
    );
    assert!(meanwhile <= 2 * before, "p99 {meanwhile:?}, usually {before:?}");
}

/// How long the chart lets pass between one replica and the next.
fn min_ready_seconds() -> usize {
    let seconds = VALUES.lines().find_map(|line| line.strip_prefix("minReadySeconds: "));
    seconds.expect("the chart says it").parse().expect("a number")
}

/// Makes a cluster as one that has run for a while, and uses the files of its write-ahead log
/// again and again. A new one makes them as it goes, and stands still for as long as it takes
/// to write sixteen megabytes of zeroes.
fn settle_in(cluster: &Cluster) {
    let fill = format!(
        "SELECT pg_logical_emit_message(false, '', ''), pg_switch_wal()
         FROM generate_series(1, {LOG_FILES})"
    );
    cluster.sql("postgres", &fill);
    cluster.sql("postgres", "CHECKPOINT");
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
fn p99(times: &[(Instant, Duration)], stretch: Range<Instant>) -> Duration {
    let within = times.iter().filter(|(at, _)| stretch.contains(at));
    let mut took: Vec<Duration> = within.map(|(_, took)| *took).collect();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}
