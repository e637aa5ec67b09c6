//! What the audit log will say of a call: gathered on its way through the layers, and left
//! by whoever ends it.
//!
//! A call that changes something is answered OK only with its entry on disk: the store
//! writes it in the change's transaction. One that reads payloads or response bodies
//! records it first ([`Trail::read`]). What is refused leaves its entry here, so that no
//! method can forget it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http::{Extensions, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::{Layer, Service};

use super::connection::Peer;
use super::methods::{Methods, methods};
use super::refusals::Unlogged;
use super::{authentication, call, status};
use crate::audit::Auditor;
use crate::domain::audit::{Chain, NewAuditEntry, is_object_id};
use crate::domain::id::OrganizationId;
use crate::domain::principal::Principal;
use crate::store::{Store, StoreError};

/// Objects of one call that is refused; of one that is answered there are as many as a page
/// has items.
const REFUSED_OBJECTS_MAX: usize = 4;

/// One call's.
#[derive(Debug)]
pub(super) struct Trail {
    /// `None`: there is no such method.
    method: Option<Arc<str>>,
    /// Whether the method is one that changes something.
    changes: bool,
    peer: Option<SocketAddr>,
    facts: Mutex<Facts>,
}

/// What comes to be known.
#[derive(Debug, Default)]
struct Facts {
    principal: Option<Arc<Principal>>,
    /// What a caller showed that nobody is known by.
    presented: String,
    /// Set once the caller is known to act for it.
    organization: Option<OrganizationId>,
    object_ids: Vec<String>,
    payload_read: bool,
}

impl Trail {
    /// The trail of the call with these extensions, which is about these objects.
    ///
    /// # Errors
    ///
    /// `INTERNAL` when a method is served without the layer in front of it.
    pub(super) fn of<'a>(
        extensions: &'a Extensions,
        objects: &[&str],
    ) -> Result<&'a Trail, Status> {
        let trail = extensions.get::<Arc<Trail>>();
        let trail = trail.ok_or_else(|| status::internal(&"no trail"))?;
        for id in objects {
            trail.object(id);
        }
        Ok(trail)
    }

    /// Who is calling.
    pub(super) fn principal(&self, principal: &Arc<Principal>) {
        self.facts().principal = Some(Arc::clone(principal));
    }

    /// The id of what a caller showed that is not let in by it.
    pub(super) fn presented(&self, id: &str) {
        id.clone_into(&mut self.facts().presented);
    }

    /// For whom the caller acts; where he may not, that is what the call was about, and the
    /// entry is none of that organization's: strangers must not fill its log.
    pub(super) fn organization(&self, organization: &OrganizationId, acts_for: bool) {
        let mut facts = self.facts();
        if acts_for {
            facts.organization = Some(organization.clone());
        } else {
            facts.object_ids.insert(0, organization.as_str().to_owned());
        }
    }

    /// What the call is about. A text that has not the form of an id is left out: it may be
    /// anything.
    pub(super) fn object(&self, id: &str) {
        if is_object_id(id) {
            self.facts().object_ids.push(id.to_owned());
        }
    }

    /// The call asks for payloads or response bodies.
    pub(super) fn reads_payload(&self) {
        self.facts().payload_read = true;
    }

    /// The entry of the call, answered OK, that has changed these fields.
    pub(super) fn entry<'a>(&self, changed: impl IntoIterator<Item = &'a str>) -> NewAuditEntry {
        let facts = self.facts();
        let chain = facts.organization.clone().map_or(Chain::Deployment, Chain::Organization);
        let principal = facts.principal.as_deref();
        let credential_id = principal.map_or(&*facts.presented, Principal::credential_id);
        NewAuditEntry {
            chain,
            principal: principal.map_or("", |principal| principal.name.as_str()).to_owned(),
            credential_id: credential_id.to_owned(),
            peer: self.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            method: self.method.as_deref().unwrap_or(call::OTHER).to_owned(),
            object_ids: facts.object_ids.clone(),
            code: call::code_name(Code::Ok).to_owned(),
            reason: String::new(),
            changed_fields: changed.into_iter().map(str::to_owned).collect(),
            request_id: call::request_id().unwrap_or_default(),
            payload_read: facts.payload_read,
            calls: 1,
        }
    }

    /// Leaves the entry of a call that is answered OK and has changed nothing, or nothing
    /// that is changed in a transaction of its own.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: it must not be answered OK.
    pub(super) async fn unchanged(&self, store: &Store) -> Result<(), StoreError> {
        store.audit_alone(&self.entry([])).await
    }

    /// Records that the call shows payloads or response bodies, of the objects that were
    /// told of.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE`: it is not recorded, so it must not be shown.
    pub(super) async fn read(&self, auditor: &Auditor) -> Result<(), Status> {
        self.reads_payload();
        let recorded = auditor.record(self.entry([])).await;
        recorded.map_err(|_| status::read_not_recorded())
    }

    fn refusal(&self, code: Code, reason: String) -> NewAuditEntry {
        let mut entry = self.entry([]);
        entry.object_ids.truncate(REFUSED_OBJECTS_MAX);
        NewAuditEntry { code: call::code_name(code).to_owned(), reason, ..entry }
    }

    /// Whether each call of this kind leaves an entry, however it ends.
    fn is_audited(&self) -> bool {
        self.changes || self.facts().payload_read
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        // Each is written at once: a panic leaves nothing half-written.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts [`Trails`] around the services.
#[derive(Clone, Debug)]
pub(super) struct TrailLayer {
    auditor: Auditor,
    methods: Arc<Methods>,
}

impl TrailLayer {
    pub(super) fn new(auditor: Auditor) -> TrailLayer {
        TrailLayer { auditor, methods: Arc::new(methods()) }
    }
}

impl<S> Layer<S> for TrailLayer {
    type Service = Trails<S>;

    fn layer(&self, services: S) -> Trails<S> {
        Trails { services, layer: self.clone() }
    }
}

/// The services, each call of which has a [`Trail`] among its extensions.
#[derive(Clone, Debug)]
pub(super) struct Trails<S> {
    services: S,
    layer: TrailLayer,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Trails<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
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
        let path = request.uri().path();
        if path.starts_with(authentication::HEALTH) {
            return Box::pin(self.services.call(request));
        }
        let known = self.layer.methods.get_key_value(path.trim_start_matches('/'));
        let trail = Arc::new(Trail {
            method: known.map(|(method, _)| Arc::clone(method)),
            changes: known.is_some_and(|(_, changes)| *changes),
            peer: request.extensions().get::<Peer>().map(Peer::address),
            facts: Mutex::default(),
        });
        request.extensions_mut().insert(Arc::clone(&trail));
        let open = Open { trail, auditor: self.layer.auditor.clone(), answered: false };
        let answer = self.services.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            if open.trail.method.is_some() {
                response = call::own_form(response);
            }
            open.close(&response);
            Ok(response)
        })
    }
}

