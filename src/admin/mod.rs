//! The admin port: what an orchestrator and a scraper ask for, over HTTP/1.1.
//!
//! - `GET /healthz`: 200 while the process runs. A database that is away is no reason to
//!   restart, so it does not count here.
//! - `GET /readyz`: 200 when calls can be served, else 503 with the reasons, one a line.
//! - `GET /metrics`: the page of [`Metrics`].
//!
//! Nothing here needs the database, and nothing here tells whose events there are.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// Longest that a request under way may hold up the end.
const LINGER: Duration = Duration::from_secs(1);

/// Whether calls can be served, as far as is known. Made not ready; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    known: Arc<Known>,
}

#[derive(Debug, Default)]
struct Known {
    database: AtomicBool,
    lease: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// Whether the database has answered lately.
    pub fn set_database(&self, reachable: bool) {
        self.known.database.store(reachable, Ordering::Relaxed);
    }

    /// Whether this replica certainly holds its lease.
    pub fn set_lease(&self, held: bool) {
        self.known.lease.store(held, Ordering::Relaxed);
    }

    /// From now on the process is about to stop.
    pub fn drain(&self) {
        self.known.draining.store(true, Ordering::Relaxed);
    }

    /// What speaks against it, in words for people; empty means ready.
    #[must_use]
    pub fn reasons(&self) -> Vec<&'static str> {
        let known = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let against = [
            (!known(&self.known.database), "the database has not answered lately"),
            (!known(&self.known.lease), "this replica's lease is not certain"),
            (known(&self.known.draining), "about to stop"),
        ];
        against.into_iter().filter_map(|(holds, reason)| holds.then_some(reason)).collect()
    }
}

/// Answers on `listener` until `shutdown`, and then for a second at most.
///
/// # Errors
///
/// None that one request can cause; those of single connections are not seen here.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || plain(StatusCode::OK, "ok\n".to_owned())))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(page).with_state(metrics));
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // Nobody listens when the server has ended by itself.
        let _ = stopping.send(());
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown).into_future();
    let linger = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(LINGER).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = server => served,
        () = linger => Ok(()),
    }
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        return plain(StatusCode::OK, "ready\n".to_owned());
    }
    let lines = reasons.into_iter().map(|reason| format!("{reason}\n"));
    plain(StatusCode::SERVICE_UNAVAILABLE, lines.collect())
}

async fn page(State(metrics): State<Metrics>) -> impl IntoResponse {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], metrics.render())
}

fn plain(status: StatusCode, text: String) -> impl IntoResponse {
    (status, [(CACHE_CONTROL, HeaderValue::from_static("no-store"))], text)
}

#[cfg(test)]
mod tests;
