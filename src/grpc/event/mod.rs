//! `EventService`: takes events in and shows what was taken in.

mod publish;
mod purge;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::page::{self, Page};
use super::pb::event_service_server::EventService;
use super::status::Object;
use super::trail::Trail;
use super::{Context, access, pb, status, time};
use crate::domain::event::{Event, Payload};
use crate::domain::id::{AccountId, EventKey, OrganizationId};
use crate::domain::pattern::EventPattern;
use crate::domain::scope::Scope;
use crate::store::EventFilter;

/// Serves `EventService`.
pub(super) struct Events(pub(super) Arc<Context>);

#[tonic::async_trait]
impl EventService for Events {
    async fn publish_events(
        &self,
        request: Request<pb::PublishEventsRequest>,
    ) -> Result<Response<pb::PublishEventsResponse>, Status> {
        publish::publish(&self.0, request).await
    }

    async fn get_event(
        &self,
        request: Request<pb::GetEventRequest>,
    ) -> Result<Response<pb::GetEventResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.event_id])?;
        if request.include_payload {
            trail.reads_payload();
        }
        let organization =
            access::organization(&extensions, Scope::EventsRead, &request.organization_id)?;
        if request.include_payload {
            access::scope(&extensions, Scope::PayloadsRead)?;
        }
        let id = &request.event_id;
        let found = self.0.store.event_by_id(&organization, id, request.include_payload).await;
        let event = found.map_err(|error| status::store(error, Object::event(id)))?;
        let event = message(event, request.include_payload)?;
        if request.include_payload {
            trail.read(&self.0.auditor).await?;
        }
        Ok(Response::new(pb::GetEventResponse { event: Some(event) }))
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let (_, extensions, mut request) = request.into_parts();
        let trail = Trail::of(&extensions, &[])?;
        if request.include_payload {
            trail.reads_payload();
        }
        let organization =
            access::organization(&extensions, Scope::EventsRead, &request.organization_id)?;
        if request.include_payload {
            access::scope(&extensions, Scope::PayloadsRead)?;
        }
        let page = Page::read(&mut request, "ListEvents", self.0.store.page_key())?;
        let reads_payload = request.include_payload;
        let listed = self.list(&organization, request, page).await?;
        if reads_payload {
            listed.events.iter().for_each(|event| trail.object(&event.id));
            trail.read(&self.0.auditor).await?;
        }
        Ok(Response::new(listed))
    }

    async fn purge_event(
        &self,
        request: Request<pb::PurgeEventRequest>,
    ) -> Result<Response<pb::PurgeEventResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.event_id])?;
        let scope = Scope::PayloadsPurge;
        let organization = access::organization(&extensions, scope, &request.organization_id)?;
        purge::event(&self.0, &organization, &request, trail).await.map(Response::new)
    }

    async fn purge_subject(
        &self,
        request: Request<pb::PurgeSubjectRequest>,
    ) -> Result<Response<pb::PurgeSubjectResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        // Not the subject: it may name a person, and the log outlives what is purged.
        let trail = Trail::of(&extensions, &[])?;
        let scope = Scope::PayloadsPurge;
        let organization = access::organization(&extensions, scope, &request.organization_id)?;
        purge::subject(&self.0, &organization, request, trail).await.map(Response::new)
    }
}

impl Events {
    async fn list(
        &self,
        organization: &OrganizationId,
        request: pb::ListEventsRequest,
        page: Page<'_>,
    ) -> Result<pb::ListEventsResponse, Status> {
        let (from, to) = time::range("publish_time", request.publish_time)?;
        let filter = EventFilter {
            account: optional_account(&request.account_id)?,
            pattern: EventPattern::parse_filter(&request.event_type_pattern)?,
            from,
            to,
        };
        let before = page.from.map(|[key, _]| EventKey(key));
        let with_payload = request.include_payload;
        let store = &self.0.store;
        let found = store.events(organization, &filter, before, page.size, with_payload).await;
        let found = found.map_err(|error| status::store(error, Object::event("")))?;
        let keys: Vec<_> = found.events.iter().map(|event| event.summary.key).collect();
        let events = found.events.into_iter().map(|event| message(event, with_payload));
        let mut events = events.collect::<Result<Vec<_>, _>>()?;
        let fitting = page::fitting(&events);
        let next = if fitting < events.len() {
            events.truncate(fitting);
            keys.get(fitting - 1).copied()
        } else {
            found.next
        };
        let next_page_token = page.token(next.map(|key| [key.0, 0]));
        Ok(pb::ListEventsResponse { events, next_page_token })
    }
}

/// The account of a filter; an empty one filters nothing.
pub(super) fn optional_account(account_id: &str) -> Result<Option<AccountId>, Status> {
    match account_id {
        "" => Ok(None),
        id => Ok(Some(AccountId::parse(id)?)),
    }
}

fn message(event: Event, with_payload: bool) -> Result<pb::Event, Status> {
    let payload = match event.payload {
        Payload::Json(text) if with_payload => {
            // The only owner of the bytes: they are not copied.
            let text = String::from_utf8(text.into());
            let text = text.map_err(|_| status::internal(&"a stored JSON text is not UTF-8"))?;
            Some(pb::event::Payload::Json(text))
        }
        Payload::Raw(bytes) if with_payload => Some(pb::event::Payload::Raw(bytes)),
        Payload::None | Payload::Json(_) | Payload::Raw(_) => None,
    };
    let summary = event.summary;
    // They may name a person, as the payload may.
    let (attributes, subject) =
        if with_payload { (summary.attributes, summary.subject) } else { Default::default() };
    Ok(pb::Event {
        id: summary.id,
        organization_id: summary.organization.as_str().to_owned(),
        account_id: summary.account.map(|account| account.to_string()).unwrap_or_default(),
        r#type: summary.event_type,
        occur_time: Some(time::to_timestamp(summary.occur_time)),
        content_type: summary.content_type,
        payload_bytes: summary.payload_bytes,
        attributes,
        subject,
        expire_time: summary.expire_time.map(time::to_timestamp),
        publish_time: Some(time::to_timestamp(summary.publish_time)),
        payload_purge_time: summary.purge_time.map(time::to_timestamp),
        publisher: (*summary.publisher).to_owned(),
        payload,
    })
}
