//! One delivery to look at for each bucket of a histogram: the trace of the last one that
//! fell into it, of those that are exported.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The exemplars of one histogram.
#[derive(Debug)]
pub(super) struct Exemplars {
    name: &'static str,
    /// Its series, as the page writes their labels: with a comma behind each.
    series: &'static [&'static str],
    /// The upper ends of its buckets in seconds, ascending; the last bucket has none.
    bounds: &'static [f64],
    /// A place for each bucket of each series.
    places: Mutex<Vec<Option<Exemplar>>>,
}

#[derive(Clone, Copy, Debug)]
struct Exemplar {
    trace_id: [u8; 16],
    took: Duration,
    time: SystemTime,
}

impl Exemplars {
    pub(super) fn new(
        name: &'static str,
        series: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Exemplars {
        let places = Mutex::new(vec![None; series.len() * (bounds.len() + 1)]);
        Exemplars { name, series, bounds, places }
    }

    /// Keeps the trace, all zero where none is exported, of what took so long, in the series at
    /// this place. Its time is that of now: Prometheus takes none that is older than the last.
    pub(super) fn keep(&self, series: usize, took: Duration, trace_id: [u8; 16]) {
        if trace_id == [0; 16] {
            return;
        }
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        let place = series * (self.bounds.len() + 1) + bucket;
        let mut places = self.places();
        places[place] = Some(Exemplar { trace_id, took, time: SystemTime::now() });
    }

    /// Adds the ends of lines, by what stands before the value on each.
    pub(super) fn add_to(&self, lines: &mut HashMap<String, String>) {
        let places = self.places().clone();
        for (labels, places) in self.series.iter().zip(places.chunks(self.bounds.len() + 1)) {
            let ends = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (end, exemplar) in ends.zip(places) {
                let Some(exemplar) = exemplar else { continue };
                let series = format!("{}_bucket{{{labels}le=\"{end}\"}}", self.name);
                lines.insert(series, exemplar.text());
            }
        }
    }

    fn places(&self) -> MutexGuard<'_, Vec<Option<Exemplar>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exemplar {
    /// Labels, value, and seconds since 1970 ("Exemplars" in OpenMetrics 1.0).
    fn text(self) -> String {
        let (trace_id, took) = (u128::from_be_bytes(self.trace_id), self.took.as_secs_f64());
        let time = self.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        format!("{{trace_id=\"{trace_id:032x}\"}} {took} {time:.3}")
    }
}
