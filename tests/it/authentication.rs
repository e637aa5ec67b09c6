//! Promise: nobody acts without credentials that are good for it. Every method of the
//! descriptors is tried with every kind of bad ones; a method that is not classified here
//! fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_types::StatusExt;

use crate::harness::caller::{api_key, hookward};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{eventually, within};
use crate::harness::proxy::Proxy;
use crate::harness::refusal::seen;
use crate::harness::rpc::{self, Field, Protocol};
use crate::harness::service::{Service, Settings};

on_both_engines!(
    every_method_asks_who_is_calling_and_for_what,
    a_revoked_key_opens_nothing_five_seconds_later_at_any_replica,
);

/// What each method asks for.
const METHODS: [(&str, &str); 27] = [
    ("AuditService/ListAuditEntries", "audit:read"),
    ("DeliveryService/CancelDelivery", "deliveries:write"),
    ("DeliveryService/GetDelivery", "deliveries:read"),
    ("DeliveryService/ListDeliveries", "deliveries:read"),
    ("DeliveryService/ListDeliveryAttempts", "deliveries:read"),
    ("DeliveryService/RetryDelivery", "deliveries:write"),
    ("EventService/GetEvent", "events:read"),
    ("EventService/ListEvents", "events:read"),
    ("EventService/PublishEvents", "events:publish"),
    ("EventService/PurgeEvent", "payloads:purge"),
    ("EventService/PurgeSubject", "payloads:purge"),
    ("EventTypeService/GetEventType", "events:read"),
    ("EventTypeService/ListEventTypes", "events:read"),
    ("SubscriptionService/ActivateSubscription", "subscriptions:write"),
    ("SubscriptionService/CreateSubscription", "subscriptions:write"),
    ("SubscriptionService/DeactivateSubscription", "subscriptions:write"),
    ("SubscriptionService/DeleteSubscription", "subscriptions:write"),
    ("SubscriptionService/GetSubscription", "subscriptions:read"),
    ("SubscriptionService/ListProfiles", "subscriptions:read"),
    ("SubscriptionService/ListSigningSecrets", "subscriptions:read"),
    ("SubscriptionService/ListSubscriptions", "subscriptions:read"),
    ("SubscriptionService/PauseSubscription", "subscriptions:write"),
    ("SubscriptionService/PingSubscription", "subscriptions:write"),
    ("SubscriptionService/ResumeSubscription", "subscriptions:write"),
    ("SubscriptionService/RevokeSigningSecret", "subscriptions:write"),
    ("SubscriptionService/RotateSigningSecret", "subscriptions:write"),
    ("SubscriptionService/UpdateSubscription", "subscriptions:write"),
];
const SCOPES: [&str; 10] = [
    "audit:read",
    "events:publish",
    "events:read",
    "payloads:read",
    "subscriptions:read",
    "subscriptions:write",
    "deliveries:read",
    "deliveries:write",
    "bodies:read",
    "payloads:purge",
];

/// Every method with the number of its request's `organization_id`.
fn methods() -> BTreeMap<String, u32> {
    let protocol = Protocol::served();
    let organization = |method: &str| {
        let own = |field: &Field| field.path.len() == 1 && field.name == "organization_id";
        let field = protocol.request(method).into_iter().find(own);
        field.expect("every request names an organization").path[0]
    };
    let methods = protocol.methods().into_iter();
    methods.map(|method| (method.to_owned(), organization(method))).collect()
}

/// A method and the number of its request's `organization_id`.
type Method<'a> = (&'a str, u32);

fn method<'a>(fields: &BTreeMap<String, u32>, name: &'a str) -> Method<'a> {
    (name, fields[name])
}

/// Calls a method with nothing but an organization.
async fn call(
    channel: &Channel,
    method: Method<'_>,
    organization: &str,
    authorization: Option<&str>,
) -> Result<(), Status> {
    let message = rpc::set(&[], &[method.1], organization);
    rpc::call(channel, method.0, message, authorization).await.map(drop)
}

/// The reason that such a call with this key is refused for; `OK` if it is not.
async fn reason(channel: &Channel, method: Method<'_>, key: &str) -> String {
    let answer = call(channel, method, "clinic", Some(&format!("Bearer {key}"))).await;
    let Err(refused) = answer else { return "OK".to_owned() };
    refused.get_details_error_info().expect("every error has one").reason
}

