//! Waiting for something that takes a moment: look, pause briefly, look again, until a
//! deadline. The only place in the tests that lets time pass.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take that should take no time: generous, for a machine that
/// runs many tests at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const INTERVAL: Duration = Duration::from_millis(10);

/// What `probe` finds, as soon as it finds something. Panics after [`PATIENCE`],
/// naming `what` was awaited.
pub(crate) async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe).await
}

/// The same with a deadline that is part of the promise under test.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}

/// How late this machine wakes who sleeps, from [`Punctuality::watch`] on: the part of a
/// delay that is nobody's doing.
pub(crate) struct Punctuality(tokio::task::JoinHandle<()>, Arc<Mutex<Duration>>);

impl Punctuality {
    pub(crate) fn watch() -> Punctuality {
        let worst = Arc::new(Mutex::new(Duration::ZERO));
        let shared = Arc::clone(&worst);
        let watch = async move {
            loop {
                let begin = Instant::now();
                tokio::time::sleep(INTERVAL).await;
                let late = begin.elapsed().saturating_sub(INTERVAL);
                let mut worst = shared.lock().expect("nobody panics while holding it");
                *worst = late.max(*worst);
            }
        };
        Punctuality(tokio::spawn(watch), worst)
    }

    /// The worst so far.
    pub(crate) fn worst(&self) -> Duration {
        *self.1.lock().expect("nobody panics while holding it")
    }
}

impl Drop for Punctuality {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lets `span` pass while something else goes on that the test looks at afterwards.
pub(crate) async fn meanwhile(span: Duration) {
    tokio::time::sleep(span).await;
}
