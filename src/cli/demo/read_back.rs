//! What the service says of its deliveries, held against what the receiver saw.

use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep;

use crate::grpc::pb;
use crate::grpc::pb::delivery::State;
use crate::grpc::pb::delivery_attempt::Outcome;

use super::client::Client;
use super::client::Subscribed;
use super::tally::Tally;
use super::tally::Tracked;

/// Between two looks at deliveries that are still open.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// A delivery as the service tells it.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) delivery_id: String,
    pub(super) event_type: &'static str,
    pub(super) path: &'static str,
    /// Such as `SUCCEEDED`; empty when the service does not know the delivery.
    pub(super) state: String,
    /// Answers to its attempts, the oldest first; 0 where there was none.
    pub(super) answers: Vec<u32>,
}

/// Reads every delivery back, once all are finished or `deadline` has passed. Gives them
/// in the order of the tally, and what is wrong with them.
pub(super) async fn read_back(
    client: &mut Client,
    subscribed: &[Subscribed],
    tally: &Tally,
    deadline: Instant,
) -> anyhow::Result<(Vec<Status>, Vec<String>)> {
    let deliveries = finished(client, deadline).await?;
    let (mut statuses, mut faults) = (Vec::new(), Vec::new());
    if deliveries.len() != tally.deliveries().len() {
        let due = tally.deliveries().len();
        faults.push(format!("the service has {} deliveries instead of {due}", deliveries.len()));
    }
    for tracked in tally.deliveries() {
        let expected = &tracked.expected;
        let mut subscriptions = subscribed.iter();
        let subscription = subscriptions.find(|one| one.endpoint == expected.endpoint);
        let found = deliveries.iter().find(|delivery| {
            delivery.event_id == expected.event_id
                && subscription.is_some_and(|one| one.id == delivery.subscription_id)
        });
        let attempts = match found {
            Some(delivery) => client.attempts(&delivery.id).await?,
            None => Vec::new(),
        };
        let (event_type, path) = (expected.event_type, expected.endpoint.path);
        let wrong = wrongs(tracked, found, &attempts).into_iter();
        faults.extend(wrong.map(|why| format!("{event_type} at {path}: {why}")));
        statuses.push(Status {
            delivery_id: found.map_or_else(String::new, |delivery| delivery.id.clone()),
            event_type,
            path,
            state: found.map_or_else(String::new, state),
            answers: attempts.iter().map(pb::DeliveryAttempt::http_status).collect(),
        });
    }
    Ok((statuses, faults))
}

async fn finished(client: &mut Client, deadline: Instant) -> anyhow::Result<Vec<pb::Delivery>> {
    loop {
        let deliveries = client.deliveries().await?;
        let open =
            |delivery: &pb::Delivery| matches!(delivery.state(), State::Pending | State::InFlight);
        if !deliveries.iter().any(open) || deadline < Instant::now() {
            return Ok(deliveries);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// What the service says of this delivery that is not so.
fn wrongs(
    tracked: &Tracked,
    delivery: Option<&pb::Delivery>,
    attempts: &[pb::DeliveryAttempt],
) -> Vec<String> {
    let Some(delivery) = delivery else {
        return vec!["the service does not know the delivery".to_owned()];
    };
    let mut wrongs = Vec::new();
    let due = tracked.expected.endpoint.answers;
    if delivery.state() != State::Succeeded {
        wrongs.push(format!("it is {} instead of SUCCEEDED", state(delivery)));
    }
    if usize::try_from(delivery.attempt_count) != Ok(due.len()) {
        wrongs.push(format!("it has {} attempts instead of {}", delivery.attempt_count, due.len()));
    }
    let answers = attempts.iter().map(|attempt| (attempt.http_status(), attempt.outcome()));
    let right = due.iter().map(|status| match status {
        200..=299 => (u32::from(*status), Outcome::Succeeded),
        _ => (u32::from(*status), Outcome::HttpStatus),
    });
    if !answers.eq(right) {
        wrongs.push("its attempts are not what the receiver answered".to_owned());
    }
    if tracked.webhook_id().is_some_and(|id| id != delivery.id) {
        wrongs.push("its webhook-id is not its id".to_owned());
    }
    wrongs
}

fn state(delivery: &pb::Delivery) -> String {
    delivery.state().as_str_name().trim_start_matches("STATE_").to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::cli::demo::scenario::expected;

    use super::*;

    fn attempt(status: u32, outcome: Outcome) -> pb::DeliveryAttempt {
        let http_status = Some(status);
        pb::DeliveryAttempt { http_status, outcome: outcome.into(), ..Default::default() }
    }

    #[test]
    fn a_status_must_be_what_the_receiver_saw() {
        let tally = Tally::new(expected(), BTreeMap::new());
        let recovering = tally.deliveries().last().expect("there are some");
        let good = pb::Delivery {
            state: State::Succeeded.into(),
            attempt_count: 3,
            ..pb::Delivery::default()
        };
        let attempts = [503, 503].map(|status| attempt(status, Outcome::HttpStatus));
        let attempts = [&attempts[..], &[attempt(200, Outcome::Succeeded)]].concat();
        assert!(wrongs(recovering, Some(&good), &attempts).is_empty());

        let dead = pb::Delivery { state: State::Dead.into(), ..good.clone() };
        let found = wrongs(recovering, Some(&dead), &attempts);
        assert_eq!(found, ["it is DEAD instead of SUCCEEDED"]);
        let short = pb::Delivery { attempt_count: 2, ..good.clone() };
        let found = wrongs(recovering, Some(&short), &attempts[1..]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(wrongs(recovering, None, &[]).len(), 1);
    }
}
