//! Whether calls can be served: not counted, but asked for at each look.

use std::fmt;
use std::sync::OnceLock;

/// Not ready before there is somebody to ask.
#[derive(Default)]
pub(super) struct Readiness(OnceLock<Box<dyn Fn() -> bool + Send + Sync>>);

impl Readiness {
    pub(super) fn ask(&self, ask: impl Fn() -> bool + Send + Sync + 'static) {
        // It is set once in a process; the first stays.
        let _ = self.0.set(Box::new(ask));
    }

    pub(super) fn holds(&self) -> bool {
        self.0.get().is_some_and(|ask| ask())
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Readiness").field(&self.holds()).finish()
    }
}
