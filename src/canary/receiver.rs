//! The receiver of the canary's events: on loopback, in each process that sends, so that a
//! probe is delivered over a socket wherever it is claimed.
//!
//! Whoever runs something on this machine can reach it. It answers 204 to what only this
//! deployment can have signed, and tells others nothing but that they are wrong.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::domain::canary;
use crate::lease::Lease;
use crate::routing::Routing;

/// Much more than a probe's.
const BODY_BYTES_MAX: usize = 4096;

/// What it goes by.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Knows the secret.
    pub routing: Routing,
    /// Tells the time.
    pub lease: Lease,
}

impl Receiver {
    /// Takes in what is delivered on `listener` until `stop`.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let router = Router::new()
            .route("/", post(take))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self);
        // Kept-alive connections end with the process.
        tokio::select! {
            () = stop.cancelled() => {}
            served = axum::serve(listener, router).into_future() => {
                if let Err(error) = served {
                    tracing::error!(%error, "the canary's receiver ended");
                }
            }
        }
    }

    fn judge(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), &'static str> {
        let route = self.routing.route(canary::SUBSCRIPTION).ok_or("there is no subscription")?;
        let profile = route.profile.as_ref().ok_or("there is no profile")?;
        let now = self.lease.now();
        canary::check(profile, &route.signing_keys(now), headers, body, now)
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    match receiver.judge(&headers, &body) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(why) => {
            tracing::warn!(why, "the canary's receiver refuses a request");
            StatusCode::BAD_REQUEST
        }
    }
}
