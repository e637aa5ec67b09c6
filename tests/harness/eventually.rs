//! Waiting for something that takes a moment: look, pause briefly, look again, until a
//! deadline. The only place in the tests that lets time pass.

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

/// Lets `span` pass while something else goes on that the test looks at afterwards.
pub(crate) async fn meanwhile(span: Duration) {
    tokio::time::sleep(span).await;
}
