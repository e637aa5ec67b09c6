//! The bare limit: the service's own client and signatures against the same
//! receiver, with nothing in between. Nothing is stored, nothing is decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use hookward::domain::address::AddressPolicy;
use hookward::domain::attempt::Outcome;
use hookward::domain::endpoint_url::EndpointUrl;
use hookward::domain::event::Event;
use hookward::domain::event::EventSummary;
use hookward::domain::event::Payload;
use hookward::domain::event::TraceContext;
use hookward::domain::id::DeliveryKey;
use hookward::domain::id::EventKey;
use hookward::domain::id::IdCodec;
use hookward::domain::id::OrganizationId;
use hookward::domain::id::SubscriptionKey;
use hookward::domain::payload_mode::PayloadMode;
use hookward::domain::profile::DEFAULT_PROFILE;
use hookward::domain::profile::Profile;
use hookward::domain::profile::Profiles;
use hookward::domain::render::RenderIds;
use hookward::domain::render::render;
use hookward::domain::signature::SigningKey;
use hookward::domain::subscription::ATTEMPT_TIMEOUT_DEFAULT;
use hookward::domain::subscription::SubscriptionSpec;
use hookward::domain::timestamp::Timestamp;
use hookward::egress;
use hookward::egress::Egress;
use hookward::egress::SignedRequest;
use hookward::egress::Target;
use tokio::task::JoinSet;

use crate::audience::ONE;
use crate::options::CONNECTIONS;
use crate::payload;
use crate::payload::Mark;
use crate::payload::Payloads;
use crate::protocol;
use crate::protocol::Answer;
use crate::protocol::Doors;
use crate::protocol::Order;
use crate::protocol::Sent;
use crate::tracker::Tracker;

const SUBSCRIPTION: SubscriptionKey = SubscriptionKey(1);

/// What every post is made from.
struct Posting {
    egress: Egress,
    target: Arc<Target>,
    profile: Arc<Profile>,
    spec: SubscriptionSpec,
    keys: Vec<SigningKey>,
    ids: IdCodec,
    payloads: Payloads,
    run: u32,
    number: AtomicU64,
    tracker: Tracker,
}

/// Posts when told to, until the orders end.
pub(crate) async fn run() -> anyhow::Result<()> {
    protocol::answer(&Answer::Ready(Doors::default()))?;
    let mut orders = protocol::orders();
    while let Some(order) = orders.recv().await {
        let said = match order {
            Order::Post { url, run, seconds, payload_bytes } => {
                match post(&url, run, Duration::from_secs_f64(seconds), payload_bytes).await {
                    Ok(sent) => Answer::Sent(sent),
                    Err(error) => Answer::Failed(format!("{error:#}")),
                }
            }
            Order::Begin { .. } | Order::Tally | Order::Subscribe(_) | Order::Publish(_) => {
                Answer::Failed("this is the bare client".into())
            }
        };
        protocol::answer(&said)?;
    }
    Ok(())
}

async fn post(url: &str, run: u32, time: Duration, payload_bytes: usize) -> anyhow::Result<Sent> {
    let posting = Arc::new(Posting::new(url, run, payload_bytes)?);
    let until = Instant::now() + time;
    let mut workers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let posting = Arc::clone(&posting);
        workers.spawn(async move {
            while Instant::now() < until {
                posting.one().await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended?;
    }
    Ok(posting.tracker.sent())
}

impl Posting {
    fn new(url: &str, run: u32, payload_bytes: usize) -> anyhow::Result<Posting> {
        let allow = vec!["127.0.0.1/32".parse()?];
        let policy = AddressPolicy { allow, ..AddressPolicy::default() };
        let endpoint = EndpointUrl::parse(url, policy.rules(None))
            .map_err(|invalid| anyhow::anyhow!("the receiver's URL is refused: {invalid:?}"))?;
        let profiles = Profiles::built_in();
        let profile = profiles.get(DEFAULT_PROFILE).context("the default profile is there")?;
        let secret = profile.secret().context("the default profile signs")?;
        let key = secret.key(&secret.generate()).expect("a generated secret is accepted");
        Ok(Posting {
            egress: Egress::new(egress::Settings::new(policy))?,
            target: Arc::new(Target::new(&endpoint)?),
            profile: Arc::clone(profile),
            spec: spec(endpoint.as_str()),
            keys: vec![key],
            ids: IdCodec::new([7; 16]),
            payloads: Payloads::new(payload_bytes),
            run,
            number: AtomicU64::new(0),
            tracker: Tracker::default(),
        })
    }

    async fn one(&self) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let begun = payload::now_us();
        let mark = Mark { run: self.run, number, time_us: begun };
        let event = event(mark, self.payloads.payload(mark));
        let delivery = DeliveryKey { event: event.summary.key, subscription: SUBSCRIPTION };
        let delivery_id = self.ids.delivery(delivery);
        let ids = RenderIds { delivery_id: &delivery_id };
        let now = event.summary.publish_time;
        let rendered = render(&self.profile, &event, &self.spec, &self.keys, ids, now);
        let rendered = rendered.expect("the default profile takes any JSON");
        let request = SignedRequest {
            subscription: SUBSCRIPTION,
            target: Arc::clone(&self.target),
            headers: rendered.headers,
            body: rendered.body,
            timeout: self.spec.attempt_timeout,
        };
        let sent = self.egress.send(request).await;
        match sent.outcome {
            Outcome::Responded { status: 200, .. } => self.tracker.accept(1, begun),
            Outcome::Responded { status, .. } => self.tracker.fail(1, &format!("HTTP {status}")),
            Outcome::NoResponse(_) | Outcome::NotAsked { .. } => self.tracker.fail(1, sent.detail),
        }
    }
}

fn event(mark: Mark, payload: String) -> Event {
    let time = Timestamp(mark.time_us.cast_signed());
    let key = EventKey(mark.number.cast_signed());
    let summary = EventSummary {
        key,
        id: format!("evt_{:013}", mark.number),
        organization: OrganizationId::stored(ONE.organization),
        account: None,
        event_type: ONE.event_type.to_owned(),
        occur_time: time,
        publish_time: time,
        expire_time: None,
        content_type: "application/json".to_owned(),
        payload_bytes: payload.len() as u64,
        attributes: BTreeMap::new(),
        subject: String::new(),
        trace: TraceContext::default(),
        purge_time: None,
        publisher: "".into(),
    };
    Event { summary, payload: Payload::Json(Bytes::from(payload)) }
}

fn spec(url: &str) -> SubscriptionSpec {
    SubscriptionSpec {
        account: None,
        name: String::new(),
        url: url.to_owned(),
        event_patterns: vec!["*".to_owned()],
        profile: DEFAULT_PROFILE.to_owned(),
        signing_enabled: true,
        headers: BTreeMap::new(),
        attributes: BTreeMap::new(),
        send_organization_code: false,
        retry_waits: Vec::new(),
        attempt_timeout: ATTEMPT_TIMEOUT_DEFAULT,
        max_in_flight: CONNECTIONS,
        tls: <_>::default(),
        payload_mode: PayloadMode::Full,
        omit_trace_context: false,
    }
}
