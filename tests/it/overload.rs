//! Promise: whoever publishes more than can be stored is told so at once, and what is
//! accepted is acknowledged as soon as ever.
//!
//! The database is made slow in a way that costs no CPU (`commit_delay`), so that it and
//! not this machine is what is overloaded. Everything is compared within one run.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::client::{Organization, event};
use crate::harness::engine::Engine;
use crate::harness::eventually::{meanwhile, within};
use crate::harness::postgres::Cluster;
use crate::harness::service::Settings;

/// Events of one request.
const EVENTS: usize = 8;
/// Requests under way at once that the store is just busy with.
const BUSY: usize = 7;
const PHASE: Duration = Duration::from_secs(3);
const ACKNOWLEDGED: Duration = Duration::from_millis(250);
const REFUSED: Duration = Duration::from_millis(20);
const MEMORY_KIB: u64 = 512 * 1024;

/// What the publishers of one phase saw.
#[derive(Default)]
struct Seen {
    accepted: Vec<Duration>,
    refused: Vec<Duration>,
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_work_keeps_its_latency_and_the_rest_is_refused_at_once() {
    let slow = "commit_delay = 40000\ncommit_siblings = 0\n";
    let Some(cluster) = Cluster::own(slow) else { return };
    let settings = Settings::new(Engine::postgres_on(&cluster));
    let service = settings.flag("--publish-queue-events", "64").start().await;
    let clinic = service.organization("clinic");

    let busy = keep_busy(&clinic).await;
    let peak = rate(&busy);
    let acknowledged = ACKNOWLEDGED.max(2 * quantile(&busy.accepted, 0.99));
    for times in [2.0, 10.0] {
        let seen = offer(&clinic, times * peak).await;
        assert!(!seen.refused.is_empty(), "{times} times what can be stored");
        let slowest = quantile(&seen.accepted, 0.99);
        assert!(slowest <= acknowledged, "acknowledged after {slowest:?} at {times}");
        let refused = quantile(&seen.refused, 0.9);
        assert!(refused <= REFUSED, "refused after {refused:?} at {times}");
        let goodput = rate(&seen) / peak;
        assert!(0.9 <= goodput, "{goodput} of what can be stored, at {times}");
    }

    // Normal again: nobody is refused, for as long as a phase took.
    let over = Instant::now();
    within(Duration::from_secs(10), "a second without a refusal", async || {
        let calm = Instant::now();
        while calm.elapsed() < Duration::from_secs(1) {
            clinic.try_publish(request()).await.ok()?;
        }
        Some(())
    })
    .await;
    assert!(over.elapsed() <= Duration::from_secs(11));
    let memory = service.peak_memory_kib();
    assert!(memory <= MEMORY_KIB, "{memory} KiB");
}

/// Events a second that were stored.
fn rate(seen: &Seen) -> f64 {
    let events = u32::try_from(seen.accepted.len() * EVENTS).expect("few");
    f64::from(events) / PHASE.as_secs_f64()
}

fn request() -> Vec<hookward::grpc::pb::Event> {
    (0..EVENTS).map(|_| event("noted", r#"{"room":4}"#)).collect()
}

/// As many publishers as the store can bear, each with one request at a time.
async fn keep_busy(clinic: &Organization) -> Seen {
    let end = Instant::now() + PHASE;
    let publishers = (0..BUSY).map(|_| {
        let clinic = clinic.clone();
        tokio::spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                clinic.try_publish(request()).await.expect("there is room");
                took.push(begun.elapsed());
            }
            took
        })
    });
    let publishers: Vec<_> = publishers.collect();
    let mut seen = Seen::default();
    for publisher in publishers {
        seen.accepted.extend(publisher.await.expect("it does not panic"));
    }
    seen
}

/// So many events a second, whatever becomes of them.
async fn offer(clinic: &Organization, events: f64) -> Seen {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (begun, mut offered) = (Instant::now(), 0.0);
    let mut under_way = Vec::new();
    while begun.elapsed() < PHASE {
        meanwhile(Duration::from_millis(5)).await;
        let each = f64::from(u32::try_from(EVENTS).expect("few"));
        while offered + each <= begun.elapsed().as_secs_f64() * events {
            offered += each;
            under_way.push(tokio::spawn(publish(clinic.clone(), Arc::clone(&seen))));
        }
    }
    for one in under_way {
        one.await.expect("it does not panic");
    }
    let mut seen = seen.lock().expect("nobody panics while holding it");
    std::mem::take(&mut *seen)
}

async fn publish(clinic: Organization, seen: Arc<Mutex<Seen>>) {
    let begun = Instant::now();
    let answer = clinic.try_publish(request()).await;
    let took = begun.elapsed();
    let mut seen = seen.lock().expect("nobody panics while holding it");
    match answer {
        Ok(_) => seen.accepted.push(took),
        Err(refused) => {
            assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
            let retry = refused.get_details_retry_info().expect("a wait");
            assert!(retry.retry_delay.is_some());
            seen.refused.push(took);
        }
    }
}

fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a place in a list of thousands"
    )]
    let place = (times.len() as f64 * share) as usize;
    times[place.min(times.len() - 1)]
}
