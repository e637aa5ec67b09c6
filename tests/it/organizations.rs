//! Promise: another organization's id looks exactly like one that does not exist.

use std::collections::{BTreeMap, BTreeSet};

use hookward::grpc::pb;
use pb::audit_service_client::AuditServiceClient;
use pb::delivery::State;
use tonic::{Code, Status};

use crate::harness::client::{Organization, draft, event_with_id};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::Receiver;
use crate::harness::refusal::seen;
use crate::harness::service::Service;

on_both_engines!(
    foreign_ids_answer_as_missing_ones_do_byte_for_byte,
    lists_hold_nothing_of_other_organizations,
    the_same_event_id_is_another_event_in_another_organization,
    connections_are_used_again_but_never_by_another_subscription,
);

/// The same id with another last character: well-formed, and nobody's.
fn missing_like(id: &str) -> String {
    let (rest, last) = id.split_at(id.len() - 1);
    format!("{rest}{}", if last == "1" { "2" } else { "1" })
}

/// What a caller sees of a refusal, with the id that he asked for taken out.
fn without(id: &str, status: &Status) -> (Code, String, Vec<u8>) {
    let (code, message, mut details) = seen(status);
    let id = id.as_bytes();
    while let Some(at) = details.windows(id.len()).position(|window| window == id) {
        details[at..at + id.len()].fill(b'#');
    }
    (code, message.replace(std::str::from_utf8(id).expect("it was text"), "#"), details)
}

async fn foreign_ids_answer_as_missing_ones_do_byte_for_byte(engine: Engine) {
    let service = Service::start(engine).await;
    let (owner, stranger) = (service.organization("owner"), service.organization("stranger"));
    let receiver = Receiver::answering([200]).await;
    let subscribed = owner.subscribe(&receiver, "standard", "*").await;
    owner.publish_event(event_with_id("known-event-1", "invoice.paid", "{}")).await;
    let delivery = owner.delivery_of("known-event-1").reaches(State::Succeeded).await;
    let own = owner.publish("invoice.paid", "{}").await;

    let ids =
        [(&*subscribed.id, &*delivery.id, "known-event-1"), (&subscribed.id, &delivery.id, &own)];
    for (subscription, delivery, event) in ids {
        for number in 0..METHODS {
            let id = match number {
                0 | 16 => event,
                1..=3 => delivery,
                _ => subscription,
            };
            let missing = missing_like(id);
            let foreign = call(&stranger, number, id).await.expect_err("it is the owner's");
            let none = call(&stranger, number, &missing).await.expect_err("it is nobody's");
            assert_eq!(foreign.code(), Code::NotFound, "method {number}: {foreign:?}");
            assert_eq!(without(id, &foreign), without(&missing, &none), "method {number}");
        }
    }
    // And nothing of it happened.
    let untouched = owner.get(&subscribed.id).await.expect("it is there");
    assert_eq!(untouched, subscribed.subscription);
}

const METHODS: u8 = 17;

/// One of the methods that take an id.
async fn call(caller: &Organization, number: u8, id: &str) -> Result<(), Status> {
    let organization_id = caller.name();
    let (delivery_id, subscription_id) = (id.to_owned(), id.to_owned());
    match number {
        0 => caller.read_event(id).await.map(drop),
        1 => caller.delivery(id).await.map(drop),
        2 => {
            let request = pb::ListDeliveryAttemptsRequest {
                organization_id,
                delivery_id,
                ..Default::default()
            };
            caller.deliveries().list_delivery_attempts(request).await.map(drop)
        }
        3 => {
            let request = pb::CancelDeliveryRequest { organization_id, delivery_id };
            caller.deliveries().cancel_delivery(request).await.map(drop)
        }
        4 => caller.get(id).await.map(drop),
        5 => caller.pause(id).await,
        6 => caller.resume(id).await,
        7 => caller.activate(id).await,
        8 => caller.deactivate(id).await,
        9 => caller.ping(id).await.map(drop),
        10 => {
            let change = pb::Subscription {
                id: subscription_id,
                name: "taken".into(),
                ..Default::default()
            };
            caller.try_update(change, &["name"]).await.map(drop)
        }
        11 => {
            let request = pb::RotateSigningSecretRequest {
                organization_id,
                subscription_id,
                ..Default::default()
            };
            caller.subscriptions().rotate_signing_secret(request).await.map(drop)
        }
        12 => {
            let request = pb::ListSigningSecretsRequest { organization_id, subscription_id };
            caller.subscriptions().list_signing_secrets(request).await.map(drop)
        }
        13 => {
            let signing_secret_id = "sec_0000000000000".to_owned();
            let request = pb::RevokeSigningSecretRequest {
                organization_id,
                subscription_id,
                signing_secret_id,
            };
            caller.subscriptions().revoke_signing_secret(request).await.map(drop)
        }
        14 => {
            let request = pb::DeleteSubscriptionRequest {
                organization_id,
                subscription_id,
                etag: "\"1\"".to_owned(),
                allow_missing: false,
            };
            caller.subscriptions().delete_subscription(request).await.map(drop)
        }
        15 => caller.delete(id).await,
        _ => caller.purge(id).await.map(drop),
    }
}

