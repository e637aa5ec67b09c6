//! The load generator: publishes over gRPC, in closed or open loop.
//!
//! The time in a payload is taken when its call is made. An open loop does not wait
//! for answers, so that a stall of the service delays no call.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use hookward::grpc::pb;
use hookward::grpc::pb::event_service_client::EventServiceClient;
use hookward::grpc::pb::subscription_service_client::SubscriptionServiceClient;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Channel;

use crate::caller::Caller;
use crate::options::CONNECTIONS;
use crate::options::Options;
use crate::payload;
use crate::payload::Mark;
use crate::payload::Payloads;
use crate::protocol;
use crate::protocol::Answer;
use crate::protocol::Doors;
use crate::protocol::Order;
use crate::protocol::Publishing;
use crate::protocol::Sent;
use crate::protocol::Style;
use crate::protocol::Subscribing;
use crate::tracker::Tracker;

/// How long a refused call waits before it is made again.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// Obeys until the orders end.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let caller = Caller::connect(options).await?;
    protocol::answer(&Answer::Ready(Doors::default()))?;
    let mut orders = protocol::orders();
    while let Some(order) = orders.recv().await {
        let said = match order {
            Order::Subscribe(wanted) => match subscribe(&caller, wanted).await {
                Ok(()) => Answer::Done,
                Err(error) => Answer::Failed(format!("{error:#}")),
            },
            Order::Publish(publishing) => Answer::Sent(publish(&caller, publishing).await),
            Order::Begin { .. } | Order::Tally | Order::Post { .. } => {
                Answer::Failed("this is the load generator".into())
            }
        };
        protocol::answer(&said)?;
    }
    Ok(())
}

async fn subscribe(caller: &Caller, wanted: Subscribing) -> anyhow::Result<()> {
    let mut client = SubscriptionServiceClient::new(caller.channels[0].clone());
    for url in wanted.urls {
        let subscription = pb::Subscription {
            name: "benchmark".into(),
            url,
            event_patterns: vec![wanted.event_pattern.clone()],
            max_in_flight: CONNECTIONS,
            ..pb::Subscription::default()
        };
        let request = pb::CreateSubscriptionRequest {
            organization_id: wanted.organization.clone(),
            subscription: Some(subscription),
            ..pb::CreateSubscriptionRequest::default()
        };
        client.create_subscription(caller.request(request)).await.context("cannot subscribe")?;
    }
    Ok(())
}

/// What every caller of one stretch shares.
struct Stretch {
    caller: Caller,
    publishing: Publishing,
    payloads: Payloads,
    /// Of events with ids of their own: not used in this database before.
    id_prefix: String,
    /// The next event's number; the first that must not be.
    next: AtomicU64,
    end: u64,
    until: Option<Instant>,
    tracker: Tracker,
}

async fn publish(caller: &Caller, publishing: Publishing) -> Sent {
    let until = publishing.seconds.map(|secs| Instant::now() + Duration::from_secs_f64(secs));
    let style = publishing.style;
    let stretch = Arc::new(Stretch {
        caller: caller.clone(),
        payloads: Payloads::new(publishing.payload_bytes),
        id_prefix: format!("bench-{}-{}", publishing.run, payload::now_us()),
        next: AtomicU64::new(0),
        end: publishing.events.unwrap_or(u64::MAX),
        until,
        tracker: Tracker::default(),
        publishing,
    });
    let mut calls = JoinSet::new();
    match style {
        Style::Closed { callers, batch } => {
            for channel in caller.channels.iter().cycle().take(callers as usize) {
                calls.spawn(Arc::clone(&stretch).call_on(channel.clone(), batch));
            }
        }
        Style::Open { per_second } => open(&stretch, per_second, &mut calls).await,
    }
    while let Some(ended) = calls.join_next().await {
        if let Err(error) = ended {
            stretch.tracker.fail(1, &error.to_string());
        }
    }
    stretch.tracker.sent()
}

/// Makes a call at each tick, until the time or the events are used up.
async fn open(stretch: &Arc<Stretch>, per_second: u32, calls: &mut JoinSet<()>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    for channel in stretch.caller.channels.iter().cycle() {
        ticks.tick().await;
        let Some(numbers) = stretch.take(1) else { return };
        let (stretch, channel) = (Arc::clone(stretch), channel.clone());
        calls.spawn(async move { stretch.call(&mut client(channel), numbers).await });
        while calls.try_join_next().is_some() {}
    }
}

fn client(channel: Channel) -> EventServiceClient<Channel> {
    EventServiceClient::new(channel)
}

impl Stretch {
    /// Makes one call after the other.
    async fn call_on(self: Arc<Self>, channel: Channel, batch: u32) {
        let mut client = client(channel);
        while let Some(numbers) = self.take(u64::from(batch)) {
            self.call(&mut client, numbers).await;
        }
    }

    /// The next events to publish; `None` when time or events are used up.
    fn take(&self, count: u64) -> Option<std::ops::Range<u64>> {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            return None;
        }
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        (first < self.end).then(|| first..(first + count).min(self.end))
    }

    async fn call(&self, client: &mut EventServiceClient<Channel>, numbers: std::ops::Range<u64>) {
        let count = numbers.end - numbers.start;
        let begun = payload::now_us();
        loop {
            let events = numbers.clone().map(|number| self.event(number, begun)).collect();
            let organization_id = self.publishing.organization.clone();
            let request = pb::PublishEventsRequest { organization_id, events };
            match client.publish_events(self.caller.request(request)).await {
                Ok(answer) => {
                    let results = answer.into_inner().results;
                    let expected = self.publishing.fan_out;
                    let made = results.iter().filter(|result| result.delivery_count == expected);
                    if made.count() as u64 == count {
                        self.tracker.accept(count, begun);
                    } else {
                        self.tracker.fail(count, "an event made not as many deliveries as it must");
                    }
                    return;
                }
                Err(status) if status.code() == Code::ResourceExhausted => {
                    self.tracker.refuse();
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                Err(status) => {
                    self.tracker.fail(count, &status.to_string());
                    return;
                }
            }
        }
    }

    fn event(&self, number: u64, time_us: u64) -> pb::Event {
        let mark = Mark { run: self.publishing.run, number, time_us };
        let id = if self.publishing.own_ids {
            format!("{}-{number}", self.id_prefix)
        } else {
            String::new()
        };
        pb::Event {
            id,
            r#type: self.publishing.event_type.clone(),
            payload: Some(pb::event::Payload::Json(self.payloads.payload(mark))),
            ..pb::Event::default()
        }
    }
}
