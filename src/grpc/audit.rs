//! `AuditService`: shows who did what.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::page::{self, Filling, Page};
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
        let filter = AuditFilter { from, to };
        let mut last = page.from;
        let mut before = last;
        let mut filling = Filling::new(page.size);
        let next = 'chunks: loop {
            let place =
                before.map(|[time, sequence]| AuditPlace { time: Timestamp(time), sequence });
            let found = store.audit_entries(&chain, filter, place, page::CHUNK).await;
            let found = found.map_err(|error| status::store(error, Object::audit_entry("")))?;
            let is_end = found.len() < page::CHUNK;
            for entry in found {
                let place = [entry.time.0, entry.sequence];
                if !filling.takes(message(entry)) {
                    break 'chunks last;
                }
                last = Some(place);
            }
            if is_end {
                break None;
            }
            before = last;
        };
        let (entries, next_page_token) = (filling.items, page.token(next));
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
