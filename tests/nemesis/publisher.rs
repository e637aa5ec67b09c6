//! The publishers: real gRPC clients that call every replica, one event or a batch a call,
//! under ids of their own, so that a call whose answer is lost can be made again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use hookward::grpc::pb;
use tokio::task::JoinSet;
use tonic::Code;

use crate::ledger::{CallAnswer, Event, Fate, Known, digest};
use crate::payload::{OCCUR_SECS, payload};
use crate::world::World;

/// Publishers, and the calls that each has under way at once.
const PUBLISHERS: usize = 4;
const CALLS: usize = 6;
/// Organizations that they publish for, from 0.
const BUSY_ORGANIZATIONS: usize = 3;
const BATCH_MAX: usize = 20;
/// One call in so many is not made again after its answer was lost.
const GIVES_UP: usize = 8;
/// A publisher that was held up does not make up for more than this.
const CATCH_UP: Duration = Duration::from_secs(1);
/// After this a replica that does not answer is given up for good: it is a broken promise.
const PATIENCE: Duration = Duration::from_secs(90);

/// Publishes until it is stopped.
pub(crate) struct Publishers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// Events that are ready to be sent, and their numbers in the ledger.
pub(crate) struct Batch {
    pub(crate) organization: usize,
    pub(crate) numbers: Vec<usize>,
    pub(crate) events: Vec<pb::Event>,
}

impl Publishers {
    pub(crate) fn start(world: &Arc<World>, seed: u64, rate: u32) -> Publishers {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let workers = PUBLISHERS * CALLS;
        for worker in 0..workers {
            let (world, stop) = (Arc::clone(world), Arc::clone(&stop));
            let rng = Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(worker as u64));
            let rate = f64::from(rate) / f64::from(u32::try_from(workers).expect("a few"));
            tasks.spawn(publish(world, stop, rng, worker, rate));
        }
        Publishers { stop, tasks }
    }

    /// Waits until every call has its answer or is given up.
    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a publisher does not panic");
        }
    }
}

async fn publish(world: Arc<World>, stop: Arc<AtomicBool>, mut rng: Rng, worker: usize, rate: f64) {
    let mut next = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        if world.holds_publishers() {
            tokio::time::sleep(CATCH_UP / 10).await;
            continue;
        }
        let count = if rng.u8(0..10) < 6 { 1 } else { rng.usize(2..=BATCH_MAX) };
        let organization = rng.usize(0..BUSY_ORGANIZATIONS);
        let drafts = (0..count).map(|_| {
            number += 1;
            let kind = kind(&mut rng);
            let bytes = if rng.u8(0..200) == 0 { 200_000 } else { rng.usize(80..800) };
            (format!("n-{worker}-{number}"), kind.to_owned(), bytes)
        });
        let drafts: Vec<_> = drafts.collect();
        let batch = world.draft(organization, drafts);
        insist(&world, &stop, &mut rng, batch).await;
        next += Duration::from_secs_f64(f64::from(u32::try_from(count).expect("few")) / rate);
        let now = Instant::now();
        next = next.max(now.checked_sub(CATCH_UP).unwrap_or(now));
        tokio::time::sleep_until(next.into()).await;
    }
}

fn kind(rng: &mut Rng) -> &'static str {
    match rng.u8(0..100) {
        0..40 => "visit.created",
        40..70 => "visit.changed",
        70..98 => "invoice.paid",
        _ => "odd.one",
    }
}

/// Makes the call until it is answered OK, at another replica each time; sometimes gives
/// up, as publishers do, so that what became of the events stays unknown.
async fn insist(world: &World, stop: &AtomicBool, rng: &mut Rng, batch: Batch) {
    let begun = Instant::now();
    // Whether a call may have stored something.
    let mut perhaps = false;
    loop {
        let slot = world.choose(rng).await;
        let events = batch.events.clone();
        match world.api.publish(slot, batch.organization, events).await {
            Ok(results) => return world.acknowledged(&batch, slot, &results),
            Err(CallAnswer::Refused(Code::ResourceExhausted)) => {}
            Err(_) => perhaps = true,
        }
        if rng.usize(0..GIVES_UP) == 0 || stop.load(Ordering::SeqCst) {
            if !perhaps {
                batch.numbers.iter().for_each(|number| world.ledger.refuse(*number));
            }
            return;
        }
        if PATIENCE < begun.elapsed() {
            world.ledger.broken(format!("no replica took an event for {PATIENCE:?}"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(20..150))).await;
    }
}

impl World {
    /// Events that exist in the ledger, and not yet anywhere else.
    pub(crate) fn draft(&self, organization: usize, drafts: Vec<(String, String, usize)>) -> Batch {
        let mut batch = Batch { organization, numbers: Vec::new(), events: Vec::new() };
        for (id, kind, bytes) in drafts {
            let json = payload(&id, &kind, bytes);
            batch.numbers.push(self.ledger.register(Event {
                id: id.clone(),
                organization,
                kind: kind.clone(),
                digest: digest(json.as_bytes()),
                fate: Fate::Arrives,
                begun: Instant::now(),
                known: Known::Unknown,
                acknowledged: None,
            }));
            batch.events.push(pb::Event {
                id,
                r#type: kind,
                occur_time: Some(prost_types::Timestamp { seconds: OCCUR_SECS, nanos: 0 }),
                payload: Some(pb::event::Payload::Json(json)),
                ..pb::Event::default()
            });
        }
        batch
    }

    /// Notes an OK, and whether the events go where they must.
    pub(crate) fn acknowledged(&self, batch: &Batch, slot: usize, results: &[pb::PublishResult]) {
        if results.len() != batch.events.len() {
            self.ledger.broken("an answer has not one result for each event");
        }
        let lasting = self.targets.lasting(batch.organization);
        for ((number, event), result) in batch.numbers.iter().zip(&batch.events).zip(results) {
            self.ledger.acknowledge(*number, slot);
            let least = lasting.iter().filter(|target| target.matches(&event.r#type)).count();
            let made = result.delivery_count as usize;
            // Only targets that come and go may be on top.
            if made < least || (made != least && !self.has_passing(batch.organization)) {
                let id = &event.id;
                self.ledger.broken(format!("{id} made {made} deliveries where {least} match"));
            }
        }
    }
}
