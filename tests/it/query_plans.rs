//! Promise: what a statement costs does not follow from how much is stored: on PostgreSQL
//! every statement finds its rows by an index, also one whose plan was made, and kept,
//! while the tables were empty.

use hookward::grpc::pb;
use pb::delivery::State;

use crate::harness::client::{draft, event_with_id, waits};
use crate::harness::engine::Engine;
use crate::harness::postgres::Cluster;
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

/// Enough rounds that PostgreSQL keeps plans: it does after five.
const ROUNDS: usize = 8;

/// Tables of deliveries, and of whose they are, that were read from end to end.
const READ_WHOLE: &str = "
    SELECT relname || ' ' || seq_scan FROM pg_stat_user_tables
    WHERE seq_scan > 0
        AND relname ~ '^(due|undelivered|event|attempt|subscription|signing_secret|ownership)'";

#[tokio::test(flavor = "multi_thread")]
async fn no_table_is_read_from_end_to_end() {
    let Some(cluster) = Cluster::own("") else { return };
    let mut service = Service::start(Engine::postgres_on(&cluster)).await;
    let clinic = service.organization("clinic");
    let recovering = Receiver::answering([503, 200].repeat(ROUNDS)).await;
    let failing = Receiver::answering([404]).await;
    let held = Receiver::answering([200]).await;
    clinic.create(draft(&recovering, "azodha", "recovers")).await;
    let once = pb::Subscription {
        retry_policy: Some(waits(&[100])),
        ..draft(&failing, "azodha", "fails")
    };
    clinic.create(once).await;
    let paused = clinic.create(draft(&held, "azodha", "waits")).await;
    // What the tables' making and the start have read does not count.
    cluster.sql("hookward", "VACUUM ANALYZE");
    cluster.sql("hookward", "SELECT pg_stat_reset()");

    for round in 0..ROUNDS {
        clinic.pause(&paused.id).await.expect("it is active");
        for kind in ["recovers", "fails", "waits"] {
            clinic.publish_event(event_with_id(&format!("{kind}-{round}"), kind, "{}")).await;
        }
        clinic.resume(&paused.id).await.expect("it is paused");
        clinic.delivery_of(&format!("recovers-{round}")).reaches(State::Succeeded).await;
        clinic.delivery_of(&format!("fails-{round}")).reaches(State::Dead).await;
        clinic.delivery_of(&format!("waits-{round}")).reaches(State::Succeeded).await;
    }
    // The server counts what a session did at its end.
    service.terminate();
    service.ends().await;
    assert_eq!(cluster.sql("hookward", READ_WHOLE).trim(), "");
}
