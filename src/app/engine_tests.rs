//! The engine alone, without its doors: an event goes in and a request comes out.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::engine::{Engine, Settings};
use crate::domain::address::AddressPolicy;
use crate::domain::audit::{Chain, NewAuditEntry};
use crate::domain::delivery::DeliveryState;
use crate::domain::event::{NewEvent, Payload, TraceContext};
use crate::domain::id::{DeliveryKey, KeyMaker, OrganizationId, SubscriptionKey};
use crate::domain::payload_mode::PayloadMode;
use crate::domain::profile::Profiles;
use crate::domain::receiver_tls::ReceiverTls;
use crate::domain::subscription::{SubscriptionSpec, SubscriptionState};
use crate::domain::timestamp::{Timestamp, micros};
use crate::egress::{self, Egress};
use crate::keyring::Keyring;
use crate::metrics::Metrics;
use crate::permits::InFlightLimits;
use crate::store::{self, NewSubscription, Store, Target};

async fn engine(folder: &std::path::Path) -> Engine {
    let target = Target::Sqlite(folder.join("hookward.db"));
    let keyring = Keyring::default();
    let settings = store::Settings { target, connections_max: 4, keyring };
    let store = Store::open(&settings).await.expect("a fresh file opens");
    let allow = vec!["127.0.0.1/32".parse().expect("an address")];
    let policy = AddressPolicy { allow, ..AddressPolicy::default() };
    let egress = Egress::new(egress::Settings::new(policy)).expect("no extra certificates");
    let settings = Settings {
        intake: crate::intake::Settings {
            queue_events: 1000,
            queue_bytes: 1 << 20,
            rate: None,
            open_deliveries: None,
        },
        in_flight: InFlightLimits { organization: 8, replica: 8 },
        auto_disable: None,
        dispatches: true,
        canary_interval: None,
        canary_listener: None,
    };
    let profiles = Arc::new(Profiles::built_in());
    Engine::start(store, profiles, egress, Metrics::new(), settings).await.expect("it starts")
}

fn event(organization: &OrganizationId) -> NewEvent {
    NewEvent {
        organization: organization.clone(),
        account: None,
        id: None,
        event_type: "order_created".into(),
        occur_time: None,
        expire_time: None,
        payload: Payload::Json(bytes::Bytes::from_static(b"{\"a\":1}")),
        content_type: "application/json".into(),
        attributes: std::collections::BTreeMap::new(),
        subject: String::new(),
        target: None,
        trace: TraceContext::default(),
        publisher: "".into(),
    }
}

/// What the log says of whoever subscribes here.
fn entry() -> NewAuditEntry {
    NewAuditEntry::of_service(Chain::Deployment, "test")
}

fn new_subscription(
    key: SubscriptionKey,
    organization: &OrganizationId,
    url: String,
) -> NewSubscription {
    let spec = SubscriptionSpec {
        account: None,
        name: String::new(),
        url,
        event_patterns: vec!["*".into()],
        profile: "telegramd".into(),
        signing_enabled: false,
        headers: std::collections::BTreeMap::new(),
        attributes: std::collections::BTreeMap::new(),
        send_organization_code: false,
        retry_waits: vec![Duration::from_millis(100)],
        attempt_timeout: Duration::from_secs(5),
        max_in_flight: 2,
        tls: ReceiverTls::default(),
        payload_mode: PayloadMode::Full,
        omit_trace_context: false,
    };
    let organization = organization.clone();
    NewSubscription { key, organization, spec, state: SubscriptionState::Active, secret: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_comes_again_and_is_settled() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = engine(folder.path()).await;
    let receiver = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", receiver.local_addr().expect("bound"));
    let organization = OrganizationId::parse("clinic").expect("a name");
    let subscription = SubscriptionKey(engine.lease.next_key());
    let new = new_subscription(subscription, &organization, url);
    engine
        .store
        .create_subscription(new, None, &entry(), |_| Vec::new())
        .await
        .expect("it is valid");

    let published = engine.intake.publish(vec![event(&organization)]).await.expect("stored");
    assert_eq!(published[0].delivery_count, 1);

    let mut bodies = Vec::new();
    let (mut stream, _) = receiver.accept().await.expect("a connection");
    for status in ["503 Busy", "200 OK"] {
        let mut request = Vec::new();
        while !request.ends_with(b"{\"a\":1}") {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).await.expect("readable");
            assert!(0 < count, "closed");
            request.extend_from_slice(&buffer[..count]);
        }
        bodies.push(request);
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("writable");
    }
    assert_eq!(bodies[0], bodies[1], "the same request twice");

    let key = DeliveryKey { event: published[0].key, subscription };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        let delivery = engine.store.delivery(&organization, key).await.expect("it is there");
        if delivery.state == DeliveryState::Succeeded {
            assert_eq!(delivery.attempt_count, 2);
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "still {:?}", delivery.state);
        tokio::task::yield_now().await;
    }
    engine.stop(Duration::from_secs(5)).await;
}

/// Else a key could be made a second time.
#[tokio::test(flavor = "multi_thread")]
async fn keys_go_on_where_they_ended_though_the_clock_was_set_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = engine(folder.path()).await;
    let organization = OrganizationId::parse("clinic").expect("a name");
    let ten_minutes = Duration::from_mins(10);
    let then = Timestamp(first.lease.now().0 + micros(ten_minutes));
    let made = KeyMaker::new(then).next(0, then);
    let url = "http://127.0.0.1:1/".to_owned();
    let new = new_subscription(SubscriptionKey(made), &organization, url);
    first
        .store
        .create_subscription(new, None, &entry(), |_| Vec::new())
        .await
        .expect("it is valid");
    first.stop(Duration::from_secs(5)).await;

    let second = engine(folder.path()).await;
    assert!(made < second.lease.next_key());
    let published = second.intake.publish(vec![event(&organization)]).await.expect("stored");
    assert!(made < published[0].key.0);
    second.stop(Duration::from_secs(5)).await;
}
