//! Who may act for whom: the one door between a request and the store.

use std::sync::Arc;

use http::{Extensions, HeaderMap, header};
use rustls_pki_types::CertificateDer;
use tonic::Status;

use super::connection::Peer;
use super::refusals::Refusal;
use super::status;
use super::trail::Trail;
use crate::credentials::{Certificates, Credentials, Issuers, Refused};
use crate::domain::api_key::read_token;
use crate::domain::id::OrganizationId;
use crate::domain::jwt::TokenFault;
use crate::domain::principal::Principal;
use crate::domain::scope::Scope;
use crate::lease::Lease;
use crate::permits::RateLimiter;

/// Who is let in.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody: the server listens on loopback only, unless its operator insists.
    Open(Arc<Principal>),
    /// Whoever shows credentials.
    Guarded(Arc<Guard>),
}

/// Which credentials are good.
#[derive(Debug)]
pub struct Guard {
    /// API keys, if any are.
    pub api_keys: Option<Credentials>,
    /// Tokens of these issuers.
    pub issuers: Issuers,
    /// TLS certificates with these names.
    pub certificates: Certificates,
    /// Tells the time.
    pub lease: Lease,
}

/// Who a caller is found to be.
pub(super) enum Identity {
    Known(Arc<Principal>),
    Refused(Refusal),
    Unsure(Unsure),
}

/// A caller whose token names a key that its issuer has not published, so far as is known.
pub(super) struct Unsure {
    guard: Arc<Guard>,
    token: String,
}

impl Unsure {
    /// Who it is, once the issuer has been asked for its keys.
    pub(super) async fn ask(self) -> Result<Arc<Principal>, Refusal> {
        let now = self.guard.lease.now();
        let caller = self.guard.issuers.caller_by_newest_keys(&self.token, now).await;
        caller.map_err(Refusal::Token)
    }

    /// Has the issuer asked for its keys, and does not wait for them.
    pub(super) fn ask_for_others(&self) {
        self.guard.issuers.want_newest_keys(&self.token);
    }
}

/// What the certificate of a connection tells of who is calling.
#[derive(Clone, Debug)]
pub(super) enum Certified {
    /// Nothing: there is none, or nobody is known by one.
    Nothing,
    /// It names no caller, or several.
    Nobody,
    /// It is this one's.
    Caller(Arc<Principal>),
}

/// How API keys begin; no token does.
const API_KEY: &str = "whk_";

impl Access {
    /// Without credentials.
    #[must_use]
    pub fn open() -> Access {
        Access::Open(Arc::new(Principal::anyone()))
    }

    /// Whether callers must show credentials.
    pub(super) fn asks(&self) -> bool {
        match self {
            Access::Open(_) => false,
            Access::Guarded(_) => true,
        }
    }

    /// What this certificate tells, which TLS has found to be good.
    pub(super) fn certified(&self, certificate: &CertificateDer<'_>) -> Certified {
        let certificates = match self {
            Access::Open(_) => return Certified::Nothing,
            Access::Guarded(guard) if guard.certificates.is_empty() => return Certified::Nothing,
            Access::Guarded(guard) => &guard.certificates,
        };
        let Some(caller) = certificates.caller(certificate) else {
            tracing::info!("a client certificate names no caller, or several");
            return Certified::Nobody;
        };
        Certified::Caller(caller)
    }

