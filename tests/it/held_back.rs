//! Promise: what a pause holds back costs nothing while it is held, however much it is.
//! On resume it is sent oldest first, at the rate that its receiver allows, and nobody
//! else notices.
//!
//! `HOOKWARD_TEST_HELD` says how many deliveries are held; see CONTRIBUTING.md.

use std::cell::Cell;
use std::time::{Duration, Instant};

use hookward::grpc::pb;

use crate::harness::admin;
use crate::harness::client::{Organization, draft, event};
use crate::harness::engine::Engine;
use crate::harness::eventually::{eventually, meanwhile, within};
use crate::harness::postgres::Cluster;
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

const BATCH: usize = 500;
/// Requests to the receiver at once.
const IN_FLIGHT: u32 = 16;
/// How far nearly every delivery may be from its place in the line: requests that are
/// under way together arrive in any order, and now and then one is held up on its way.
const OUT_OF_PLACE: usize = 128;
/// For everything together.
const LONG: Duration = Duration::from_mins(30);
const MEMORY_KIB: u64 = 512 * 1024;

fn held() -> usize {
    match std::env::var("HOOKWARD_TEST_HELD") {
        Ok(count) => count.parse().expect("HOOKWARD_TEST_HELD is a number"),
        Err(_) => 50_000,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_waits_and_drains_on_sqlite() {
    a_backlog_waits_and_drains(Engine::sqlite(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_waits_and_drains_on_postgresql() {
    let Some(cluster) = Cluster::own("") else { return };
    a_backlog_waits_and_drains(Engine::postgres_on(&cluster), Some(&cluster)).await;
}

async fn a_backlog_waits_and_drains(engine: Engine, cluster: Option<&Cluster>) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let (slow, other) = (Receiver::answering([200]).await, Receiver::answering([200]).await);
    let paused = pb::Subscription { max_in_flight: IN_FLIGHT, ..draft(&slow, "azodha", "held") };
    let paused = clinic.create(paused).await;
    clinic.subscribe(&other, "azodha", "fresh").await;
    let before = fresh_for(&clinic, &other, Duration::from_secs(3)).await;

    clinic.pause(&paused.id).await.expect("it is active");
    let count = held();
    let begun = Instant::now();
    for first in (0..count).step_by(BATCH) {
        hold(&clinic, first..count.min(first + BATCH)).await;
    }
    let filled = begun.elapsed();
    let touched = cluster.map(touched);
    let claims = claims(&service).await;
    let during = fresh_for(&clinic, &other, Duration::from_secs(3)).await;
    if let (Some(cluster), Some(was)) = (cluster, touched) {
        let now = self::touched(cluster);
        assert!(now - was < 1000, "{} rows were read or written while held", now - was);
    }
    assert_eq!(self::claims(&service).await, claims, "nothing was claimed");

    let resumed = Instant::now();
    clinic.resume(&paused.id).await.expect("it is paused");
    let drained = Cell::new(None);
    let draining = async {
        within(LONG, "everything to be sent", async || (count <= slow.count()).then_some(())).await;
        drained.set(Some(resumed.elapsed()));
    };
    let beside = fresh_while(&clinic, &other, || drained.get().is_none());
    let ((), beside) = tokio::join!(draining, beside);
    let drain = drained.get().expect("it is drained");

    let (mut seen, mut moved) = (vec![false; count], Vec::with_capacity(count));
    for (place, request) in slow.requests().iter().enumerate() {
        let number = request.json()["n"].as_u64().expect("a number");
        let number = usize::try_from(number).expect("a small number");
        assert!(!std::mem::replace(&mut seen[number], true), "{number} came twice");
        moved.push(place.abs_diff(number));
    }
    moved.sort_unstable();
    let moved = moved[count * 999 / 1000];
    assert!(moved <= OUT_OF_PLACE, "one in a thousand is {moved} places off");
    let memory = service.peak_memory_kib();
    println!(
        "held {count}: filled in {filled:?}, drained in {drain:?}; fresh p50/p90/p99 before \
         {before:?}, while held {during:?}, while drained {beside:?}; {} MiB",
        memory / 1024
    );
    assert!(memory <= MEMORY_KIB, "{memory} KiB");
    for (when, now) in [("while held", during), ("while drained", beside)] {
        let limit = Duration::from_millis(250).max(5 * before[1]);
        assert!(now[1] <= limit, "{now:?} {when}, {before:?} before");
    }
}

/// Publishes numbered events for the subscription that is paused, until they are stored.
async fn hold(clinic: &Organization, numbers: std::ops::Range<usize>) {
    let events = numbers.map(|number| event("held", &format!(r#"{{"n":{number}}}"#)));
    let events: Vec<_> = events.collect();
    eventually("a batch to be stored", async || clinic.try_publish(events.clone()).await.ok())
        .await;
}

async fn fresh_for(clinic: &Organization, other: &Receiver, span: Duration) -> [Duration; 3] {
    let begun = Instant::now();
    fresh_while(clinic, other, || begun.elapsed() < span).await
}

/// Publishes one event after the other, and how long each took from its publish to its
/// arrival: the half, nine tenths, and all but a hundredth of them.
async fn fresh_while(
    clinic: &Organization,
    other: &Receiver,
    goes_on: impl Fn() -> bool,
) -> [Duration; 3] {
    let mut took = Vec::new();
    while goes_on() {
        let (begun, known) = (Instant::now(), other.count());
        clinic.publish("fresh", "{}").await;
        let arrived = eventually("its arrival", async || other.request(known)).await.arrival;
        took.push(arrived - begun);
        meanwhile(Duration::from_millis(10)).await;
    }
    took.sort_unstable();
    [took.len() / 2, took.len() * 9 / 10, took.len() * 99 / 100].map(|place| took[place])
}

/// Rows of `due` that were read or written since the cluster was made.
fn touched(cluster: &Cluster) -> i64 {
    let sql = "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) + n_tup_upd
            + n_tup_del) FROM pg_stat_user_tables WHERE relname = 'due'";
    cluster.sql("hookward", sql).trim().parse().expect("a number")
}

/// Deliveries that were claimed from `due`.
async fn claims(service: &Service) -> String {
    let (_, page) = admin::get(service.admin_address(), "/metrics").await.expect("it answers");
    let line = page.lines().find(|line| line.starts_with("hookward_deliveries_claimed_total"));
    line.unwrap_or_default().to_owned()
}
