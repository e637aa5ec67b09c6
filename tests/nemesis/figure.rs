//! What was measured at a fault, against what is wanted of it.

use std::time::{Duration, Instant};

use crate::faults::Fault;
use crate::machine::Machine;

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) fault: Fault,
    pub(crate) what: &'static str,
    pub(crate) value: Value,
    /// The stretch in which it was measured.
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// Measured, and the most that it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Time(Duration, Duration),
    Count(usize, usize),
}

/// Whether a goal was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    Missed,
    /// Missed, and would have been kept without the time that the machine was stalled.
    Machine,
}

impl Figure {
    pub(crate) fn verdict(&self, machine: &Machine) -> Verdict {
        match self.value {
            Value::Time(measured, goal) if goal < measured => {
                let stalled = machine.stalled(self.from, self.to);
                if measured.saturating_sub(stalled) <= goal {
                    Verdict::Machine
                } else {
                    Verdict::Missed
                }
            }
            Value::Count(measured, goal) if goal < measured => Verdict::Missed,
            Value::Time(..) | Value::Count(..) => Verdict::Kept,
        }
    }
}

/// The value below which so many hundredths are; `None` of nothing.
pub(crate) fn percentile(mut values: Vec<Duration>, hundredths: usize) -> Option<Duration> {
    values.sort_unstable();
    let at = (values.len() * hundredths).div_ceil(100).checked_sub(1)?;
    values.get(at).copied()
}
