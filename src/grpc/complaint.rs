//! Lines of the log that anybody can cause by calling: few of each kind, however many call.

use std::time::{Duration, Instant};

/// How often the log says the same again.
const PAUSE: Duration = Duration::from_mins(1);

/// When the log was last told of one thing.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    last: Option<Instant>,
}

impl Complaint {
    /// Whether it is time to tell it again; then it counts as told.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| PAUSE <= now.saturating_duration_since(last));
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_once_a_minute() {
        let (mut complaint, now) = (Complaint::default(), Instant::now());
        assert!(complaint.is_due(now) && !complaint.is_due(now));
        assert!(!complaint.is_due(now + PAUSE.saturating_sub(Duration::from_millis(1))));
        assert!(complaint.is_due(now + PAUSE) && !complaint.is_due(now + PAUSE));
    }
}
