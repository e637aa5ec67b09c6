//! Several servers on one database, and publishers who go on while they are replaced.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::client::{Organization, event_with_id};
use super::eventually::{PATIENCE, eventually, meanwhile};
use super::service::{Service, Settings};

/// Events that a [`Flow`] publishes a second.
pub(crate) const PER_SECOND: usize = 500;
/// Four times ten events in 80 ms are 500 a second.
const PUBLISHERS: usize = 4;
const REQUEST: usize = 10;
/// Servers that are tried without a pause.
const DOORS: usize = 3;
const RHYTHM: Duration = Duration::from_millis(80);

/// Connections to the servers that run, for publishers to choose from.
type Doors = Arc<Mutex<Vec<Channel>>>;

/// The servers of one database.
pub(crate) struct Fleet {
    running: Vec<Service>,
    doors: Doors,
}

impl Fleet {
    pub(crate) async fn start(settings: &Settings, count: usize) -> Fleet {
        let mut fleet = Fleet { running: Vec::new(), doors: Doors::default() };
        for _ in 0..count {
            fleet.add(settings).await;
        }
        fleet
    }

    /// The words of one organization's caller, at one of them.
    pub(crate) fn organization(&self, name: &str) -> Organization {
        self.running[0].organization(name)
    }

    /// One after the other ends and starts again. Publishers are not told before: they find
    /// the door closed.
    pub(crate) async fn restart_with(&mut self, settings: &Settings) {
        for _ in 0..self.running.len() {
            stop(self.running.remove(0)).await;
            self.tell();
            self.add(settings).await;
        }
    }

    /// The one that runs the longest is replaced, as by a Deployment with `maxUnavailable: 0`:
    /// the new one serves before the old one is asked to end. Nobody is told before of that,
    /// either.
    pub(crate) async fn replace(&mut self, settings: &Settings) {
        self.add(settings).await;
        stop(self.running.remove(0)).await;
        self.tell();
    }

    pub(crate) async fn stop(self) {
        for service in self.running {
            stop(service).await;
        }
    }

    async fn add(&mut self, settings: &Settings) {
        self.running.push(settings.clone().start().await);
        self.tell();
    }

    fn tell(&self) {
        let doors = self.running.iter().map(Service::channel).collect();
        *self.doors.lock().expect("nobody panics while holding it") = doors;
    }
}

/// Ends a server in good order, which has not once failed by its own fault.
pub(crate) async fn stop(mut service: Service) {
    service.terminate();
    assert!(service.ends().await.success());
    let written = service.written();
    let errors: Vec<&str> = written.lines().filter(|line| line.contains(" ERROR ")).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// An organization of a [`Flow`], by its number.
pub(crate) fn name(organization: usize) -> String {
    format!("clinic-{organization}")
}

/// What an event carries.
pub(crate) fn payload(id: &str) -> String {
    format!(r#"{{"n":"{id}"}}"#)
}

/// Publishers of 500 events a second, for every organization in turn.
pub(crate) struct Flow {
    began: Instant,
    acknowledged: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    publishers: Vec<JoinHandle<Vec<Published>>>,
}

/// An event that was answered with OK.
#[allow(dead_code, reason = "not every program of tests looks into it")]
pub(crate) struct Published {
    pub(crate) id: String,
    /// When it was first tried.
    pub(crate) at: Instant,
}

impl Flow {
    pub(crate) fn start(fleet: &Fleet, organizations: usize) -> Flow {
        let (acknowledged, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let publisher = |first| Publisher {
            first,
            organizations,
            doors: Arc::clone(&fleet.doors),
            acknowledged: Arc::clone(&acknowledged),
            over: Arc::clone(&over),
        };
        let publishers = (0..PUBLISHERS).map(|first| tokio::spawn(publisher(first).publish()));
        let publishers = publishers.collect();
        Flow { began: Instant::now(), acknowledged, over, publishers }
    }

    /// Events that were answered with OK so far.
    pub(crate) fn published(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits for so many events more.
    pub(crate) async fn goes_on(&self, more: usize) {
        let wanted = self.published() + more;
        eventually("more events", async || (wanted <= self.published()).then_some(())).await;
    }

    /// Ends it once it has made up for every pause; all that was published.
    pub(crate) async fn end(self) -> Vec<Published> {
        eventually("500 events a second from the beginning to now", async || {
            let millis = usize::try_from(self.began.elapsed().as_millis()).expect("not so long");
            // At most a second behind.
            (PER_SECOND * millis / 1000 <= self.published() + PER_SECOND).then_some(())
        })
        .await;
        self.over.store(true, Ordering::SeqCst);
        let mut published = Vec::new();
        for publisher in self.publishers {
            published.extend(publisher.await.expect("it does not panic"));
        }
        published
    }
}

struct Publisher {
    first: usize,
    organizations: usize,
    doors: Doors,
    acknowledged: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Publisher {
    /// Publishes ten events at each tick, for every fourth organization in turn, until it is
    /// over. Ticks that were missed are made up for.
    async fn publish(self) -> Vec<Published> {
        let mut published = Vec::new();
        let mut rhythm = tokio::time::interval(RHYTHM);
        for number in (self.first..).step_by(PUBLISHERS) {
            rhythm.tick().await;
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            let at = Instant::now();
            let ids = (0..REQUEST).map(|place| format!("{number}-{place}"));
            let ids: Vec<String> = ids.collect();
            let event = |id: &String| event_with_id(id, "bird", &payload(id));
            self.insist(number, ids.iter().map(event).collect()).await;
            self.acknowledged.fetch_add(REQUEST, Ordering::SeqCst);
            published.extend(ids.into_iter().map(|id| Published { id, at }));
        }
        published
    }

    /// Publishes until a server has answered with OK, as publishers should: by their ids the
    /// events are stored once.
    async fn insist(&self, number: usize, events: Vec<pb::Event>) {
        let begun = Instant::now();
        let mut refused = None;
        for turn in number.. {
            let door = {
                let doors = self.doors.lock().expect("nobody panics while holding it");
                doors.get(turn % doors.len().max(1)).cloned()
            };
            if let Some(door) = door {
                let name = name(number % self.organizations);
                let clinic = Organization::new(&name, door, Arc::default());
                match clinic.try_publish(events.clone()).await {
                    Ok(_) => return,
                    Err(status) => refused = Some(status),
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no server takes events: {refused:?}");
            // At the next door at once; a pause is for when none has opened.
            if (turn - number + 1).is_multiple_of(DOORS) {
                meanwhile(Duration::from_millis(10)).await;
            }
        }
    }
}