    /// Who sent these headers. What they say counts, and the certificate only if they say
    /// nothing: a caller with bad credentials is not somebody else instead.
    pub(super) fn identify(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Identity {
        let guard = match self {
            Access::Open(anyone) => return Identity::Known(Arc::clone(anyone)),
            Access::Guarded(guard) => guard,
        };
        if !headers.contains_key(header::AUTHORIZATION) {
            return match peer.map(Peer::certified) {
                Some(Certified::Caller(principal)) => Identity::Known(Arc::clone(principal)),
                Some(Certified::Nobody) => Identity::Refused(Refusal::Certificate),
                Some(Certified::Nothing) | None => Identity::Refused(Refusal::NoCredentials),
            };
        }
        match bearer(headers) {
            Some(token) if token.starts_with(API_KEY) => guard.by_api_key(token),
            Some(token) => Guard::by_token(guard, token),
            None => Identity::Refused(Refusal::Header),
        }
    }
}

impl Guard {
    fn by_api_key(&self, token: &str) -> Identity {
        let Some(api_keys) = &self.api_keys else { return Identity::Refused(Refusal::Header) };
        match api_keys.caller(token, self.lease.now()) {
            Ok(principal) => Identity::Known(principal),
            Err(cause) => {
                // What has not the form of a key may be anything, also most of a key.
                let key = read_token(token).filter(|_| cause != Refused::Form);
                let id = key.map(|(id, _)| id.to_owned());
                Identity::Refused(Refusal::ApiKey(cause, id))
            }
        }
    }

    fn by_token(guard: &Arc<Guard>, token: &str) -> Identity {
        if guard.issuers.is_empty() {
            return Identity::Refused(Refusal::Header);
        }
        match guard.issuers.caller(token, guard.lease.now()) {
            Ok(principal) => Identity::Known(principal),
            Err(TokenFault::UnknownKey) => {
                Identity::Unsure(Unsure { guard: Arc::clone(guard), token: token.to_owned() })
            }
            Err(fault) => Identity::Refused(Refusal::Token(fault)),
        }
    }
}

/// The token of the only `authorization` header (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Characters of an API key's id.
const KEY_ID_CHARS: usize = 17;

/// The id of the API key that these headers show, whoever made it up. No secret.
pub(super) fn presented(headers: &HeaderMap) -> Option<&str> {
    let (id, _) = read_token(bearer(headers)?)?;
    (id.len() == KEY_ID_CHARS && id.starts_with(API_KEY)).then_some(id)
}

/// The caller that the door has let in; methods find it in the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) principal: Arc<Principal>,
    /// How often it may call, but for publishing.
    pub(super) limiter: RateLimiter,
}

/// Who makes this call.
///
/// # Errors
///
/// `INTERNAL` when a method is served without the door in front of it.
fn caller(extensions: &Extensions) -> Result<&Caller, Status> {
    extensions.get().ok_or_else(|| status::internal(&"no caller"))
}

/// The organization that a request names, if its caller may do this for it. Store calls
/// take an [`OrganizationId`], and handlers get theirs here and nowhere else.
///
/// # Errors
///
/// `INVALID_ARGUMENT` when it is no organization's name; `PERMISSION_DENIED`;
/// `RESOURCE_EXHAUSTED` when there are too many calls for it.
pub(super) fn organization(
    extensions: &Extensions,
    scope: Scope,
    organization_id: &str,
) -> Result<OrganizationId, Status> {
    let organization = OrganizationId::parse(organization_id)?;
    let caller = caller(extensions)?;
    let acts_for = caller.principal.acts_for(&organization);
    Trail::of(extensions, &[])?.organization(&organization, acts_for);
    self::scope(extensions, scope)?;
    if !acts_for {
        return Err(status::organization_denied());
    }
    // Publishing is counted by its events, at the intake.
    if scope != Scope::EventsPublish {
        let taken = caller.limiter.take(&organization, 1);
        taken.map_err(|wait| status::rate_exceeded("calls", wait))?;
    }
    Ok(organization)
}

/// Whether the caller may do this besides, in an organization that it may act for.
///
/// # Errors
///
/// `PERMISSION_DENIED`.
pub(super) fn scope(extensions: &Extensions, scope: Scope) -> Result<(), Status> {
    if caller(extensions)?.principal.may(scope) {
        Ok(())
    } else {
        Err(status::scope_missing(scope))
    }
}

/// Who publishes, as events say it.
///
/// # Errors
///
/// `INTERNAL` when a method is served without the door in front of it.
pub(super) fn publisher(extensions: &Extensions) -> Result<Arc<str>, Status> {
    Ok(caller(extensions)?.principal.name.as_str().into())
}
