//! The admin port: what an orchestrator and a scraper ask for, over HTTP/1.1.
//!
//! - `GET /healthz`: 200 while the process runs. A database that is away is no reason to
//!   restart, so it does not count here.
//! - `GET /readyz`: 200 when calls can be served, else 503 with the reasons, one a line.
//! - `GET /metrics`: the page of [`Metrics`], in OpenMetrics for those who prefer that.
//!
//! Nothing here needs the database, and nothing here tells whose events there are.

mod accept;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Longest that a request under way may hold up the end.
const LINGER: Duration = Duration::from_secs(1);

/// Why calls cannot be served now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// It has not started yet.
    Starting,
    /// The database has not answered lately.
    DatabaseAway,
    /// Another replica may have taken this one over.
    LeaseLost,
    /// It is about to stop.
    Draining,
}

impl NotReady {
    fn sentence(self) -> &'static str {
        match self {
            NotReady::Starting => "starting",
            NotReady::DatabaseAway => "the database has not answered lately",
            NotReady::LeaseLost => "the lease of this replica is not certain",
            NotReady::Draining => "draining",
        }
    }
}

/// Whether calls can be served. Clones ask the same source.
#[derive(Clone)]
pub struct Readiness {
    ask: Arc<dyn Fn() -> Vec<NotReady> + Send + Sync>,
}

impl Readiness {
    /// A readiness that is asked for each time somebody wants to know; empty means ready.
    /// `ask` must not block.
    #[must_use]
    pub fn new(ask: impl Fn() -> Vec<NotReady> + Send + Sync + 'static) -> Self {
        Readiness { ask: Arc::new(ask) }
    }

    /// The reasons against, now.
    #[must_use]
    pub fn reasons(&self) -> Vec<NotReady> {
        (self.ask)()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Readiness").field(&self.reasons()).finish()
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
    let answering = axum::serve(listener, router).with_graceful_shutdown(shutdown).into_future();
    let linger = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(LINGER).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = answering => ended,
        () = linger => Ok(()),
    }
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        return plain(StatusCode::OK, "ready\n".to_owned());
    }
    let lines = reasons.into_iter().map(|reason| format!("{}\n", reason.sentence()));
    plain(StatusCode::SERVICE_UNAVAILABLE, lines.collect())
}

async fn page(State(metrics): State<Metrics>, headers: HeaderMap) -> impl IntoResponse {
    let (kind, page) = if accept::prefers_open_metrics(&headers) {
        (OPEN_METRICS, metrics.render_open_metrics())
    } else {
        (TEXT, metrics.render())
    };
    ([(CONTENT_TYPE, HeaderValue::from_static(kind))], page)
}

fn plain(status: StatusCode, text: String) -> impl IntoResponse {
    (status, [(CACHE_CONTROL, HeaderValue::from_static("no-store"))], text)
}

#[cfg(test)]
mod tests;
