//! Promise: every event type of the catalogue reaches its platform's receiver in the
//! platform's shape, signed in the platform's way.
//!
//! Shapes are checked by JSON Schema and signatures by OpenSSL: nothing of ours judges.

use std::collections::BTreeMap;
use std::path::Path;

use hookward::grpc::pb;
use pb::delivery::State;
use serde_json::Value;

use crate::harness::client::{Organization, draft};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;
use crate::harness::signature::{sha256_base64, sha256_hex};
use crate::harness::wire::Received;

on_both_engines!(every_example_arrives_in_its_platforms_shape_and_is_signed);

/// One event type, read over gRPC.
pub(crate) async fn event_type(
    organization: &Organization,
    catalog: &str,
    name: &str,
) -> pb::EventType {
    let request = pb::GetEventTypeRequest {
        organization_id: organization.name(),
        catalog: catalog.to_owned(),
        name: name.to_owned(),
    };
    let response = organization.event_types().get_event_type(request).await;
    response.expect("it is in the catalogue").into_inner().event_type.expect("always there")
}

async fn every_example_arrives_in_its_platforms_shape_and_is_signed(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let request =
        pb::ListEventTypesRequest { organization_id: clinic.name(), ..Default::default() };
    let page = clinic.event_types().list_event_types(request).await.expect("it is readable");
    let types = page.into_inner().event_types;
    assert_eq!(types.len(), 44);

    let mut by_catalog: BTreeMap<String, Vec<pb::EventType>> = BTreeMap::new();
    for event_type in types {
        by_catalog.entry(event_type.catalog.clone()).or_default().push(event_type);
    }
    let counts: Vec<_> = by_catalog.iter().map(|(name, types)| (&**name, types.len())).collect();
    assert_eq!(counts, [("azodha", 12), ("hapihub", 4), ("meetinglawyers", 8), ("telegramd", 20)]);

    for (catalog, types) in by_catalog {
        let organization = service.organization(&catalog);
        let receiver = Receiver::answering([200]).await;
        let signed = draft(&receiver, &catalog, "*");
        let signed = pb::Subscription { signing_enabled: Some(true), ..signed };
        let subscribed = organization.create(signed).await;
        let schema = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("tests/data/envelopes/{catalog}.json")),
        );
        let envelope = serde_json::from_str(&schema.expect("there is one")).expect("it is JSON");

        for event_type in types {
            let request = publish_example(&organization, &receiver, &event_type).await;
            check_shape(&event_type, &envelope, &request);
            check_signature(&catalog, &subscribed.secret, &request);
        }
    }
}

/// Publishes the example of an event type, and gives what arrived.
async fn publish_example(
    organization: &Organization,
    receiver: &Receiver,
    event_type: &pb::EventType,
) -> Received {
    let example = event_type.example_json.clone();
    let payload = (!example.is_empty()).then_some(pb::event::Payload::Json(example));
    let event = pb::Event { r#type: event_type.name.clone(), payload, ..pb::Event::default() };
    let before = receiver.count();
    let published = organization.publish_event(event).await;
    organization.delivery_of(&published.event_id).reaches(State::Succeeded).await;
    let mut requests = receiver.requests();
    assert_eq!(requests.len(), before + 1, "{}", event_type.name);
    requests.remove(before)
}

fn check_shape(event_type: &pb::EventType, envelope: &Value, request: &Received) {
    let name = &event_type.name;
    let body = request.json();
    jsonschema::validate(envelope, &body).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    let schema: Value = serde_json::from_str(&event_type.schema_json).expect("a schema is JSON");
    let example: Option<Value> = (!event_type.example_json.is_empty())
        .then(|| serde_json::from_str(&event_type.example_json).expect("an example is JSON"));
    let described = match event_type.applies_to() {
        pb::event_type::AppliesTo::Body => Some(&body),
        pb::event_type::AppliesTo::Payload => body.get("payload"),
        pb::event_type::AppliesTo::Unspecified => panic!("{name}: it describes nothing"),
    };
    assert_eq!(described, example.as_ref(), "{name}");
    if let Some(described) = described {
        jsonschema::validate(&schema, described).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}

fn check_signature(catalog: &str, secret: &str, request: &Received) {
    let (header, expected) = match catalog {
        "telegramd" => ("TelegraMD-Signature", sha256_hex(secret, &request.body)),
        "azodha" => ("X-Azodha-Signature", sha256_hex(secret, &request.body)),
        "meetinglawyers" => ("X-Signature", sha256_base64(secret, &request.body)),
        "hapihub" => ("X-HapiHub-Signature", sha256_hex(secret, &request.body)),
        other => panic!("no such platform: {other}"),
    };
    assert_eq!(request.header(header), Some(&*expected), "{catalog}");
}
