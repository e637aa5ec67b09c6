//! The canary: publishes an event every now and then, over the way that every event goes, and
//! sees whether it is delivered, so that somebody is told when webhooks do not arrive although
//! nobody sends any.
//!
//! Whether it was delivered is asked of the database, as a caller would ask: who delivers it may
//! be another process. One probe at a time, each with a deadline; what was not delivered by then
//! is taken back, so that nothing piles up where nobody sends.

mod receiver;

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::receiver::Receiver;

use crate::domain::canary;
use crate::domain::delivery::{Delivery, DeliveryState};
use crate::domain::id::{DeliveryKey, EventKey};
use crate::domain::secret::SecretRule;
use crate::intake::Intake;
use crate::lease::Lease;
use crate::metrics::{Metrics, ProbeResult};
use crate::routing::{Routing, Standing};
use crate::store::{Store, StoreError};

/// Shortest and longest time for a probe; between them it is the interval. Others take over
/// from a replica that dies, and deliver, within the longest.
const DEADLINE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// How long a look at the database is waited for, before the next one, at first ...
const LOOK: Duration = Duration::from_millis(10);
/// ... and at last: each one is so much later as a part of what has passed.
const LOOK_MAX: Duration = Duration::from_millis(500);
const LOOK_PART: u32 = 4;

/// What publishes probes.
#[derive(Clone, Debug)]
pub struct Canary {
    /// Where is seen what became of them; not over the connections of commits.
    pub store: Store,
    /// Where they go in.
    pub intake: Intake,
    /// Knows the canary's subscription.
    pub routing: Routing,
    /// Tells the time.
    pub lease: Lease,
    /// Counts.
    pub metrics: Metrics,
    /// From one probe to the next.
    pub interval: Duration,
}

/// Why a probe was not delivered.
struct Missed {
    result: ProbeResult,
    /// For the log.
    why: String,
    /// Whether something of it may be left that is to be taken back.
    is_left: bool,
}

impl Missed {
    fn refused(why: String, is_left: bool) -> Missed {
        Missed { result: ProbeResult::Refused, why, is_left }
    }
}

