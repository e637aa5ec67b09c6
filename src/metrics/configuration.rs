//! What became of changes of the settings while the service runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use opentelemetry::metrics::Meter;

use super::instruments::label;
use super::{Metrics, Values, add, set};

/// As labels.
const RESULTS: [&str; 2] = ["ok", "refused"];

impl Metrics {
    /// Settings were read anew, and taken up or refused.
    pub fn configuration_reload(&self, taken_up: bool) {
        add(&self.values().configuration_reloads[usize::from(!taken_up)], 1);
    }

    /// Whether the settings as they are now are those in use.
    pub fn configuration_current(&self, current: bool) {
        set(&self.values().configuration_current, u64::from(current));
    }
}

pub(super) fn observe(meter: &Meter, values: &Arc<Values>) {
    let shared = Arc::clone(values);
    let labels = RESULTS.map(|result| [label("result", result)]);
    meter
        .u64_observable_counter("hookward_configuration_reloads_total")
        .with_description("Times that settings were read anew, and taken up or refused")
        .with_callback(move |observer| {
            for (value, labels) in shared.configuration_reloads.iter().zip(&labels) {
                observer.observe(value.load(Ordering::Relaxed), labels);
            }
        })
        .build();
    let shared = Arc::clone(values);
    meter
        .u64_observable_gauge("hookward_configuration_current")
        .with_description("Whether the settings as they are now are those in use")
        .with_callback(move |observer| {
            observer.observe(shared.configuration_current.load(Ordering::Relaxed), &[]);
        })
        .build();
}
