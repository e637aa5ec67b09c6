//! Promise: an organization whose receivers hang takes no more than its share, and the
//! others do not notice.

use std::time::{Duration, Instant};

use hookward::grpc::pb;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::client::{Organization, draft, duration, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::meanwhile;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

on_both_engines!(a_hundred_hanging_receivers_take_their_share_and_no_more);

/// Permits of one organization, and of all.
const ORGANIZATION: u32 = 40;
const REPLICA: u32 = 60;
/// Permits of the endpoint that is watched.
const HEALTHY: u32 = 4;
/// Time between two healthy events.
const BEAT: Duration = Duration::from_millis(10);
const SPAN: Duration = Duration::from_secs(3);

/// From a publish to the arrival of its request.
struct Delays(Vec<Duration>);

impl Delays {
    /// The delay that this part of all, in per cent, is not longer than.
    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

/// Publishes to a healthy receiver for a while.
async fn measure(organization: &Organization, receiver: &Receiver) -> Delays {
    let (begin, before) = (Instant::now(), receiver.count());
    let mut published = Vec::new();
    while begin.elapsed() < SPAN {
        published.push(Instant::now());
        organization.publish("healthy", &format!(r#"{{"n":{}}}"#, published.len() - 1)).await;
        meanwhile(BEAT).await;
    }
    let requests = receiver.received(before + published.len()).await;
    let delay = |request: &crate::harness::wire::Received| {
        let number = request.json()["n"].as_u64().expect("a number");
        request.arrival - published[usize::try_from(number).expect("64 bits")]
    };
    let mut delays: Vec<_> = requests[before..].iter().map(delay).collect();
    delays.sort_unstable();
    Delays(delays)
}

/// Publishes 200 events a second, two for each of a hundred receivers.
fn make_noise(organization: &Organization, stop: &CancellationToken) -> JoinHandle<()> {
    let (organization, stop) = (organization.clone(), stop.clone());
    tokio::spawn(async move {
        let mut turn = 0;
        while !stop.is_cancelled() {
            let events = (0..10).map(|number| event(&format!("noise.{}", turn + number), "{}"));
            organization.try_publish(events.collect()).await.expect("it keeps the rules");
            turn = (turn + 10) % 100;
            meanwhile(Duration::from_millis(50)).await;
        }
    })
}

/// The requests under way, looked at again and again.
fn watch(service: &Service, stop: &CancellationToken) -> JoinHandle<Vec<f64>> {
    let (address, stop) = (service.admin_address(), stop.clone());
    tokio::spawn(async move {
        let mut seen = Vec::new();
        while !stop.is_cancelled() {
            let level = crate::harness::admin::metric(address, "hookward_attempts_in_flight").await;
            seen.push(level.expect("it is on the page"));
            meanwhile(Duration::from_millis(20)).await;
        }
        seen
    })
}

async fn a_hundred_hanging_receivers_take_their_share_and_no_more(engine: Engine) {
    let service = Settings::new(engine)
        .flag("--max-in-flight-organization", &ORGANIZATION.to_string())
        .flag("--max-in-flight-replica", &REPLICA.to_string())
        .start()
        .await;
    let (bad, good) = (service.organization("bad"), service.organization("good"));
    let hanging = Receiver::answering([Answer::Hang]).await;
    for number in 0..100 {
        let subscription = pb::Subscription {
            attempt_timeout: Some(duration(Duration::from_secs(1))),
            ..draft(&hanging, "azodha", &format!("noise.{number}"))
        };
        bad.create(subscription).await;
    }
    let healthy = Receiver::answering([200]).await;
    let subscription =
        pb::Subscription { max_in_flight: HEALTHY, ..draft(&healthy, "azodha", "*") };
    good.create(subscription).await;

    let quiet = measure(&good, &healthy).await;
    let stop = CancellationToken::new();
    let (publishing, watching) = (make_noise(&bad, &stop), watch(&service, &stop));
    hanging.received(usize::try_from(ORGANIZATION).expect("32 bits")).await;
    let noisy = measure(&good, &healthy).await;
    stop.cancel();
    publishing.await.expect("it does not panic");
    let levels = watching.await.expect("it does not panic");

    // What hangs, hangs for a second: whoever waits for it once is later than any of
    // these. The rest is the tolerance of the measurement, on a machine that makes the
    // noise, answers it and runs other tests on two cores.
    for (percent, tolerance) in [(50, 50), (99, 250)] {
        let (quiet, noisy) = (quiet.percentile(percent), noisy.percentile(percent));
        let limit = quiet.mul_f64(1.2) + Duration::from_millis(tolerance);
        assert!(noisy <= limit, "{percent} %: {quiet:?} in the quiet, {noisy:?} in the noise");
    }
    let most = levels.into_iter().fold(0.0, f64::max);
    assert!(f64::from(ORGANIZATION) <= most, "its share was used up: {most}");
    assert!(most <= f64::from(ORGANIZATION + HEALTHY), "{most} requests under way");
}
