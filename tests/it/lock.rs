//! Promise: two servers never share a SQLite file.

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::engine::Engine;
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

/// 78 is `EX_CONFIG` of sysexits.h.
#[tokio::test]
async fn a_second_server_on_the_same_file_exits_with_78_and_names_the_holder() {
    let service = Service::start(Engine::sqlite()).await;

    let mut second = service.settings().launch();
    let status = second.ends().await;

    assert_eq!(status.code(), Some(78));
    let written = second.written();
    assert!(written.contains(&service.id().to_string()), "names the holder: {written}");
    assert!(written.contains("hookward.db"), "names the file: {written}");
    // The first goes on.
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "standard", "*").await;
    let id = clinic.publish("invoice.paid", "{}").await;
    clinic.delivery_of(&id).reaches(State::Succeeded).await;
}

#[tokio::test]
async fn the_lock_of_a_killed_server_is_free() {
    let mut service = Service::start(Engine::sqlite()).await;
    for _ in 0..3 {
        service.kill();
        service.restart().await;
    }
    service.organization("clinic").publish("invoice.paid", "{}").await;
}
