//! Slots: how much of this process one endpoint, one organization and all of them
//! together may take; circuits: which endpoints are left alone for a while; rate limits:
//! how much is taken from callers of one organization.

mod breaker;
#[cfg(test)]
mod breaker_tests;
mod circuits;
mod in_flight;
mod pressure;
mod queue_slots;
mod rate_limiter;
#[cfg(test)]
mod traces;

pub use self::breaker::{
    ASKED_MAX, Admission, Breaker, Change, CircuitState, FAILURES_MIN, OPEN_MAX, OPEN_MIN,
    SPAN_MIN, Sign,
};
pub use self::circuits::{Circuit, Circuits, Endpoint, Pass};
pub use self::in_flight::{InFlight, InFlightLimits, Start};
pub use self::queue_slots::{QueueSlots, QueueSlotsLimits};
pub use self::rate_limiter::RateLimiter;