/// A call that is not answered yet.
struct Open {
    trail: Arc<Trail>,
    auditor: Auditor,
    answered: bool,
}

impl Open {
    fn close(mut self, response: &Response<Body>) {
        self.answered = true;
        let Some(error) = call::error(response) else { return };
        if response.extensions().get::<Unlogged>().is_some() {
            return;
        }
        let is_denied = matches!(error.code(), Code::Unauthenticated | Code::PermissionDenied);
        if is_denied || self.trail.is_audited() {
            let reason = error.get_details_error_info().map(|info| info.reason);
            let reason = reason.unwrap_or_default();
            self.auditor.refused(self.trail.refusal(error.code(), reason));
        }
    }
}

/// Its time was over, or its caller went away: nobody knows what came of it.
impl Drop for Open {
    fn drop(&mut self) {
        if !self.answered && self.trail.is_audited() {
            self.auditor.refused(self.trail.refusal(Code::Cancelled, String::new()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail() -> Trail {
        let facts = Mutex::default();
        Trail { method: Some("Service/Method".into()), changes: true, peer: None, facts }
    }

    #[test]
    fn strangers_write_into_no_organizations_log() {
        let organization = OrganizationId::stored("clinic");
        let stranger = trail();
        stranger.object("sub_1");
        stranger.organization(&organization, false);
        let entry = stranger.refusal(Code::PermissionDenied, "ORGANIZATION_DENIED".to_owned());
        assert_eq!(entry.chain, Chain::Deployment);
        assert_eq!(entry.object_ids, ["clinic", "sub_1"]);
        let own = trail();
        own.organization(&organization, true);
        assert_eq!(own.entry([]).chain, Chain::Organization(organization));
    }

    #[test]
    fn what_is_no_id_is_not_kept_and_refusals_are_short() {
        let trail = trail();
        for id in ["Robin Example", "sub_1", "", "sub_2", "sub_3", "sub_4", "sub_5"] {
            trail.object(id);
        }
        let refusal = trail.refusal(Code::NotFound, String::new());
        assert_eq!(refusal.object_ids, ["sub_1", "sub_2", "sub_3", "sub_4"]);
        assert_eq!((&*refusal.code, &*refusal.principal), ("NOT_FOUND", ""));
        assert_eq!(trail.entry(["url", "name"]).changed_fields, ["url", "name"]);
    }

    #[test]
    fn the_id_of_what_was_shown_is_kept_and_who_is_known_by_it() {
        let known = trail();
        let name = "whk_0123456789abc".to_owned();
        known.principal(&Arc::new(Principal { name, ..Principal::anyone() }));
        let entry = known.entry([]);
        assert_eq!(
            (&*entry.principal, &*entry.credential_id),
            ("whk_0123456789abc", &*entry.principal)
        );
        let unknown = trail();
        unknown.presented("whk_0000000000000");
        let entry = unknown.entry([]);
        assert_eq!((&*entry.principal, &*entry.credential_id), ("", "whk_0000000000000"));
        let anyone = trail();
        anyone.principal(&Arc::new(Principal::anyone()));
        assert_eq!(
            (&*anyone.entry([]).principal, &*anyone.entry([]).credential_id),
            ("anyone", "")
        );
    }
}
