//! Promise: a receiver gets no more of an event than its subscription's payload mode says.

use hookward::grpc::pb;
use pb::delivery::{DeadReason, State};
use pb::subscription::PayloadMode;

use crate::harness::client::{Organization, draft, event_with_id};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::Service;

on_both_engines!(
    each_mode_shows_what_it_says_and_no_other_byte_changes,
    a_mode_counts_for_what_was_published_before,
    what_cannot_be_hidden_is_not_sent,
    a_mode_that_cannot_be_kept_is_refused,
);

const PAYLOAD: &str =
    "{ \"visit\": 7.10, \"patient\":{\"name\":\"Robin\",\"age\":40},\"notes\" :[1] }";
const MASKED: &str = "{ \"visit\": 7.10, \"patient\":{\"name\":null,\"age\":40},\"notes\" :null }";

fn with_mode(draft: pb::Subscription, mode: PayloadMode, pointers: &[&str]) -> pb::Subscription {
    let masked_pointers = pointers.iter().map(|text| (*text).to_owned()).collect();
    pb::Subscription { payload_mode: mode.into(), masked_pointers, ..draft }
}

/// Publishes under an id of its own, waits for the end, and gives what arrived last.
async fn sent(clinic: &Organization, receiver: &Receiver, id: &str, event_type: &str) -> String {
    clinic.publish_event(event_with_id(id, event_type, PAYLOAD)).await;
    clinic.delivery_of(id).reaches(State::Succeeded).await;
    receiver.requests().last().expect("one arrived").text().to_owned()
}

async fn each_mode_shows_what_it_says_and_no_other_byte_changes(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let pointers = ["/patient/name", "/notes", "/absent"];
    let modes = [
        ("standard", "full", PayloadMode::Full, &[][..]),
        ("standard", "ids", PayloadMode::IdOnly, &[]),
        ("standard", "masks", PayloadMode::Masked, &pointers),
        ("azodha", "flat", PayloadMode::Masked, &pointers),
    ];
    for (profile, event_type, mode, pointers) in modes {
        let draft = with_mode(draft(&receiver, profile, event_type), mode, pointers);
        let shown = clinic.create(draft).await.subscription;
        assert_eq!(shown.payload_mode(), mode);
        assert_eq!(shown.masked_pointers, pointers);
    }

    let full = sent(&clinic, &receiver, "event-1", "full").await;
    assert!(full.ends_with(&format!("\"data\":{PAYLOAD}}}")), "{full}");
    let ids = sent(&clinic, &receiver, "event-2", "ids").await;
    assert!(ids.starts_with(r#"{"type":"ids","timestamp":""#), "{ids}");
    assert!(ids.ends_with(r#""data":{"id":"event-2"}}"#), "{ids}");
    let masks = sent(&clinic, &receiver, "event-3", "masks").await;
    assert!(masks.ends_with(&format!("\"data\":{MASKED}}}")), "{masks}");
    assert_eq!(sent(&clinic, &receiver, "event-4", "flat").await, MASKED);
    // What is hidden from receivers is not hidden from those who may read it.
    let read = clinic.read_event("event-4").await.expect("it is there").payload;
    assert_eq!(read, Some(pb::event::Payload::Json(PAYLOAD.to_owned())));
}

async fn a_mode_counts_for_what_was_published_before(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let id = clinic.subscribe(&receiver, "telegramd", "*").await.id;
    clinic.pause(&id).await.expect("it is active");
    clinic.publish_event(event_with_id("event-1", "visit", PAYLOAD)).await;

    let change = with_mode(pb::Subscription::default(), PayloadMode::Masked, &["/patient"]);
    let change = pb::Subscription { id: id.clone(), ..change };
    let paths = ["payload_mode", "masked_pointers"];
    clinic.try_update(change, &paths).await.expect("it keeps the rules");
    clinic.resume(&id).await.expect("it is paused");

    clinic.delivery_of("event-1").reaches(State::Succeeded).await;
    let request = &receiver.requests()[0];
    let sent = request.text();
    assert!(sent.contains("\"patient\":null") && !sent.contains("Robin"), "{sent}");
}

async fn what_cannot_be_hidden_is_not_sent(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let draft = draft(&receiver, "standard", "*");
    clinic.create(with_mode(draft, PayloadMode::Masked, &["/name"])).await;

    let raw = pb::Event {
        content_type: "text/plain".to_owned(),
        payload: Some(pb::event::Payload::Raw(b"{\"name\":\"Robin\"}".to_vec().into())),
        ..event_with_id("event-1", "visit", "")
    };
    clinic.publish_event(raw).await;

    let dead = clinic.delivery_of("event-1").reaches(State::Dead).await;
    assert_eq!(dead.dead_reason(), DeadReason::NotSendable);
    assert_eq!(receiver.count(), 0);
}

async fn a_mode_that_cannot_be_kept_is_refused(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let cases = [
        ("azodha", PayloadMode::IdOnly, &[][..], "payload_mode", "PAYLOAD_MODE_UNSUPPORTED"),
        ("standard", PayloadMode::Masked, &[], "masked_pointers", "MASKED_POINTERS_COUNT"),
        ("standard", PayloadMode::Full, &["/a"], "masked_pointers", "MASKED_POINTERS_UNUSED"),
        ("standard", PayloadMode::Masked, &["/a", "b"], "masked_pointers[1]", "INVALID_POINTER"),
        ("standard", PayloadMode::Masked, &["/a", "/a"], "masked_pointers[1]", "DUPLICATE_POINTER"),
    ];
    for (profile, mode, pointers, field, reason) in cases {
        let draft = with_mode(draft(&receiver, profile, "*"), mode, pointers);
        let refused = clinic.try_create(draft, "").await.expect_err(reason);
        assert_eq!(violation(&refused), (format!("subscription.{field}"), reason.to_owned()));
    }
    let unknown = pb::Subscription { payload_mode: 9, ..draft(&receiver, "standard", "*") };
    let refused = clinic.try_create(unknown, "").await.expect_err("it is none");
    assert_eq!(violation(&refused).1, "INVALID_PAYLOAD_MODE");
    // Nor can a profile be taken from under a mode.
    let ids = with_mode(draft(&receiver, "standard", "*"), PayloadMode::IdOnly, &[]);
    let ids = clinic.create(pb::Subscription { signing_enabled: Some(false), ..ids }).await;
    let change =
        pb::Subscription { id: ids.id, profile: "azodha".to_owned(), ..Default::default() };
    let refused =
        clinic.try_update(change, &["profile"]).await.expect_err("azodha has no such body");
    assert_eq!(violation(&refused).1, "PAYLOAD_MODE_UNSUPPORTED");
}
