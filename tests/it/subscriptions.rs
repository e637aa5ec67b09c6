//! Contract: what can be asked and changed of a subscription besides its limits: masks,
//! etags, write-only values, trials.

use std::time::Duration;

use hookward::grpc::pb;
use tonic::Code;

use crate::harness::client::{draft, duration, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::Service;

on_both_engines!(
    what_is_left_out_gets_its_default_and_is_told,
    a_mask_writes_its_fields_and_no_others,
    a_stale_etag_is_aborted_and_a_current_one_is_not,
    a_hidden_header_keeps_its_value_through_an_update,
    validate_only_checks_everything_and_changes_nothing,
    signing_can_be_switched_on_once_there_is_a_secret,
    profiles_tell_what_callers_need_to_choose_one,
);

async fn what_is_left_out_gets_its_default_and_is_told(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let bare = pb::Subscription {
        url: receiver.url(),
        event_patterns: vec!["*".to_owned()],
        ..Default::default()
    };

    let made = clinic.create(bare).await.subscription;

    assert_eq!(made.profile, "standard");
    assert_eq!(made.signing_enabled, Some(true));
    assert_eq!(made.max_in_flight, 16);
    assert_eq!(made.attempt_timeout, Some(duration(Duration::from_secs(15))));
    assert_eq!(made.state(), pb::subscription::State::Active);
    assert_eq!(made.organization_id, "clinic");
    let (minute, hour) = (60, 3600);
    let seconds =
        [5, 30, 2 * minute, 10 * minute, 30 * minute, hour, 3 * hour, 6 * hour, 12 * hour];
    let mut expected: Vec<u64> = seconds.into_iter().map(|seconds| seconds * 1000).collect();
    expected.extend([24 * hour * 1000; 2]);
    assert_eq!(made.retry_policy, Some(waits(&expected)));
    assert!(made.id.starts_with("sub_") && made.id.len() == 17, "{}", made.id);
    assert!(made.etag.starts_with('"') && made.etag.ends_with('"'), "{}", made.etag);
    assert_eq!(clinic.get(&made.id).await.expect("it is there"), made);
}

async fn a_mask_writes_its_fields_and_no_others(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let before = clinic.subscribe(&receiver, "azodha", "a").await.subscription;

    let change = pb::Subscription {
        id: before.id.clone(),
        name: "renamed".to_owned(),
        event_patterns: vec!["b".to_owned()],
        max_in_flight: 99,
        ..Default::default()
    };
    let after = clinic.try_update(change, &["name", "event_patterns"]).await.expect("it is there");

    assert_ne!(after.etag, before.etag);
    let expected = pb::Subscription {
        name: "renamed".to_owned(),
        event_patterns: vec!["b".to_owned()],
        etag: after.etag.clone(),
        update_time: after.update_time,
        ..before
    };
    assert_eq!(after, expected);

    // Without a mask: the fields that are set.
    let request = pb::UpdateSubscriptionRequest {
        organization_id: clinic.name(),
        subscription: Some(pb::Subscription {
            id: after.id.clone(),
            max_in_flight: 3,
            ..Default::default()
        }),
        ..Default::default()
    };
    let response = clinic.subscriptions().update_subscription(request).await;
    let last = response.expect("it is there").into_inner().subscription.expect("always there");
    assert_eq!((last.max_in_flight, &*last.name), (3, "renamed"));
}

async fn a_stale_etag_is_aborted_and_a_current_one_is_not(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let first = clinic.subscribe(&receiver, "azodha", "*").await.subscription;
    let named = |name: &str, from: &pb::Subscription| pb::Subscription {
        name: name.to_owned(),
        ..from.clone()
    };

    let second = clinic.try_update(named("second", &first), &["name"]).await.expect("current");
    let stale = clinic.try_update(named("third", &first), &["name"]).await.expect_err("stale");

    assert_eq!(stale.code(), Code::Aborted);
    assert_eq!(clinic.get(&first.id).await.expect("it is there").name, "second");
    let mut delete = pb::DeleteSubscriptionRequest {
        organization_id: clinic.name(),
        subscription_id: first.id.clone(),
        etag: first.etag,
        allow_missing: false,
    };
    let stale = clinic.subscriptions().delete_subscription(delete.clone()).await;
    assert_eq!(stale.expect_err("stale").code(), Code::Aborted);
    delete.etag = second.etag;
    clinic.subscriptions().delete_subscription(delete).await.expect("current");
}

async fn a_hidden_header_keeps_its_value_through_an_update(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let headers = [("X-Api-Key", "k-1"), ("X-Tenant", "7")];
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers = headers.collect();
    let draft = pb::Subscription { headers, ..draft(&receiver, "azodha", "*") };
    let mut shown = clinic.create(draft).await.subscription;
    assert_eq!((&*shown.headers["X-Api-Key"], &*shown.headers["X-Tenant"]), ("***", "7"));

    shown.headers.insert("X-Tenant".to_owned(), "8".to_owned());
    let id = shown.id.clone();
    clinic.try_update(shown, &["headers"]).await.expect("*** keeps the value");
    // A second for the new values to reach every dispatcher.
    let request = crate::harness::eventually::eventually("the new headers", async || {
        let before = receiver.count();
        clinic.publish("invoice.paid", "{}").await;
        let request = receiver.received(before + 1).await.remove(before);
        (request.header("X-Tenant") == Some("8")).then_some(request)
    })
    .await;
    assert_eq!(request.header("X-Api-Key"), Some("k-1"));

    let mut unknown = clinic.get(&id).await.expect("it is there");
    unknown.headers.insert("X-Token".to_owned(), "***".to_owned());
    let refused = clinic.try_update(unknown, &["headers"]).await.expect_err("none is stored");
    assert_eq!(violation(&refused).1, "HEADER_VALUE");
}

async fn validate_only_checks_everything_and_changes_nothing(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let trial = |subscription| pb::CreateSubscriptionRequest {
        organization_id: "clinic".to_owned(),
        subscription: Some(subscription),
        validate_only: true,
        ..Default::default()
    };

    let good = trial(draft(&receiver, "standard", "*"));
    let tried = clinic.subscriptions().create_subscription(good).await;
    let tried = tried.expect("it keeps the rules").into_inner();
    let subscription = tried.subscription.expect("always there");
    assert_eq!((&*subscription.id, &*subscription.etag, tried.signing_secret), ("", "", None));
    assert_eq!(subscription.max_in_flight, 16, "as it would be stored");
    let bad = trial(pb::Subscription { max_in_flight: 257, ..draft(&receiver, "standard", "*") });
    let refused = clinic.subscriptions().create_subscription(bad).await.expect_err("the limit");
    assert_eq!(violation(&refused).0, "subscription.max_in_flight");

    let stored = clinic.subscribe(&receiver, "standard", "*").await.subscription;
    let change = pb::UpdateSubscriptionRequest {
        organization_id: clinic.name(),
        subscription: Some(pb::Subscription { name: "tried".to_owned(), ..stored.clone() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["name".to_owned()] }),
        validate_only: true,
    };
    let tried = clinic.subscriptions().update_subscription(change).await;
    let tried = tried.expect("it keeps the rules").into_inner().subscription;
    assert_eq!(tried.expect("always there").name, "tried");
    let request =
        pb::ListSubscriptionsRequest { organization_id: clinic.name(), ..Default::default() };
    let all = clinic.subscriptions().list_subscriptions(request).await;
    assert_eq!(all.expect("it is readable").into_inner().subscriptions, [stored]);
}

async fn signing_can_be_switched_on_once_there_is_a_secret(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let unsigned = clinic.subscribe(&receiver, "telegramd", "*").await.subscription;
    let signed = pb::Subscription {
        id: unsigned.id.clone(),
        signing_enabled: Some(true),
        ..Default::default()
    };

    let refused = clinic.try_update(signed.clone(), &["signing_enabled"]).await;
    assert_eq!(refused.expect_err("no secret").code(), Code::FailedPrecondition);
    clinic.rotate(&unsigned.id, Duration::ZERO).await;
    let after = clinic.try_update(signed, &["signing_enabled"]).await.expect("there is one now");
    assert_eq!(after.signing_enabled, Some(true));
}

async fn profiles_tell_what_callers_need_to_choose_one(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let request = pb::ListProfilesRequest { organization_id: clinic.name() };
    let profiles = clinic.subscriptions().list_profiles(request).await;
    let profiles = profiles.expect("it is readable").into_inner().profiles;

    let told = profiles.iter().map(|profile| {
        assert!(profile.built_in && !profile.description.is_empty());
        let header = profile.signature_header.to_lowercase();
        let signature = (header, profile.signed_by_default);
        // Names of headers are compared without case.
        (&*profile.name, signature, &*profile.success_statuses, profile.ping_supported)
    });
    let expected = [
        ("azodha", ("x-azodha-signature".to_owned(), true), "2xx", true),
        ("hapihub", ("x-hapihub-signature".to_owned(), false), "200", true),
        ("meetinglawyers", ("x-signature".to_owned(), true), "2xx", true),
        ("standard", ("webhook-signature".to_owned(), true), "2xx", true),
        ("telegramd", ("telegramd-signature".to_owned(), false), "2xx", false),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}
