//! Contract: lists come in pages, newest first, without gaps and without repeats; tokens
//! are good for their own request only.

use std::collections::BTreeSet;

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::client::{Organization, draft, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::Service;

on_both_engines!(
    subscriptions_events_and_deliveries_come_newest_first_and_once,
    filters_hold_on_every_page,
    tokens_are_bound_to_their_request,
    page_sizes_have_a_default_and_a_limit,
);

/// A clinic with so many subscriptions, and an event for each.
async fn filled(service: &Service, count: usize) -> (Organization, Vec<String>, Vec<String>) {
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let (mut subscriptions, mut events) = (Vec::new(), Vec::new());
    for number in 0..count {
        let pattern = format!("type.{number}");
        subscriptions.push(clinic.create(draft(&receiver, "azodha", &pattern)).await.id);
        events.push(clinic.publish(&pattern, "{}").await);
    }
    for event in &events {
        clinic.delivery_of(event).reaches(State::Succeeded).await;
    }
    subscriptions.reverse();
    events.reverse();
    (clinic, subscriptions, events)
}

async fn subscriptions_events_and_deliveries_come_newest_first_and_once(engine: Engine) {
    let service = Service::start(engine).await;
    let (clinic, subscriptions, events) = filled(&service, 23).await;

    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListSubscriptionsRequest {
            organization_id: clinic.name(),
            page_size: 5,
            page_token: token,
            ..Default::default()
        };
        let page = clinic.subscriptions().list_subscriptions(request).await;
        let page = page.expect("it is readable").into_inner();
        assert!(page.subscriptions.len() <= 5);
        seen.extend(page.subscriptions.into_iter().map(|one| one.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, subscriptions);

    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = list_events(&clinic, 5, &token).await.expect("it is readable");
        assert!(page.events.len() <= 5);
        assert!(page.events.iter().all(|one| one.payload.is_none() && one.payload_bytes == 2));
        seen.extend(page.events.into_iter().map(|one| one.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, events);

    let filter = pb::ListDeliveriesRequest { page_size: 5, ..Default::default() };
    let seen: Vec<_> = clinic.list(filter).await.into_iter().map(|one| one.event_id).collect();
    assert_eq!(seen, events);
}

async fn list_events(
    clinic: &Organization,
    page_size: i32,
    page_token: &str,
) -> Result<pb::ListEventsResponse, tonic::Status> {
    let request = pb::ListEventsRequest {
        organization_id: clinic.name(),
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    Ok(clinic.events().list_events(request).await?.into_inner())
}

async fn filters_hold_on_every_page(engine: Engine) {
    let service = Service::start(engine).await;
    let (clinic, subscriptions, events) = filled(&service, 7).await;
    let subscription_id = subscriptions[2].clone();
    let list = async |filter: pb::ListDeliveriesRequest| {
        let filter = pb::ListDeliveriesRequest { page_size: 2, ..filter };
        clinic.list(filter).await.into_iter().map(|one| one.event_id).collect::<Vec<_>>()
    };
    let all = pb::ListDeliveriesRequest::default;

    let of_subscription = pb::ListDeliveriesRequest { subscription_id, ..all() };
    assert_eq!(list(of_subscription).await, [events[2].clone()]);
    let succeeded = pb::ListDeliveriesRequest { states: vec![State::Succeeded.into()], ..all() };
    assert_eq!(list(succeeded).await, events);
    let dead = pb::ListDeliveriesRequest { states: vec![State::Dead.into()], ..all() };
    assert_eq!(list(dead).await, [""; 0]);
    let exact = pb::ListDeliveriesRequest { event_type_pattern: "type.3".into(), ..all() };
    assert_eq!(list(exact).await, [events[3].clone()]);
    let prefix = pb::ListDeliveriesRequest { event_type_pattern: "type.*".into(), ..all() };
    assert_eq!(list(prefix).await, events);
    let account = pb::ListDeliveriesRequest { account_id: "nobody".into(), ..all() };
    assert_eq!(list(account).await, [""; 0]);
    let first = clinic.deliveries_of(&events[6]).await.remove(0).create_time;
    let later = clinic.deliveries_of(&events[4]).await.remove(0).create_time;
    let range = pb::TimeRange { start_time: first, end_time: later };
    let in_range = pb::ListDeliveriesRequest { create_time: Some(range), ..all() };
    assert_eq!(list(in_range).await, events[5..]);
}

async fn tokens_are_bound_to_their_request(engine: Engine) {
    let service = Service::start(engine).await;
    let (clinic, ..) = filled(&service, 5).await;
    let first = list_events(&clinic, 2, "").await.expect("it is readable");
    let token = first.next_page_token;
    assert!(!token.is_empty());
    let expect_refused = |status: tonic::Status| {
        assert_eq!(violation(&status), ("page_token".into(), "INVALID_PAGE_TOKEN".into()));
    };

    let next = list_events(&clinic, 3, &token).await.expect("another size is allowed");
    let ids = |page: &[pb::Event]| page.iter().map(|one| one.id.clone()).collect::<BTreeSet<_>>();
    assert!(ids(&first.events).is_disjoint(&ids(&next.events)));

    let other = pb::ListEventsRequest {
        organization_id: clinic.name(),
        event_type_pattern: "type.*".to_owned(),
        page_token: token.clone(),
        ..Default::default()
    };
    expect_refused(clinic.events().list_events(other).await.expect_err("another filter"));
    let stranger = service.organization("stranger");
    expect_refused(list_events(&stranger, 2, &token).await.expect_err("not its token"));
    let deliveries = pb::ListDeliveriesRequest {
        organization_id: clinic.name(),
        page_token: token.clone(),
        ..Default::default()
    };
    let refused = clinic.deliveries().list_deliveries(deliveries).await;
    expect_refused(refused.expect_err("another method"));
    for edited in ["x", "AAAA", &token[1..], &format!("{token}A")] {
        expect_refused(list_events(&clinic, 2, edited).await.expect_err("edited"));
    }
}

async fn page_sizes_have_a_default_and_a_limit(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    for _ in 0..2 {
        let events = (0..600).map(|_| event("many", "{}")).collect();
        clinic.try_publish(events).await.expect("it keeps the rules");
    }

    let count = async |size| list_events(&clinic, size, "").await.expect("a size").events.len();
    assert_eq!(count(0).await, 50);
    assert_eq!(count(7).await, 7);
    assert_eq!(count(1000).await, 1000);
    assert_eq!(count(i32::MAX).await, 1000);
    let refused = list_events(&clinic, -1, "").await.expect_err("negative");
    assert_eq!(violation(&refused), ("page_size".into(), "INVALID_PAGE_SIZE".into()));
}

#[tokio::test]
async fn the_catalogue_is_paged_by_catalogue_and_name() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListEventTypesRequest {
            organization_id: clinic.name(),
            page_size: 7,
            page_token: token,
            ..Default::default()
        };
        let page = clinic.event_types().list_event_types(request).await;
        let page = page.expect("it is readable").into_inner();
        seen.extend(page.event_types.into_iter().map(|one| (one.catalog, one.name)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 44);
    assert!(seen.is_sorted());
}
