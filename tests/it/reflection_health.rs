//! Contract: the server describes itself and its health in the standard ways of gRPC and
//! HTTP, so that grpcurl, load balancers and Kubernetes need nothing of ours.

use std::collections::BTreeSet;

use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::admin;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::service::{Service, Settings};

on_both_engines!(a_stopping_server_says_so_before_it_is_gone);

const SERVICES: [&str; 5] = [
    "hookward.v1.AuditService",
    "hookward.v1.DeliveryService",
    "hookward.v1.EventService",
    "hookward.v1.EventTypeService",
    "hookward.v1.SubscriptionService",
];

/// Asks the same through v1 and v1alpha, which differ in nothing but their names.
macro_rules! reflect {
    ($version:ident, $service:expr, $question:ident, $argument:expr, $answer:ident) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let request = $version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::$question($argument)),
        };
        let mut client = ServerReflectionClient::new($service.channel());
        let answers = client.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.expect("it is served").into_inner().next().await;
        match answer.expect("an answer").expect("no error").message_response {
            Some(MessageResponse::$answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn reflection_lists_and_describes_the_services_in_v1_and_v1alpha() {
    let service = Service::start(Engine::sqlite()).await;
    let listed = reflect!(v1, service, ListServices, String::new(), ListServicesResponse);
    // But for the service that was asked.
    let besides = |name: &String| !name.starts_with("grpc.reflection.");
    let names: BTreeSet<_> =
        listed.service.into_iter().map(|one| one.name).filter(besides).collect();
    let older = reflect!(v1alpha, service, ListServices, String::new(), ListServicesResponse);
    let older: BTreeSet<_> =
        older.service.into_iter().map(|one| one.name).filter(besides).collect();
    assert_eq!(names, older);
    for name in SERVICES {
        assert!(names.contains(name), "{name} in {names:?}");
        let found =
            reflect!(v1, service, FileContainingSymbol, name.to_owned(), FileDescriptorResponse);
        assert!(!found.file_descriptor_proto.is_empty());
        let older = reflect!(
            v1alpha,
            service,
            FileContainingSymbol,
            name.to_owned(),
            FileDescriptorResponse
        );
        assert_eq!(found.file_descriptor_proto, older.file_descriptor_proto);
    }
    assert!(names.contains("grpc.health.v1.Health"), "{names:?}");
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    let settings = Settings::new(Engine::sqlite()).env("HOOKWARD_NO_REFLECTION", "true");
    let service = settings.start().await;
    let request = v1::ServerReflectionRequest::default();
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(service.channel());
    let refused = client.server_reflection_info(tokio_stream::once(request)).await;
    assert_eq!(refused.expect_err("it is off").code(), Code::Unimplemented);
}

async fn health(service: &Service, of: &str) -> Result<ServingStatus, tonic::Status> {
    let request = HealthCheckRequest { service: of.to_owned() };
    let response = HealthClient::new(service.channel()).check(request).await?;
    Ok(response.into_inner().status())
}

#[tokio::test]
async fn a_ready_server_is_serving_over_grpc_and_http() {
    let service = Service::start(Engine::sqlite()).await;
    assert_eq!(health(&service, "").await.expect("it is served"), ServingStatus::Serving);
    for name in SERVICES {
        assert_eq!(health(&service, name).await.expect(name), ServingStatus::Serving);
    }
    let unknown = health(&service, "nobody.v1.Service").await.expect_err("it is unknown");
    assert_eq!(unknown.code(), Code::NotFound);
    for path in ["/healthz", "/readyz"] {
        let (status, _) = admin::get(service.admin_address(), path).await.expect("an answer");
        assert_eq!(status, 200, "{path}");
    }
    let (status, _) = admin::get(service.admin_address(), "/nothing").await.expect("an answer");
    assert_eq!(status, 404);
}

async fn a_stopping_server_says_so_before_it_is_gone(engine: Engine) {
    let mut service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([Answer::Held(200)]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;
    clinic.publish("held", "{}").await;
    receiver.received(1).await;
    let request = HealthCheckRequest::default();
    let mut watch = HealthClient::new(service.channel()).watch(request).await;
    let watch = watch.as_mut().expect("it is served").get_mut();
    let status = |answer: HealthCheckResponse| answer.status();
    let first = watch.next().await.expect("at once").expect("no error");
    assert_eq!(status(first), ServingStatus::Serving);

    service.terminate();

    let second = watch.next().await.expect("before the end").expect("no error");
    assert_eq!(status(second), ServingStatus::NotServing);
    eventually("not ready", async || {
        let (status, _) = admin::get(service.admin_address(), "/readyz").await?;
        (status == 503).then_some(())
    })
    .await;
    let alive = admin::get(service.admin_address(), "/healthz").await;
    assert_eq!(alive.expect("an answer").0, 200, "it is alive until it is gone");
    receiver.release();
    service.ends().await;
}
