//! Promise: what events carry and what receivers answer is shown to who asks for it and has a
//! scope of its own for that, and nothing at all is read for who is not known.

use std::process::Command;

use hookward::grpc::pb;
use pb::delivery::State;
use pb::delivery_service_client::DeliveryServiceClient;
use pb::event_service_client::EventServiceClient;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::harness::client::{draft, event_with_id};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

on_both_engines!(payloads_and_answers_ask_for_scopes_of_their_own);

const SECRET: &str = "what only some may see";

/// Makes a key for the organization `clinic`.
fn key(engine: &Engine, scopes: &[&str]) -> String {
    let mut hookward = Command::new(env!("CARGO_BIN_EXE_hookward"));
    hookward.args(["api-key", "create", "--label", "test", "--organization", "clinic"]);
    hookward.args(["--database-url", engine.url()]);
    hookward.args(scopes.iter().flat_map(|scope| ["--scope", *scope]));
    let output = hookward.output().expect("the binary was built with the tests");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn with<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {key}").parse().expect("ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// The scope that a refused caller lacks.
fn lacks(refused: &Status) -> String {
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let info = refused.get_details_error_info().expect("every error has one");
    assert_eq!(info.reason, "SCOPE_MISSING");
    info.metadata["scope"].clone()
}

async fn event_of(
    service: &Service,
    key: &str,
    include_payload: bool,
) -> Result<pb::Event, Status> {
    let request = pb::GetEventRequest {
        organization_id: "clinic".to_owned(),
        event_id: "booking-1".to_owned(),
        include_payload,
    };
    let response = EventServiceClient::new(service.channel()).get_event(with(key, request)).await?;
    Ok(response.into_inner().event.expect("always there"))
}

async fn attempt_of(
    service: &Service,
    key: &str,
    delivery_id: &str,
    include_response_body: bool,
) -> Result<pb::DeliveryAttempt, Status> {
    let request = pb::ListDeliveryAttemptsRequest {
        organization_id: "clinic".to_owned(),
        delivery_id: delivery_id.to_owned(),
        include_response_body,
        ..Default::default()
    };
    let mut client = DeliveryServiceClient::new(service.channel());
    let response = client.list_delivery_attempts(with(key, request)).await?;
    Ok(response.into_inner().attempts.remove(0))
}

async fn payloads_and_answers_ask_for_scopes_of_their_own(engine: Engine) {
    let settings = Settings::new(engine.clone());
    let open = settings.clone().start().await;
    let clinic = open.organization("clinic");
    let answer = Answer::Full(500, Vec::new(), SECRET.as_bytes().to_vec());
    let receiver = Receiver::answering([answer]).await;
    let once = pb::Subscription {
        retry_policy: Some(pb::RetryPolicy::default()),
        ..draft(&receiver, "azodha", "*")
    };
    clinic.create(once).await;
    let json = format!("{{\"name\":\"{SECRET}\"}}");
    let event = event_with_id("booking-1", "booked", &json);
    let attributes = [("name".to_owned(), SECRET.to_owned())].into();
    clinic.publish_event(pb::Event { attributes, subject: SECRET.to_owned(), ..event }).await;
    let delivery = clinic.delivery_of("booking-1").reaches(State::Dead).await.id;
    stop(open).await;

    let service = settings.flag("--auth", "api-key").start().await;
    let reader = key(&engine, &["events:read", "deliveries:read"]);
    let more = ["events:read", "deliveries:read", "payloads:read", "bodies:read"];
    let all = key(&engine, &more);
    for key in [&reader, &all] {
        let event =
            eventually("the key is known", async || event_of(&service, key, false).await.ok());
        let event = event.await;
        assert_eq!(event.payload, None, "left out unless it is asked for");
        assert_eq!((event.attributes.len(), &*event.subject), (0, ""), "as the payload is");
        let attempt = attempt_of(&service, key, &delivery, false).await.expect("it is readable");
        assert!(attempt.response_body.is_empty(), "left out unless it is asked for");
    }

    let refused = event_of(&service, &reader, true).await.expect_err("it lacks the scope");
    assert_eq!(lacks(&refused), "payloads:read");
    let refused = attempt_of(&service, &reader, &delivery, true).await;
    assert_eq!(lacks(&refused.expect_err("it lacks the scope")), "bodies:read");
    let list = pb::ListEventsRequest {
        organization_id: "clinic".to_owned(),
        include_payload: true,
        ..Default::default()
    };
    let mut events = EventServiceClient::new(service.channel());
    let refused = events.list_events(with(&reader, list)).await.expect_err("it lacks the scope");
    assert_eq!(lacks(&refused), "payloads:read");

    let event = event_of(&service, &all, true).await.expect("it has the scope");
    assert_eq!(event.payload, Some(pb::event::Payload::Json(json)));
    assert_eq!((&*event.attributes["name"], &*event.subject), (SECRET, SECRET));
    let attempt = attempt_of(&service, &all, &delivery, true).await.expect("it has the scope");
    assert_eq!(attempt.response_body, SECRET);
}

/// SQLite has one process at a time.
async fn stop(mut service: Service) {
    service.terminate();
    assert!(service.ends().await.success());
}

#[tokio::test]
async fn nothing_is_decoded_for_who_is_not_known() {
    let engine = Engine::sqlite();
    let service = Settings::new(engine.clone()).flag("--auth", "api-key").start().await;
    let key = key(&engine, &["events:publish"]);
    let publish = async |request: Request<Vec<u8>>| {
        let mut client = tonic::client::Grpc::new(service.channel());
        client.ready().await.expect("it is there");
        // Field 1 as bytes, where the method has a text.
        let codec = tonic_prost::ProstCodec::<Vec<u8>, pb::PublishEventsResponse>::default();
        let path = "/hookward.v1.EventService/PublishEvents".parse().expect("a path");
        let answer = client.unary(request, path, codec).await;
        answer.expect_err("0xff is no UTF-8").code()
    };

    assert_eq!(publish(Request::new(vec![0xff])).await, Code::Unauthenticated);
    eventually("the key is known, and what it sends is looked at", async || {
        let code = publish(with(&key, vec![0xff])).await;
        (code == Code::InvalidArgument).then_some(())
    })
    .await;
}
