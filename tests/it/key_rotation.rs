//! Promise: the key-encryption key is changed as `docs/OPERATIONS.md` tells it, step by
//! step, while 500 events a second are published; every delivery succeeds at its first
//! attempt, and in the end nothing needs the old key.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::delivery::State;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::harness::caller::hookward;
use crate::harness::client::{Organization, Subscribed, draft, event_with_id};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{PATIENCE, eventually, meanwhile};
use crate::harness::keys::{self, NEW, OLD, VARIABLE};
use crate::harness::receiver::Receiver;
use crate::harness::service::{Service, Settings};
use crate::harness::signature::standard_accepts;

on_both_engines!(a_key_is_changed_under_500_events_a_second);

/// More data keys than are wrapped anew in one transaction.
const ORGANIZATIONS: usize = 220;
const PER_SECOND: usize = 500;
/// Four times ten events in 80 ms are 500 a second.
const PUBLISHERS: usize = 4;
const REQUEST: usize = 10;
const RHYTHM: Duration = Duration::from_millis(80);
/// What is published between one step and the next at least: two seconds' worth.
const BETWEEN: usize = 2 * PER_SECOND;

async fn a_key_is_changed_under_500_events_a_second(engine: Engine) {
    let receiver = Receiver::answering([200]).await;
    let subscriptions = store_before_there_are_keys(&engine, &receiver).await;
    let mut servers = Servers::start(&engine, OLD).await;
    // What waits here is read from the database in the end.
    let held = &subscriptions[0].id;
    servers.organization(0).pause(held).await.expect("it is active");
    let flow = Flow::start(&servers.doors);

    // What was stored before there were keys, so that every organization has a data key.
    let said = rotate(&engine, OLD);
    assert!(said.starts_with("everything is under old: 0 data keys wrapped anew, "), "{said}");
    assert!(!said.ends_with(" 0 plaintext values encrypted"), "{said}");
    flow.goes_on().await;

    servers.restart_with(&keys::both("old")).await;
    flow.goes_on().await;
    servers.restart_with(&keys::both("new")).await;
    flow.goes_on().await;
    let before = flow.published();
    let said = rotate(&engine, &keys::both("new"));
    assert_eq!(said, under_new(ORGANIZATIONS));
    assert!(before < flow.published(), "events were published meanwhile");
    flow.goes_on().await;
    servers.restart_with(NEW).await;
    flow.goes_on().await;
    assert_eq!(rotate(&engine, NEW), under_new(0), "nothing was left");

    servers.organization(0).resume(held).await.expect("it is paused");
    let expected = ORGANIZATIONS + flow.end().await;
    each_came_once_and_signed(&receiver, &subscriptions, expected).await;
    each_succeeded_at_once(&servers, expected).await;
    servers.stop().await;
}

