//! `AuditService`: shows who did what.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::page::{self, Page};
use super::pb::audit_service_server::AuditService;
use super::status::Object;
use super::{Context, access, pb, status, time};
use crate::domain::audit::{AuditEntry, Chain};
use crate::domain::scope::Scope;
use crate::domain::timestamp::Timestamp;
use crate::store::{AuditFilter, AuditPlace};

/// Serves `AuditService`.
pub(super) struct Audit(pub(super) Arc<Context>);

#[tonic::async_trait]
impl AuditService for Audit {
    async fn list_audit_entries(
        &self,
        request: Request<pb::ListAuditEntriesRequest>,
    ) -> Result<Response<pb::ListAuditEntriesResponse>, Status> {
        let (_, extensions, mut request) = request.into_parts();
        let organization =
            access::organization(&extensions, Scope::AuditRead, &request.organization_id)?;
        let store = &self.0.store;
        let page = Page::read(&mut request, "ListAuditEntries", store.page_key())?;
        let (from, to) = time::range("time", request.time)?;
        let chain = Chain::Organization(organization);
        let before =
            page.from.map(|[time, sequence]| AuditPlace { time: Timestamp(time), sequence });
        let filter = AuditFilter { from, to };
        let found = store.audit_entries(&chain, filter, before, page.size + 1).await;
        let found = found.map_err(|error| status::store(error, Object::audit_entry("")))?;
        let places: Vec<_> = found.iter().map(|one| [one.time.0, one.sequence]).collect();
        let mut entries: Vec<_> = found.into_iter().take(page.size).map(message).collect();
        entries.truncate(page::fitting(&entries));
        let has_more = entries.len() < places.len();
        let last = entries.len().checked_sub(1).map(|last| places[last]);
        let next_page_token = page.token(last.filter(|_| has_more));
        Ok(Response::new(pb::ListAuditEntriesResponse { entries, next_page_token }))
    }
}

fn message(entry: AuditEntry) -> pb::AuditEntry {
    let AuditEntry { entry, sequence, time, previous_hash, hash } = entry;
    pb::AuditEntry {
        sequence: u64::try_from(sequence).unwrap_or_default(),
        time: Some(time::to_timestamp(time)),
        principal: entry.principal,
        credential_id: entry.credential_id,
        peer: entry.peer,
        method: entry.method,
        object_ids: entry.object_ids,
        code: entry.code,
        reason: entry.reason,
        changed_fields: entry.changed_fields,
        request_id: entry.request_id,
        payload_read: entry.payload_read,
        call_count: entry.calls,
        previous_hash: previous_hash.to_vec().into(),
        hash: hash.to_vec().into(),
    }
}
