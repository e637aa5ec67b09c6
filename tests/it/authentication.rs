//! Promise: nobody acts without credentials that are good for it. Every method of the
//! descriptors is tried with every kind of bad ones; a method that is not classified here
//! fails.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use hookward::grpc::pb;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{eventually, within};
use crate::harness::refusal::seen;
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

/// Messages as the bytes that they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Every method with the number of its request's `organization_id`.
fn methods() -> BTreeMap<String, u32> {
    let files = prost_types::FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET);
    let files = files.expect("the build encodes it").file;
    let messages: BTreeMap<String, &prost_types::DescriptorProto> = files
        .iter()
        .flat_map(|file| {
            file.message_type.iter().map(|one| (format!(".{}.{}", file.package(), one.name()), one))
        })
        .collect();
    let mut found = BTreeMap::new();
    for service in files.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            let request = messages[method.input_type()];
            let field = request.field.iter().find(|field| field.name() == "organization_id");
            let number = field.expect("every request names an organization").number();
            let name = format!("{}/{}", service.name(), method.name());
            found.insert(name, u32::try_from(number).expect("field numbers are positive"));
        }
    }
    found
}

/// Calls a method with nothing but an organization.
async fn call(
    channel: &Channel,
    (method, field): (&str, u32),
    organization: &str,
    authorization: Option<&str>,
) -> Result<(), Status> {
    let mut message = Vec::new();
    prost::encoding::string::encode(field, &organization.to_owned(), &mut message);
    send(channel, method, message, authorization).await.map(drop)
}

/// Calls a method with a message in bytes, and gives its answer in bytes.
pub(crate) async fn send(
    channel: &Channel,
    method: &str,
    message: Vec<u8>,
    authorization: Option<&str>,
) -> Result<Bytes, Status> {
    let mut request = Request::new(Bytes::from(message));
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.parse().expect("a header"));
    }
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = format!("/hookward.v1.{method}").try_into().expect("a path");
    client.unary(request, path, Raw).await.map(tonic::Response::into_inner)
}

pub(crate) fn hookward(engine: &Engine, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hookward"))
        .args(words)
        .args(["--database-url", engine.url()])
        .output()
        .expect("the binary was built with the tests");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

pub(crate) fn api_key(
    engine: &Engine,
    organization: &str,
    scopes: &[&str],
    more: &[&str],
) -> String {
    let mut words = vec!["api-key", "create", "--label", "test", "--organization", organization];
    words.extend(scopes.iter().flat_map(|scope| ["--scope", *scope]));
    words.extend(more);
    hookward(engine, &words)
}

pub(crate) async fn guarded(engine: &Engine) -> Service {
    Settings::new(engine.clone()).flag("--auth", "api-key").start().await
}

async fn every_method_asks_who_is_calling_and_for_what(engine: Engine) {
    let service = guarded(&engine).await;
    let channel = service.channel();
    let fields = methods();
    let named: Vec<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(named, METHODS.map(|(method, _)| method), "classify every method");

    let good = api_key(&engine, "clinic", &["admin"], &[]);
    let foreign = api_key(&engine, "other", &["admin"], &[]);
    let revoked = api_key(&engine, "clinic", &["admin"], &[]);
    let (id, _) = revoked.rsplit_once('_').expect("id and secret");
    hookward(&engine, &["api-key", "revoke", id]);
    let expired = api_key(&engine, "clinic", &["admin"], &["--expires-in", "1s"]);
    let last = ("EventService/GetEvent", fields["EventService/GetEvent"]);
    let is = async |token: &str, code: Code| {
        let answer = call(&channel, last, "clinic", Some(&format!("Bearer {token}"))).await;
        (answer.expect_err("there is no such event").code() == code).then_some(())
    };
    // A key is known within a second, and ends when it was told to.
    eventually("the keys", async || is(&foreign, Code::PermissionDenied).await).await;
    eventually("an end", async || is(&expired, Code::Unauthenticated).await).await;

    let swapped = format!("{id}_{}", good.rsplit_once('_').expect("id and secret").1);
    let bad = [
        None,
        Some(String::new()),
        Some(good.clone()),
        Some(format!("Basic {good}")),
        Some("Bearer".to_owned()),
        Some("Bearer whk_".to_owned()),
        Some(format!("Bearer {good}x")),
        Some(format!("Bearer {swapped}")),
        Some(format!("Bearer {revoked}")),
        Some(format!("Bearer {expired}")),
    ];
    let mut answers = Vec::new();
    for (method, scope) in METHODS {
        let one = (method, fields[method]);
        for authorization in &bad {
            let refused = call(&channel, one, "clinic", authorization.as_deref()).await;
            let refused = refused.expect_err("nobody is known by that");
            assert_eq!(refused.code(), Code::Unauthenticated, "{method} {authorization:?}");
            answers.push(seen(&refused));
        }
        let others: Vec<&str> = SCOPES.into_iter().filter(|other| *other != scope).collect();
        let lacking = api_key(&engine, "clinic", &others, &[]);
        let enough = api_key(&engine, "clinic", &[scope], &[]);
        let reason = async |token: &str| {
            let answer = call(&channel, one, "clinic", Some(&format!("Bearer {token}"))).await;
            let Err(refused) = answer else { return "OK".to_owned() };
            refused.get_details_error_info().expect("every error has one").reason
        };
        let known = async |token: &str| {
            let reason = reason(token).await;
            (reason != "UNAUTHENTICATED").then_some(reason)
        };
        let told = eventually("the key is known", async || known(&lacking).await).await;
        assert_eq!(told, "SCOPE_MISSING", "{method}");
        let told = eventually("the key is known", async || known(&enough).await).await;
        assert!(!["SCOPE_MISSING", "ORGANIZATION_DENIED"].contains(&&*told), "{method}: {told}");
        assert_eq!(reason(&foreign).await, "ORGANIZATION_DENIED", "{method}");
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "one answer for every cause");
}

async fn a_revoked_key_opens_nothing_five_seconds_later_at_any_replica(engine: Engine) {
    let service = guarded(&engine).await;
    let mut channels = vec![service.channel()];
    let replica = match engine.url().starts_with("postgres") {
        true => Some(service.replica().await),
        false => None,
    };
    channels.extend(replica.as_ref().map(Service::channel));
    let token = api_key(&engine, "clinic", &["events:read"], &[]);
    let authorization = format!("Bearer {token}");
    let fields = methods();
    let list = ("EventService/ListEvents", fields["EventService/ListEvents"]);
    for channel in &channels {
        eventually("the key", async || {
            call(channel, list, "clinic", Some(&authorization)).await.ok()
        })
        .await;
    }
    let (id, _) = token.rsplit_once('_').expect("id and secret");
    hookward(&engine, &["api-key", "revoke", id]);
    for channel in &channels {
        within(Duration::from_secs(5), "nobody is let in", async || {
            call(channel, list, "clinic", Some(&authorization)).await.err()
        })
        .await;
    }
    assert!(hookward(&engine, &["api-key", "list"]).contains("revoked"));
}
