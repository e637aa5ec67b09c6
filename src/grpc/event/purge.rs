//! `PurgeEvent` and `PurgeSubject`.

use tonic::Status;

use super::message;
use crate::domain::event_rules::check_subject;
use crate::domain::id::{EventKey, OrganizationId};
use crate::grpc::delivery::required;
use crate::grpc::page::Page;
use crate::grpc::status::Object;
use crate::grpc::trail::Trail;
use crate::grpc::{Context, pb, status};

/// What goes, as the audit log names it.
const ERASED: [&str; 3] = ["payload", "attributes", "subject"];

pub(super) async fn event(
    context: &Context,
    organization: &OrganizationId,
    request: &pb::PurgeEventRequest,
    trail: &Trail,
) -> Result<pb::PurgeEventResponse, Status> {
    let id = &request.event_id;
    required("event_id", id)?;
    let purged = context.store.purge_event(organization, id, &trail.entry(ERASED)).await;
    let purged = purged.map_err(|error| status::store(error, Object::event(id)))?;
    Ok(pb::PurgeEventResponse { event: Some(message(purged, false)?) })
}

pub(super) async fn subject(
    context: &Context,
    organization: &OrganizationId,
    mut request: pb::PurgeSubjectRequest,
    trail: &Trail,
) -> Result<pb::PurgeSubjectResponse, Status> {
    let store = &context.store;
    let page = Page::read(&mut request, "PurgeSubject", store.page_key())?;
    required("subject", &request.subject)?;
    check_subject(&request.subject)?;
    let before = page.from.map(|[key, _]| EventKey(key));
    let entry = trail.entry(ERASED);
    let purged = store.purge_subject(organization, &request.subject, before, &entry).await;
    let purged = purged.map_err(|error| status::store(error, Object::event("")))?;
    let next_page_token = page.token(purged.next.map(|key| [key.0, 0]));
    Ok(pb::PurgeSubjectResponse { purged_count: purged.purged, next_page_token })
}
