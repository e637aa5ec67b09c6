//! Time that has passed: what is stored becomes older, and nobody waits for it.

use std::time::Duration;

use sea_orm::{ConnectionTrait, Database};

use super::engine::Engine;

/// Makes everything that is known of events older by `span`, while no server runs. Ids
/// that the server made change, since they tell the time; publishers' own do not.
pub(crate) async fn pass(engine: &Engine, span: Duration) {
    let connection = Database::connect(engine.url()).await.expect("nobody holds it");
    let millis = i64::try_from(span.as_millis()).expect("a short span");
    let (keys, micros) = (millis << 22, millis * 1000);
    for change in [
        format!("UPDATE event SET key = key - {keys}, publish_time = publish_time - {micros}"),
        format!(
            "UPDATE attempt SET event_key = event_key - {keys}, start_time = start_time - {micros}"
        ),
        format!("UPDATE due SET event_key = event_key - {keys}"),
        format!(
            "UPDATE undelivered SET event_key = event_key - {keys}, end_time = end_time - {micros}"
        ),
        format!("UPDATE event_key SET event_key = event_key - {keys}"),
        format!(
            "UPDATE retention_visit SET event_key = event_key - {keys}, since = since - {micros}"
        ),
        format!(
            "UPDATE retention SET payload_key = payload_key - {keys},
             metadata_key = metadata_key - {keys}"
        ),
    ] {
        connection.execute_unprepared(&change).await.expect("it is one of the tables");
    }
    connection.close().await.expect("it was open");
}
