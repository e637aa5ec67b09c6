//! Deliveries and attempts as callers see them.

use crate::domain::attempt::{Attempt, AttemptResult};
use crate::domain::delivery::{DeadReason, Delivery, DeliveryState};
use crate::domain::id::{DeliveryKey, IdCodec};
use crate::grpc::{pb, time};

pub(super) fn delivery_message(ids: &IdCodec, delivery: Delivery) -> pb::Delivery {
    let event = delivery.event;
    let key = DeliveryKey { event: event.key, subscription: delivery.subscription };
    let last_attempt = delivery.last_attempt.map(|attempt| pb::DeliveryAttempt {
        response_body: bytes::Bytes::new(),
        ..attempt_message(ids, key, attempt)
    });
    let next = delivery.next_attempt_time.filter(|_| delivery.state == DeliveryState::Pending);
    pb::Delivery {
        id: ids.delivery(key),
        organization_id: event.organization.as_str().to_owned(),
        account_id: event.account.map(|account| account.to_string()).unwrap_or_default(),
        event_id: event.id,
        event_type: event.event_type,
        subscription_id: ids.subscription(delivery.subscription),
        state: state(delivery.state).into(),
        attempt_count: delivery.attempt_count,
        next_attempt_time: next.map(time::to_timestamp),
        last_attempt,
        dead_reason: delivery.dead_reason.map_or(0, |reason| dead_reason(reason).into()),
        create_time: Some(time::to_timestamp(event.publish_time)),
        update_time: Some(time::to_timestamp(delivery.update_time)),
        end_time: delivery.end_time.map(time::to_timestamp),
        expire_time: event.expire_time.map(time::to_timestamp),
        payload_purge_time: event.purge_time.map(time::to_timestamp),
    }
}

pub(super) fn attempt_message(
    ids: &IdCodec,
    key: DeliveryKey,
    attempt: Attempt,
) -> pb::DeliveryAttempt {
    let traced = attempt.trace_id != [0; 16];
    let trace_id = u128::from_be_bytes(attempt.trace_id);
    pb::DeliveryAttempt {
        id: ids.attempt(key, attempt.number),
        number: attempt.number,
        outcome: outcome(attempt.result).into(),
        http_status: attempt.http_status.map(u32::from),
        error_message: attempt.error,
        response_body: attempt.response_body,
        start_time: Some(time::to_timestamp(attempt.start_time)),
        duration: Some(time::to_duration(attempt.duration)),
        trace_id: if traced { format!("{trace_id:032x}") } else { String::new() },
    }
}

fn state(state: DeliveryState) -> pb::delivery::State {
    match state {
        DeliveryState::Pending => pb::delivery::State::Pending,
        DeliveryState::InFlight => pb::delivery::State::InFlight,
        DeliveryState::Succeeded => pb::delivery::State::Succeeded,
        DeliveryState::Dead => pb::delivery::State::Dead,
        DeliveryState::Cancelled => pb::delivery::State::Cancelled,
    }
}

fn dead_reason(reason: DeadReason) -> pb::delivery::DeadReason {
    match reason {
        DeadReason::AttemptsExhausted => pb::delivery::DeadReason::AttemptsExhausted,
        DeadReason::Expired => pb::delivery::DeadReason::Expired,
        DeadReason::Gone => pb::delivery::DeadReason::Gone,
        DeadReason::NotSendable => pb::delivery::DeadReason::NotSendable,
        DeadReason::SubscriptionDisabled => pb::delivery::DeadReason::SubscriptionDisabled,
        DeadReason::TakeoversExhausted => pb::delivery::DeadReason::TakeoversExhausted,
    }
}

fn outcome(result: AttemptResult) -> pb::delivery_attempt::Outcome {
    match result {
        AttemptResult::Succeeded => pb::delivery_attempt::Outcome::Succeeded,
        AttemptResult::HttpStatus => pb::delivery_attempt::Outcome::HttpStatus,
        AttemptResult::DnsError => pb::delivery_attempt::Outcome::DnsError,
        AttemptResult::ConnectError => pb::delivery_attempt::Outcome::ConnectError,
        AttemptResult::TlsError => pb::delivery_attempt::Outcome::TlsError,
        AttemptResult::Timeout => pb::delivery_attempt::Outcome::Timeout,
        AttemptResult::ProtocolError => pb::delivery_attempt::Outcome::ProtocolError,
        AttemptResult::BlockedAddress => pb::delivery_attempt::Outcome::BlockedAddress,
        AttemptResult::NotSent => pb::delivery_attempt::Outcome::NotSent,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::attempt::Fault;
    use crate::domain::id::{EventKey, SubscriptionKey};
    use crate::domain::operational_event::dead_reason_name;
    use crate::domain::timestamp::Timestamp;

    #[test]
    fn numbers_are_the_same_inside_and_outside() {
        for result in AttemptResult::ALL {
            assert_eq!(outcome(result) as i32, i32::from(result as i16));
        }
        for reason in DeadReason::ALL {
            assert_eq!(dead_reason(reason) as i32, i32::from(reason as i16));
            assert_eq!(dead_reason(reason).as_str_name(), dead_reason_name(reason));
        }
    }

    #[test]
    fn a_trace_id_is_32_digits_or_nothing() {
        let ids = IdCodec::new([1; 16]);
        let key = DeliveryKey { event: EventKey(1), subscription: SubscriptionKey(2) };
        let attempt = |trace_id| {
            let attempt = Attempt {
                number: 3,
                result: AttemptResult::Timeout,
                http_status: None,
                error: "too slow".to_owned(),
                response_body: bytes::Bytes::new(),
                start_time: Timestamp(1_500_000),
                duration: Duration::from_millis(20),
                trace_id,
                fault: Fault::Receiver,
            };
            attempt_message(&ids, key, attempt)
        };
        assert_eq!(attempt([0; 16]).trace_id, "");
        let mut small = [0; 16];
        small[15] = 0xab;
        let traced = attempt(small);
        assert_eq!(traced.trace_id, format!("{}ab", "0".repeat(30)));
        assert_eq!(traced.id, format!("att_{}-3", &ids.delivery(key)["dlv_".len()..]));
    }
}
