//! Promise: another organization's id looks exactly like one that does not exist. Every
//! method of the descriptors is called with what is another's, name by name and with all at
//! once, and its answer is, byte for byte, the one for what never was. A method that has no
//! class here fails, and so does a field that looks like a name and is none in `name.rs`.

mod estate;
mod name;
mod trial;

use std::collections::{BTreeMap, BTreeSet};

use hookward::grpc::pb;
use pb::audit_service_client::AuditServiceClient;
use pb::delivery::State;
use tonic::{Code, Status};

use self::estate::Estate;
use self::name::Name;
use self::trial::Trial;
use crate::harness::client::{draft, event_with_id};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::Receiver;
use crate::harness::rpc::Protocol;
use crate::harness::service::{Service, Settings};

on_both_engines!(
    foreign_ids_answer_as_missing_ones_do_byte_for_byte,
    lists_hold_nothing_of_other_organizations,
    the_same_event_id_is_another_event_in_another_organization,
    connections_are_used_again_but_never_by_another_subscription,
);

/// What a method does with what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Shows what its ids name.
    ReadsOne,
    /// Changes, or acts on, what its ids name.
    WritesOne,
    /// Shows all that is there; ids narrow it.
    Lists,
    /// Makes something new.
    Creates,
    /// Takes events in.
    Publishes,
    /// Takes away all that is about somebody.
    Purges,
    /// Shows everybody the same.
    Catalogue,
}

const METHODS: [(&str, Class); 27] = [
    ("AuditService/ListAuditEntries", Class::Lists),
    ("DeliveryService/CancelDelivery", Class::WritesOne),
    ("DeliveryService/GetDelivery", Class::ReadsOne),
    ("DeliveryService/ListDeliveries", Class::Lists),
    ("DeliveryService/ListDeliveryAttempts", Class::ReadsOne),
    ("DeliveryService/RetryDelivery", Class::WritesOne),
    ("EventService/GetEvent", Class::ReadsOne),
    ("EventService/ListEvents", Class::Lists),
    ("EventService/PublishEvents", Class::Publishes),
    ("EventService/PurgeEvent", Class::WritesOne),
    ("EventService/PurgeSubject", Class::Purges),
    ("EventTypeService/GetEventType", Class::Catalogue),
    ("EventTypeService/ListEventTypes", Class::Catalogue),
    ("SubscriptionService/ActivateSubscription", Class::WritesOne),
    ("SubscriptionService/CreateSubscription", Class::Creates),
    ("SubscriptionService/DeactivateSubscription", Class::WritesOne),
    ("SubscriptionService/DeleteSubscription", Class::WritesOne),
    ("SubscriptionService/GetSubscription", Class::ReadsOne),
    ("SubscriptionService/ListProfiles", Class::Catalogue),
    ("SubscriptionService/ListSigningSecrets", Class::ReadsOne),
    ("SubscriptionService/ListSubscriptions", Class::Lists),
    ("SubscriptionService/PauseSubscription", Class::WritesOne),
    ("SubscriptionService/PingSubscription", Class::WritesOne),
    ("SubscriptionService/ResumeSubscription", Class::WritesOne),
    ("SubscriptionService/RevokeSigningSecret", Class::WritesOne),
    ("SubscriptionService/RotateSigningSecret", Class::WritesOne),
    ("SubscriptionService/UpdateSubscription", Class::WritesOne),
];
/// Ends its subscription: the last one that is called for something of the caller's own.
const LAST: &str = "SubscriptionService/DeleteSubscription";

impl Class {
    /// Whether a request that names nothing is none.
    fn needs_ids(self) -> bool {
        match self {
            Class::ReadsOne | Class::WritesOne => true,
            Class::Lists | Class::Creates | Class::Publishes | Class::Purges | Class::Catalogue => {
                false
            }
        }
    }

    /// Whether it leaves something behind, under names that others may have as well.
    fn makes(self) -> bool {
        match self {
            Class::Creates | Class::Publishes => true,
            Class::ReadsOne
            | Class::WritesOne
            | Class::Lists
            | Class::Purges
            | Class::Catalogue => false,
        }
    }
}

#[test]
fn every_method_has_its_class() {
    let protocol = Protocol::served();
    let served: BTreeSet<&str> = protocol.methods().into_iter().collect();
    let known: BTreeSet<&str> = METHODS.into_iter().map(|(method, _)| method).collect();
    let unknown: Vec<_> = served.difference(&known).collect();
    assert!(unknown.is_empty(), "say what these methods do: {unknown:?}");
    let gone: Vec<_> = known.difference(&served).collect();
    assert!(gone.is_empty(), "these methods are gone: {gone:?}");
    for method in served {
        let fields = protocol.request(method);
        let names: Vec<Name> = fields.iter().filter_map(Name::of).collect();
        assert!(names.contains(&Name::Organization), "{method} is for no organization");
    }
}

async fn foreign_ids_answer_as_missing_ones_do_byte_for_byte(engine: Engine) {
    let service = Settings::new(engine.clone()).flag("--auth", "api-key").start().await;
    let protocol = &Protocol::served();
    let owner = &Estate::of("ada-clinic", &service, &engine, protocol).await;
    let stranger = &Estate::of("bob-clinic", &service, &engine, protocol).await;
    let before = owner.standing(protocol).await;

    // What is made under another's names is the stranger's own, and would be listed.
    let (makers, others): (Vec<_>, Vec<_>) =
        METHODS.into_iter().partition(|(_, class)| class.makes());
    for (method, class) in others.into_iter().chain(makers) {
        let trial = Trial { protocol, owner, stranger, method, class };
        trial.one_by_one().await;
        trial.all_at_once().await;
        trial.forged_tokens().await;
    }

    assert_eq!(owner.standing(protocol).await, before, "and nothing of it happened");
    // The same requests for something of the caller's own are good: it was the names.
    let (last, others): (Vec<_>, Vec<_>) =
        METHODS.into_iter().partition(|(method, _)| *method == LAST);
    for (method, class) in others.into_iter().chain(last) {
        let answer = stranger.call(method, stranger.request(protocol, method, class)).await;
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        assert!(matches!(code, Code::Ok | Code::FailedPrecondition), "{method}: {answer:?}");
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
    let mut audit = AuditServiceClient::new(service.channel());
    let entries =
        pb::ListAuditEntriesRequest { organization_id: stranger.name(), ..Default::default() };
    let entries = audit.list_audit_entries(entries).await.expect("it is readable");
    assert_eq!(entries.into_inner().entries, []);
    let events = pb::ListEventsRequest { organization_id: stranger.name(), ..Default::default() };
    let events = stranger.events().list_events(events).await.expect("it is readable");
    assert_eq!(events.into_inner().events, []);
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
