//! Promise: where the operator has a proxy everything goes through it, and while it does
//! not work deliveries wait without spending anything.

use hookward::grpc::pb;
use pb::delivery::State;
use pb::delivery_attempt::Outcome;
use tokio::net::TcpSocket;

use crate::harness::authority::Certificate;
use crate::harness::client::draft;
use crate::harness::connect_proxy::ConnectProxy;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::Receiver;
use crate::harness::service::Settings;

on_both_engines!(
    deliveries_wait_for_the_proxy_and_go_through_it,
    a_receiver_that_the_proxy_cannot_reach_is_down,
);

/// A port of this machine where nobody listens, and that nobody else gets.
fn silent_port() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback has a free port");
    let address = socket.local_addr().expect("it is bound").to_string();
    (socket, address)
}

async fn deliveries_wait_for_the_proxy_and_go_through_it(engine: Engine) {
    let (socket, address) = silent_port();
    let settings = Settings::new(engine).flag("--egress-proxy", &address);
    let service = settings.start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::secure(Certificate::Good, [200]).await;
    let once = pb::Subscription {
        retry_policy: Some(pb::RetryPolicy::default()),
        ..draft(&receiver, "standard", "*")
    };
    let subscribed = clinic.create(once).await;

    let id = clinic.publish("a", "{}").await;
    eventually("the proxy is found missing", async || {
        let failures = service.metric("hookward_egress_proxy_failures_total").await?;
        (0.0 < failures).then_some(())
    })
    .await;
    let waiting = |delivery: &pb::Delivery| delivery.state() == State::Pending;
    let delivery = clinic.delivery_of(&id).is("waiting", waiting).await;
    assert_eq!((delivery.attempt_count, delivery.last_attempt), (0, None));
    let circuit = clinic.get(&subscribed.id).await.expect("it is there").circuit;
    assert_eq!(circuit.expect("this replica sends").consecutive_failures, 0);

    let proxy = ConnectProxy::at(socket);
    let delivery = clinic.delivery_of(&id).reaches(State::Succeeded).await;
    assert_eq!(delivery.attempt_count, 1, "there was one attempt, and it succeeded");
    assert_eq!((receiver.count(), proxy.tunnels()), (1, 1));
}

async fn a_receiver_that_the_proxy_cannot_reach_is_down(engine: Engine) {
    let (socket, address) = silent_port();
    let proxy = ConnectProxy::at(socket);
    let settings = Settings::new(engine).flag("--egress-proxy", &address);
    let service = settings.start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let (_nobody, gone) = silent_port();
    let once = pb::Subscription {
        url: format!("https://{gone}/"),
        retry_policy: Some(pb::RetryPolicy::default()),
        ..draft(&receiver, "standard", "*")
    };
    clinic.create(once).await;

    let id = clinic.publish("a", "{}").await;

    let delivery = clinic.delivery_of(&id).reaches(State::Dead).await;
    let last = delivery.last_attempt.expect("there was one");
    assert_eq!(last.outcome(), Outcome::ConnectError);
    assert_eq!(proxy.tunnels(), 1);
}
