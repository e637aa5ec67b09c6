//! Promise: every acknowledged event reaches every matching receiver, whatever becomes of
//! the server in between.
//!
//! Eight clients publish 10,000 events while the server is killed five times. A ledger
//! keeps what was acknowledged; each receiver keeps what came.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::harness::client::{Organization, event_with_id};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{meanwhile, within};
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

on_both_engines!(every_acknowledged_event_survives_five_kills);

const CLIENTS: usize = 8;
const EVENTS: usize = 10_000;
const BATCH: usize = 10;
const KILLS: usize = 5;
const DUPLICATES_A_KILL: usize = 512;
/// For everything together, on a machine that also runs the other tests.
const LONG: Duration = Duration::from_mins(4);

/// What the clients know.
#[derive(Default)]
struct Ledger {
    acknowledged: AtomicUsize,
    /// Publishes whose answer was lost, to show that the kills hit something.
    unknown: AtomicUsize,
    /// Results by event number: how many deliveries the event made.
    results: Mutex<BTreeMap<usize, u32>>,
}

async fn every_acknowledged_event_survives_five_kills(engine: Engine) {
    let mut service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let (all, even) = (Receiver::answering([200]).await, Receiver::answering([200]).await);
    clinic.subscribe(&all, "azodha", "*").await;
    clinic.subscribe(&even, "azodha", "even").await;

    let ledger = Arc::new(Ledger::default());
    let (current, server) = watch::channel(clinic);
    let clients = (0..CLIENTS)
        .map(|client| tokio::spawn(publish_share(client, server.clone(), Arc::clone(&ledger))));
    let clients: Vec<_> = clients.collect();
    for kill in 1..=KILLS {
        let reached = EVENTS * kill / (KILLS + 1);
        within(LONG, "the clients to get on", async || {
            (reached <= ledger.acknowledged.load(Ordering::SeqCst)).then_some(())
        })
        .await;
        service.kill();
        service.restart().await;
        current.send_replace(service.organization("clinic"));
    }
    for client in clients {
        client.await.expect("it does not panic");
    }

    assert_eq!(ledger.acknowledged.load(Ordering::SeqCst), EVENTS);
    assert!(0 < ledger.unknown.load(Ordering::SeqCst), "no kill hit a publish");
    let results = ledger.results.lock().expect("nobody panics while holding it").clone();
    for (number, deliveries) in &results {
        assert_eq!(*deliveries, 1 + u32::from(number.is_multiple_of(2)), "event {number}");
    }
    expect_all(&all, |_| true).await;
    expect_all(&even, |number| number.is_multiple_of(2)).await;
}

/// Publishes every eighth batch, each until it is acknowledged.
async fn publish_share(
    client: usize,
    mut server: watch::Receiver<Organization>,
    ledger: Arc<Ledger>,
) {
    for batch in (client..EVENTS / BATCH).step_by(CLIENTS) {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let events = numbers.clone().map(|number| {
            let event_type = if number.is_multiple_of(2) { "even" } else { "odd" };
            event_with_id(&format!("n-{number}"), event_type, &format!(r#"{{"n":{number}}}"#))
        });
        let events: Vec<_> = events.collect();
        let results = loop {
            let clinic = server.borrow_and_update().clone();
            match clinic.try_publish(events.clone()).await {
                Ok(results) => break results,
                Err(status) => {
                    assert!(is_retryable(&status), "{status:?}");
                    ledger.unknown.fetch_add(1, Ordering::SeqCst);
                    meanwhile(Duration::from_millis(20)).await;
                }
            }
        };
        let mut known = ledger.results.lock().expect("nobody panics while holding it");
        known.extend(numbers.zip(results.iter().map(|result| result.delivery_count)));
        ledger.acknowledged.fetch_add(results.len(), Ordering::SeqCst);
    }
}

/// What a client may see of a server that dies: nothing is known.
fn is_retryable(status: &tonic::Status) -> bool {
    use tonic::Code::{Cancelled, Internal, ResourceExhausted, Unavailable, Unknown};
    // tonic's client says Unknown, Cancelled or Internal for a broken connection,
    // depending on where in a call it broke.
    matches!(status.code(), Unavailable | Unknown | Cancelled | Internal | ResourceExhausted)
}

/// Waits until a receiver has everything that it should have.
async fn expect_all(receiver: &Receiver, matches: impl Fn(usize) -> bool) {
    let expected = (0..EVENTS).filter(|number| matches(*number)).count();
    let arrivals = within(LONG, "every event", async || {
        let arrivals = arrivals(receiver);
        (arrivals.len() == expected).then_some(arrivals)
    })
    .await;
    assert!(arrivals.keys().all(|number| matches(*number)), "none that does not match");
    let duplicates: usize = arrivals.values().map(|count| count - 1).sum();
    // What was sent and not settled at each kill: 16 at once, for as long as one commit
    // of settlements takes.
    assert!(duplicates <= KILLS * DUPLICATES_A_KILL, "{duplicates} duplicates");
}

/// How often each event came.
fn arrivals(receiver: &Receiver) -> BTreeMap<usize, usize> {
    let mut arrivals = BTreeMap::new();
    for request in receiver.requests() {
        let number = request.json()["n"].as_u64().expect("a number");
        let number = usize::try_from(number).expect("a small number");
        *arrivals.entry(number).or_insert(0) += 1;
    }
    arrivals
}
