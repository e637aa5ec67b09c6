//! Slots: how much of this process one endpoint, one organization and all of them
//! together may take.

mod in_flight;
mod queue_slots;
#[cfg(test)]
mod traces;

pub use self::in_flight::{InFlight, InFlightLimits, Start};
pub use self::queue_slots::{QueueSlots, QueueSlotsLimits};