/// A subscription and an event of each organization, all of it plaintext.
async fn store_before_there_are_keys(engine: &Engine, receiver: &Receiver) -> Vec<Subscribed> {
    let plain = Service::start(engine.clone()).await;
    let mut subscriptions = Vec::new();
    for number in 0..ORGANIZATIONS {
        let clinic = plain.organization(&name(number));
        let url = receiver.url_at(&format!("/{number}"));
        let subscription = pb::Subscription { url, ..draft(receiver, "standard", "*") };
        subscriptions.push(clinic.create(subscription).await);
        clinic.publish("bird", r#"{"name":"Robin"}"#).await;
    }
    receiver.received(ORGANIZATIONS).await;
    stop(plain).await;
    subscriptions
}

fn name(organization: usize) -> String {
    format!("clinic-{organization}")
}

/// What `hookward keys rotate` says with these keys.
fn rotate(engine: &Engine, keys: &str) -> String {
    hookward(engine, &["keys", "rotate", "--encryption-keys", keys])
}

fn under_new(data_keys: usize) -> String {
    format!(
        "everything is under new: {data_keys} data keys wrapped anew, 0 plaintext values encrypted"
    )
}

/// Ends a server in good order, which has not once failed by its own fault.
async fn stop(mut service: Service) {
    service.terminate();
    assert!(service.ends().await.success());
    let written = service.written();
    let errors: Vec<&str> = written.lines().filter(|line| line.contains(" ERROR ")).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// Nothing is lost, sent twice, or signed with anything but its subscription's secret.
async fn each_came_once_and_signed(
    receiver: &Receiver,
    subscriptions: &[Subscribed],
    expected: usize,
) {
    let requests = receiver.received(expected).await;
    let deliveries: BTreeSet<_> =
        requests.iter().filter_map(|request| request.header("webhook-id")).collect();
    assert_eq!((requests.len(), deliveries.len()), (expected, expected), "each once");
    for request in &requests {
        let number: usize = request.target.trim_start_matches('/').parse().expect("a number");
        assert!(standard_accepts(&subscriptions[number].secret, request), "{}", request.target);
    }
}

async fn each_succeeded_at_once(servers: &Servers, expected: usize) {
    let mut count = 0;
    for number in 0..ORGANIZATIONS {
        let clinic = servers.organization(number);
        let deliveries = eventually("the outcome of every delivery", async || {
            let filter = pb::ListDeliveriesRequest { page_size: 1000, ..Default::default() };
            let deliveries = clinic.list(filter).await;
            let open =
                |one: &pb::Delivery| [State::Pending, State::InFlight].contains(&one.state());
            (!deliveries.iter().any(open)).then_some(deliveries)
        })
        .await;
        count += deliveries.len();
        let failed: Vec<_> = deliveries
            .into_iter()
            .filter(|one| one.state() != State::Succeeded || one.attempt_count != 1)
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
    assert_eq!(count, expected);
}

/// The servers of one database: two on PostgreSQL, on SQLite the one that can be.
struct Servers {
    engine: Engine,
    running: Vec<Service>,
    doors: Doors,
}

/// Connections to the servers that run, for publishers to choose from.
type Doors = Arc<Mutex<Vec<Channel>>>;

impl Servers {
    async fn start(engine: &Engine, keys: &str) -> Servers {
        let (engine, running, doors) = (engine.clone(), Vec::new(), Doors::default());
        let count = if engine.url().starts_with("postgres") { 2 } else { 1 };
        let mut servers = Servers { engine, running, doors };
        for _ in 0..count {
            servers.add(keys).await;
        }
        servers
    }

    fn organization(&self, number: usize) -> Organization {
        self.running[0].organization(&name(number))
    }

    /// One after the other. Publishers are not told before: they find the door closed.
    async fn restart_with(&mut self, keys: &str) {
        for _ in 0..self.running.len() {
            stop(self.running.remove(0)).await;
            self.tell();
            self.add(keys).await;
        }
    }

    async fn add(&mut self, keys: &str) {
        let settings = Settings::new(self.engine.clone());
        self.running.push(settings.env(VARIABLE, keys).start().await);
        self.tell();
    }

    fn tell(&self) {
        let doors = self.running.iter().map(Service::channel).collect();
        *self.doors.lock().expect("nobody panics while holding it") = doors;
    }

    async fn stop(self) {
        for service in self.running {
            stop(service).await;
        }
    }
}

/// Publishers of 500 events a second, for every organization in turn.
struct Flow {
    began: Instant,
    published: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    publishers: Vec<JoinHandle<()>>,
}

impl Flow {
    fn start(doors: &Doors) -> Flow {
        let (published, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let publishers = (0..PUBLISHERS).map(|first| {
            let (published, over) = (Arc::clone(&published), Arc::clone(&over));
            tokio::spawn(publish(first, Arc::clone(doors), published, over))
        });
        let publishers = publishers.collect();
        Flow { began: Instant::now(), published, over, publishers }
    }

    /// Events that were answered with OK so far.
    fn published(&self) -> usize {
        self.published.load(Ordering::SeqCst)
    }

    /// Waits for the events between two steps.
    async fn goes_on(&self) {
        let wanted = self.published() + BETWEEN;
        eventually("more events", async || (wanted <= self.published()).then_some(())).await;
    }

    /// Ends it once it has made up for every pause; how many events there were.
    async fn end(self) -> usize {
        eventually("500 events a second from the beginning to now", async || {
            let millis = usize::try_from(self.began.elapsed().as_millis()).expect("not so long");
            // At most a second behind.
            (PER_SECOND * millis / 1000 <= self.published() + PER_SECOND).then_some(())
        })
        .await;
        self.over.store(true, Ordering::SeqCst);
        for publisher in self.publishers {
            publisher.await.expect("it does not panic");
        }
        self.published.load(Ordering::SeqCst)
    }
}

/// Publishes ten events at each tick, for every fourth organization in turn, until it is
/// over. Ticks that were missed are made up for.
async fn publish(first: usize, doors: Doors, published: Arc<AtomicUsize>, over: Arc<AtomicBool>) {
    let mut rhythm = tokio::time::interval(RHYTHM);
    for number in (first..).step_by(PUBLISHERS) {
        rhythm.tick().await;
        if over.load(Ordering::SeqCst) {
            return;
        }
        let events = (0..REQUEST).map(|place| {
            event_with_id(&format!("{number}-{place}"), "bird", r#"{"name":"Robin"}"#)
        });
        insist(&doors, number, events.collect()).await;
        published.fetch_add(REQUEST, Ordering::SeqCst);
    }
}

/// Publishes until a server has answered with OK, as publishers should: by their ids the
/// events are stored once.
async fn insist(doors: &Doors, number: usize, events: Vec<pb::Event>) {
    let begun = Instant::now();
    let mut refused = None;
    for turn in number.. {
        let door = {
            let doors = doors.lock().expect("nobody panics while holding it");
            doors.get(turn % doors.len().max(1)).cloned()
        };
        if let Some(door) = door {
            let clinic = Organization::new(&name(number % ORGANIZATIONS), door, Arc::default());
            match clinic.try_publish(events.clone()).await {
                Ok(_) => return,
                Err(status) => refused = Some(status),
            }
        }
        assert!(begun.elapsed() < PATIENCE, "no server takes events: {refused:?}");
        meanwhile(Duration::from_millis(10)).await;
    }
}