impl Canary {
    /// Probes until `stop`. Never fails: what is wrong is what it is there to count.
    pub async fn run(self, stop: CancellationToken) {
        self.metrics.probes_begin(self.lease.now());
        // Replicas that start together do not probe together.
        let mut pause = self.interval.mul_f64(fastrand::f64());
        let mut left = None;
        let mut missed_before = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = self.interval.mul_f64(0.9 + 0.2 * fastrand::f64());
            let probed = tokio::select! {
                () = stop.cancelled() => return,
                probed = self.probe(&mut left) => probed,
            };
            self.tell(&probed, missed_before);
            missed_before = probed.is_err();
        }
    }

    fn tell(&self, probed: &Result<Duration, Missed>, missed_before: bool) {
        let now = self.lease.now();
        match probed {
            Ok(elapsed) => {
                self.metrics.probe(ProbeResult::Delivered, now, *elapsed);
                if missed_before {
                    tracing::info!("probes of the canary are delivered again");
                }
            }
            Err(missed) => {
                self.metrics.probe(missed.result, now, Duration::ZERO);
                let (result, why) = (missed.result.label(), &missed.why);
                tracing::warn!(result, why, "a probe of the canary was not delivered");
            }
        }
    }

    /// One probe: how long it took. `left` is the one before that could not be taken back yet.
    async fn probe(&self, left: &mut Option<String>) -> Result<Duration, Missed> {
        let deadline = Instant::now() + self.interval.clamp(DEADLINE.0, DEADLINE.1);
        if let Some(before) = left {
            let taken = timeout_at(deadline, self.store.take_probe_back(before)).await;
            let why = match taken {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_elapsed) => Some("no answer in time".to_owned()),
            };
            if let Some(why) = why {
                return Err(Missed::refused(format!("the one before is still open: {why}"), false));
            }
            *left = None;
        }
        if let Err(error) = self.subscribe().await {
            return Err(Missed::refused(error.to_string(), false));
        }
        let probe = format!("probe-{:032x}", fastrand::u128(..));
        let probed = self.follow(&probe, deadline).await;
        if probed.as_ref().is_err_and(|missed| missed.is_left) {
            // At once, if it can be: whoever sends again soon has nothing old to send.
            let taken = timeout_at(Instant::now() + DEADLINE.0, self.store.take_probe_back(&probe));
            if !matches!(taken.await, Ok(Ok(()))) {
                *left = Some(probe);
            }
        }
        probed
    }

    /// Publishes a probe and waits until it is delivered, which takes so long.
    async fn follow(&self, probe: &str, deadline: Instant) -> Result<Duration, Missed> {
        let began = Instant::now();
        let published = timeout_at(deadline, self.publish(probe, deadline)).await;
        let event = published.unwrap_or_else(|_elapsed| {
            Err(Missed::refused("no answer in time".to_owned(), true))
        })?;
        let key = DeliveryKey { event, subscription: canary::SUBSCRIPTION };
        let organization = canary::organization();
        let mut seen = "nobody could look".to_owned();
        loop {
            let look = self.store.delivery(&organization, key);
            match timeout_at(deadline, look).await {
                Ok(Ok(delivery)) => match delivery.state {
                    DeliveryState::Succeeded => return Ok(began.elapsed()),
                    DeliveryState::Dead | DeliveryState::Cancelled => {
                        let (result, why) = (ProbeResult::Failed, told(&delivery));
                        return Err(Missed { result, why, is_left: false });
                    }
                    DeliveryState::Pending | DeliveryState::InFlight => seen = told(&delivery),
                },
                Ok(Err(error)) => seen = error.to_string(),
                Err(_elapsed) => {}
            }
            if deadline <= Instant::now() {
                return Err(Missed { result: ProbeResult::Late, why: seen, is_left: true });
            }
            let next = Instant::now() + (began.elapsed() / LOOK_PART).clamp(LOOK, LOOK_MAX);
            tokio::time::sleep_until(next.min(deadline)).await;
        }
    }

    /// Gives the event that was made; one that goes to the canary's subscription and to no
    /// other.
    async fn publish(&self, probe: &str, deadline: Instant) -> Result<EventKey, Missed> {
        // Of a publisher that does not live to take it back. Not sooner: late is late.
        let remaining = deadline.saturating_duration_since(Instant::now()) + DEADLINE.0;
        let event = canary::event(probe, self.lease.now().plus(remaining));
        let published = self.intake.publish(vec![event]).await;
        match published.as_deref() {
            Ok([one]) if one.delivery_count == 1 => Ok(one.key),
            Ok(others) => {
                let count: u32 = others.iter().map(|one| one.delivery_count).sum();
                let why = format!("its event goes to {count} subscriptions");
                Err(Missed { result: ProbeResult::Failed, why, is_left: true })
            }
            // It may be stored all the same.
            Err(refused) => Err(Missed::refused(format!("{refused:?}"), true)),
        }
    }

    /// Makes the subscription, or mends it, where it is not as it should be.
    async fn subscribe(&self) -> Result<(), StoreError> {
        let route = self.routing.route(canary::SUBSCRIPTION);
        let is_right = route.is_some_and(|route| {
            route.standing() == Standing::Sendable && route.subscription.spec == canary::spec()
        });
        if is_right {
            return Ok(());
        }
        self.store.keep_canary(SecretRule::Standard.generate()).await?;
        self.routing.refresh().await
    }
}

/// Where a delivery is, for the log.
fn told(delivery: &Delivery) -> String {
    let state = delivery.state;
    let reason = delivery.dead_reason;
    match &delivery.last_attempt {
        None => format!("{state:?}, not attempted"),
        Some(last) => {
            let (status, error) = (last.http_status.unwrap_or_default(), &last.error);
            format!(
                "{state:?} {reason:?}, attempt {}: {:?} {status} {error}",
                last.number, last.result
            )
        }
    }
}