async fn lists_hold_nothing_of_other_organizations(engine: Engine) {
    let service = Service::start(engine).await;
    let (owner, stranger) = (service.organization("owner"), service.organization("stranger"));
    let receiver = Receiver::answering([200]).await;
    let subscribed = owner.subscribe(&receiver, "standard", "*").await;
    let event_id = owner.publish("invoice.paid", "{}").await;
    owner.delivery_of(&event_id).reaches(State::Succeeded).await;

    let filters = [
        pb::ListDeliveriesRequest::default(),
        pb::ListDeliveriesRequest { subscription_id: subscribed.id, ..Default::default() },
        pb::ListDeliveriesRequest { event_id, ..Default::default() },
    ];
    for filter in filters {
        assert_eq!(owner.list(filter.clone()).await.len(), 1);
        assert_eq!(stranger.list(filter).await, []);
    }
    let events = pb::ListEventsRequest { organization_id: stranger.name(), ..Default::default() };
    let events = stranger.events().list_events(events).await.expect("it is readable");
    assert_eq!(events.into_inner().events, []);
    let mut audit = AuditServiceClient::new(service.channel());
    let entries =
        pb::ListAuditEntriesRequest { organization_id: stranger.name(), ..Default::default() };
    let entries = audit.list_audit_entries(entries).await.expect("it is readable");
    assert_eq!(entries.into_inner().entries, []);
    let subscriptions =
        pb::ListSubscriptionsRequest { organization_id: stranger.name(), ..Default::default() };
    let subscriptions = stranger.subscriptions().list_subscriptions(subscriptions).await;
    assert_eq!(subscriptions.expect("it is readable").into_inner().subscriptions, []);
}

async fn the_same_event_id_is_another_event_in_another_organization(engine: Engine) {
    let service = Service::start(engine).await;
    let (a, b) = (service.organization("a"), service.organization("b"));
    let receiver = Receiver::answering([200]).await;
    for organization in [&a, &b] {
        organization.create(draft(&receiver, "azodha", "*")).await;
    }

    let first = a.publish_event(event_with_id("shared-id", "invoice.paid", r#"{"of":"a"}"#)).await;
    let second = b.publish_event(event_with_id("shared-id", "invoice.paid", r#"{"of":"b"}"#)).await;

    assert!(!first.duplicate && !second.duplicate);
    for (organization, payload) in [(&a, r#"{"of":"a"}"#), (&b, r#"{"of":"b"}"#)] {
        let read = organization.read_event("shared-id").await.expect("it is there");
        assert_eq!(read.payload, Some(pb::event::Payload::Json(payload.to_owned())));
    }
}

async fn connections_are_used_again_but_never_by_another_subscription(engine: Engine) {
    let service = Service::start(engine).await;
    let receiver = Receiver::answering([200]).await;
    let callers = [("a", "/1"), ("a", "/2"), ("b", "/3")];
    for (organization, path) in callers {
        let url = receiver.url_at(path);
        let draft = pb::Subscription { url, ..draft(&receiver, "azodha", "*") };
        service.organization(organization).create(draft).await;
    }

    // One after the other, so that a connection is free when the next request starts.
    for _ in 0..5 {
        for organization in ["a", "b"] {
            let organization = service.organization(organization);
            let id = organization.publish("invoice.paid", "{}").await;
            eventually("the end of its deliveries", async || {
                let found = organization.deliveries_of(&id).await;
                found.iter().all(|one| one.state() == State::Succeeded).then_some(())
            })
            .await;
        }
    }

    let mut users: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for request in receiver.requests() {
        users.entry(request.connection).or_default().insert(request.target);
    }
    assert_eq!(receiver.count(), 15);
    assert!(users.values().all(|paths| paths.len() == 1), "{users:?}");
    assert_eq!(users.len(), 3, "each has one connection: {users:?}");
}