fn revoke(engine: &Engine, key: &str) {
    let (id, _) = key.rsplit_once('_').expect("id and secret");
    hookward(engine, &["api-key", "revoke", id]);
}

pub(crate) async fn guarded(engine: &Engine) -> Service {
    Settings::new(engine.clone()).flag("--auth", "api-key").start().await
}

/// Keys of all kinds.
struct Keys {
    good: String,
    revoked: String,
    /// One second after it was made.
    expired: String,
    made: Instant,
    /// For another organization.
    foreign: String,
    /// For each scope, with that one alone, and with all others.
    enough: BTreeMap<&'static str, String>,
    lacking: BTreeMap<&'static str, String>,
}

impl Keys {
    /// Makes them, and waits until the server behind `channel` knows them and one has
    /// expired.
    async fn known(engine: &Engine, channel: &Channel, any: Method<'_>) -> Keys {
        let keys = Keys::make(engine);
        eventually("the keys are known", async || {
            let known = reason(channel, any, &keys.foreign).await == "ORGANIZATION_DENIED";
            (known && Duration::from_secs(2) <= keys.made.elapsed()).then_some(())
        })
        .await;
        keys
    }

    fn make(engine: &Engine) -> Keys {
        let clinics = |scopes: &[&str]| api_key(engine, "clinic", scopes, &[]);
        let expired = api_key(engine, "clinic", &["admin"], &["--expires-in", "1s"]);
        let made = Instant::now();
        let (mut enough, mut lacking) = (BTreeMap::new(), BTreeMap::new());
        for scope in BTreeSet::from(METHODS.map(|(_, scope)| scope)) {
            let others: Vec<&str> = SCOPES.into_iter().filter(|other| *other != scope).collect();
            enough.insert(scope, clinics(&[scope]));
            lacking.insert(scope, clinics(&others));
        }
        let (good, revoked) = (clinics(&["admin"]), clinics(&["admin"]));
        revoke(engine, &revoked);
        // The last one: keys are read together, so that with it all are known.
        let foreign = api_key(engine, "other", &["admin"], &[]);
        Keys { good, revoked, expired, made, foreign, enough, lacking }
    }

    /// What opens nothing.
    fn bad(&self) -> Vec<Option<String>> {
        let (id, _) = self.revoked.rsplit_once('_').expect("id and secret");
        let (_, secret) = self.good.rsplit_once('_').expect("id and secret");
        let Keys { good, revoked, expired, .. } = self;
        vec![
            None,
            Some(String::new()),
            Some(good.clone()),
            Some(format!("Basic {good}")),
            Some("Bearer".to_owned()),
            Some("Bearer whk_".to_owned()),
            Some(format!("Bearer {good}x")),
            Some(format!("Bearer {id}_{secret}")),
            Some(format!("Bearer {revoked}")),
            Some(format!("Bearer {expired}")),
        ]
    }
}

