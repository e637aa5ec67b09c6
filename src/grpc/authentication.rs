//! The door: who is calling is known before a byte of a message is decoded.

use std::future::{self, Future};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::access::{Access, Caller, Identity, presented};
use super::connection::Peer;
use super::refusals::{Refusal, Refusals};
use super::trail::Trail;
use crate::domain::jwt::TokenFault;
use crate::metrics::Metrics;
use crate::permits::RateLimiter;

/// Paths of health checks begin so: probes have no credentials.
pub(super) const HEALTH: &str = "/grpc.health.v1.";

/// Puts [`Door`] in front of the services.
#[derive(Clone, Debug)]
pub(super) struct AuthenticationLayer {
    access: Access,
    /// How often callers may call for one organization.
    limiter: RateLimiter,
    refusals: Refusals,
}

impl AuthenticationLayer {
    pub(super) fn new(access: Access, limiter: RateLimiter, metrics: Metrics) -> Self {
        AuthenticationLayer { access, limiter, refusals: Refusals::new(metrics) }
    }
}

impl<S> Layer<S> for AuthenticationLayer {
    type Service = Door<S>;

    fn layer(&self, services: S) -> Door<S> {
        Door { services, door: self.clone() }
    }
}

/// The services, for callers that are known. They find theirs in the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Door<S> {
    services: S,
    door: AuthenticationLayer,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer<S::Error> {
        if request.uri().path().starts_with(HEALTH) {
            return Box::pin(self.services.call(request));
        }
        let limiter = self.door.limiter.clone();
        let peer = request.extensions().get::<Peer>();
        match self.door.access.identify(request.headers(), peer) {
            Identity::Known(principal) => {
                introduce(&mut request, Caller { principal, limiter });
                Box::pin(self.services.call(request))
            }
            Identity::Refused(refusal) => {
                if let Some(trail) = request.extensions().get::<Arc<Trail>>()
                    && let Some(id) = presented(request.headers())
                {
                    trail.presented(id);
                }
                let answer = self.door.refusals.refuse(&refusal, peer.map(Peer::address));
                Box::pin(future::ready(Ok(answer)))
            }
            Identity::Unsure(unsure) => {
                let from = peer.map(Peer::address);
                // A stranger's call waits at the price of a failure, paid in advance: else
                // thousands could wait at once for an issuer that is slow. Whoever cannot pay
                // finds the keys read when it comes back.
                let pays = !peer.is_some_and(Peer::is_known);
                if pays && let Err(wait) = self.door.refusals.charge(from) {
                    unsure.ask_for_others();
                    let refusal = Refusal::Token(TokenFault::UnknownKey);
                    let answer = self.door.refusals.limited(&refusal, wait);
                    return Box::pin(future::ready(Ok(answer)));
                }
                // The services that are ready are these; their copy may not be.
                let copy = self.services.clone();
                let mut services = mem::replace(&mut self.services, copy);
                let refusals = self.door.refusals.clone();
                Box::pin(async move {
                    match unsure.ask().await {
                        Ok(principal) => {
                            introduce(&mut request, Caller { principal, limiter });
                            services.call(request).await
                        }
                        Err(refusal) if pays => Ok(refusals.unauthenticated(&refusal, from)),
                        Err(refusal) => Ok(refusals.refuse(&refusal, from)),
                    }
                })
            }
        }
    }
}

/// Tells the services and the audit log who is calling, and that its connection is no
/// stranger's.
fn introduce(request: &mut Request<Body>, caller: Caller) {
    if let Some(peer) = request.extensions().get::<Peer>() {
        peer.acknowledge();
    }
    if let Some(trail) = request.extensions().get::<Arc<Trail>>() {
        trail.principal(&caller.principal);
    }
    request.extensions_mut().insert(caller);
}
