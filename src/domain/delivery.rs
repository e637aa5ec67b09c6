//! One event on its way to one subscription.

use super::attempt::Attempt;
use super::event::EventSummary;
use super::id::SubscriptionKey;
use super::timestamp::Timestamp;

/// Where a delivery stands. `Succeeded`, `Dead` and `Cancelled` are ends; only
/// `RetryDelivery` leaves them. The numbers are those of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum DeliveryState {
    /// Waits for its first or next attempt.
    Pending = 1,
    /// Claimed by a dispatcher: queued there or under way.
    InFlight = 2,
    /// The receiver answered as its profile counts success.
    Succeeded = 3,
    /// Dead letter: see [`DeadReason`].
    Dead = 4,
    /// Given up by its owner or with its subscription.
    Cancelled = 5,
}

/// Why a delivery became a dead letter. The numbers are those of the column and
/// of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum DeadReason {
    /// Every attempt that the retry policy allows has failed.
    AttemptsExhausted = 1,
    /// Its event's expire time passed.
    Expired = 2,
    /// The receiver answered 410 Gone.
    Gone = 3,
    /// The payload cannot take the shape that the profile needs.
    NotSendable = 4,
    /// The subscription was disabled.
    SubscriptionDisabled = 5,
    /// Every replica that tried it died.
    TakeoversExhausted = 6,
}

impl DeadReason {
    /// Every reason, in the order of the numbers.
    pub const ALL: [DeadReason; 6] = [
        DeadReason::AttemptsExhausted,
        DeadReason::Expired,
        DeadReason::Gone,
        DeadReason::NotSendable,
        DeadReason::SubscriptionDisabled,
        DeadReason::TakeoversExhausted,
    ];

    /// The reason stored as `number`.
    #[must_use]
    pub fn stored(number: i16) -> Option<DeadReason> {
        DeadReason::ALL.into_iter().find(|reason| *reason as i16 == number)
    }
}

/// A delivery as people see it, put together from the event, its attempts and
/// what is due.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What is delivered, without its payload.
    pub event: EventSummary,
    /// To whom.
    pub subscription: SubscriptionKey,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts recorded so far.
    pub attempt_count: u32,
    /// When the next attempt is due; set while pending.
    pub next_attempt_time: Option<Timestamp>,
    /// The latest attempt, without its response body.
    pub last_attempt: Option<Attempt>,
    /// Why it is dead.
    pub dead_reason: Option<DeadReason>,
    /// When it ended.
    pub end_time: Option<Timestamp>,
    /// When it last changed.
    pub update_time: Timestamp,
}