async fn every_method_asks_who_is_calling_and_for_what(engine: Engine) {
    let service = guarded(&engine).await;
    let channel = service.channel();
    let fields = methods();
    let named: Vec<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(named, METHODS.map(|(method, _)| method), "classify every method");

    let keys = Keys::known(&engine, &channel, method(&fields, METHODS[0].0)).await;
    let good = format!("Bearer {}", keys.good);
    let garbage = b"\xff\xff";
    let mut answers = Vec::new();
    for (last, (name, scope)) in (2..).zip(METHODS) {
        let one = method(&fields, name);
        // Ten of them, which an address may try in a second.
        let stranger = service.channel_from(last).await;
        for authorization in keys.bad() {
            let refused = call(&stranger, one, "clinic", authorization.as_deref()).await;
            let refused = refused.expect_err("nobody is known by that");
            assert_eq!(refused.code(), Code::Unauthenticated, "{name} {authorization:?}");
            answers.push(seen(&refused));
        }
        // Who is calling is asked before a byte of the request is read.
        let stranger = service.channel_from(last + 100).await;
        let refused = rpc::call(&stranger, name, garbage.to_vec(), None).await;
        answers.push(seen(&refused.expect_err("nobody is known by that")));
        let refused = rpc::call(&channel, name, garbage.to_vec(), Some(&good)).await;
        assert_eq!(refused.expect_err("no request").code(), Code::InvalidArgument, "{name}");

        assert_eq!(reason(&channel, one, &keys.lacking[scope]).await, "SCOPE_MISSING", "{name}");
        assert_eq!(reason(&channel, one, &keys.foreign).await, "ORGANIZATION_DENIED", "{name}");
        let told = reason(&channel, one, &keys.enough[scope]).await;
        let denied = ["UNAUTHENTICATED", "SCOPE_MISSING", "ORGANIZATION_DENIED"];
        assert!(!denied.contains(&&*told), "{name}: {told}");
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "one answer for every cause: {answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why_a_key_was_refused_and_no_secret() {
    let engine = Engine::sqlite();
    let service = guarded(&engine).await;
    let channel = service.channel();
    let fields = methods();
    let get = method(&fields, "EventService/GetEvent");
    let keys = Keys::known(&engine, &channel, get).await;
    // Ten, of which the log tells one by one.
    let stranger = service.channel_from(2).await;
    for authorization in keys.bad() {
        let refused = call(&stranger, get, "clinic", authorization.as_deref()).await;
        assert!(refused.is_err());
    }
    let causes = ["is revoked", "has expired", "is not that of the API key", "has not the form"];
    let written = eventually("the log says why", async || {
        let written = service.written();
        causes.iter().all(|cause| written.contains(cause)).then_some(written)
    })
    .await;
    for key in [&keys.good, &keys.revoked, &keys.expired, &keys.foreign] {
        let (_, secret) = key.rsplit_once('_').expect("id and secret");
        assert!(!written.contains(secret));
    }
    let (id, _) = keys.revoked.rsplit_once('_').expect("id and secret");
    assert!(written.contains(id));
}

async fn a_revoked_key_opens_nothing_five_seconds_later_at_any_replica(engine: Engine) {
    let service = guarded(&engine).await;
    let mut channels = vec![service.channel()];
    let shared = engine.url().starts_with("postgres");
    let replica = if shared { Some(service.replica().await) } else { None };
    channels.extend(replica.as_ref().map(Service::channel));
    let key = api_key(&engine, "clinic", &["events:read"], &[]);
    let fields = methods();
    let list = method(&fields, "EventService/ListEvents");
    for channel in &channels {
        eventually("the key is known", async || {
            (reason(channel, list, &key).await == "OK").then_some(())
        })
        .await;
    }
    revoke(&engine, &key);
    let begun = Instant::now();
    for channel in &channels {
        let left = Duration::from_secs(5).saturating_sub(begun.elapsed());
        within(left, "nobody is let in", async || {
            (reason(channel, list, &key).await == "UNAUTHENTICATED").then_some(())
        })
        .await;
    }
    assert!(hookward(&engine, &["api-key", "list"]).contains("revoked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_cut_off_knows_nobody_by_a_key_five_seconds_later() {
    let Some(engine) = Engine::postgres() else { return };
    let proxy = Proxy::to(engine.port()).await;
    let service = guarded(&engine.at_port(proxy.port())).await;
    let channel = service.channel();
    let key = api_key(&engine, "clinic", &["events:read"], &[]);
    let fields = methods();
    // Answered from memory, so that nothing but the key can be what is missing.
    let list = method(&fields, "EventTypeService/ListEventTypes");
    eventually("the key is known", async || {
        (reason(&channel, list, &key).await == "OK").then_some(())
    })
    .await;

    proxy.cut();
    let authorization = format!("Bearer {key}");
    let refused = within(Duration::from_secs(5), "nobody is let in", async || {
        call(&channel, list, "clinic", Some(&authorization)).await.err()
    })
    .await;
    assert_eq!(refused.code(), Code::Unavailable, "the key may be good: {refused:?}");
    assert!(refused.get_details_retry_info().is_some());
    proxy.heal();
    eventually("the key is known again", async || {
        (reason(&channel, list, &key).await == "OK").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_to_anybody_and_what_there_is_to_callers_only() {
    let engine = Engine::sqlite();
    let service = guarded(&engine).await;
    let check = HealthCheckRequest { service: String::new() };
    let health = HealthClient::new(service.channel()).check(check).await.expect("it is open");
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);

    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(service.channel());
    let ask = tokio_stream::once(question);
    let refused = client.server_reflection_info(ask).await.expect_err("it is not open");
    assert_eq!(refused.code(), Code::Unauthenticated);
}
