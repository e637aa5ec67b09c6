//! `EventTypeService`: the catalogue, from memory.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::page::{self, Page};
use super::pb::event_type_service_server::EventTypeService;
use super::status::Object;
use super::{Context, access, pb, status};
use crate::domain::catalog::{AppliesTo, EventType};
use crate::domain::scope::Scope;

/// Serves `EventTypeService`.
pub(super) struct EventTypes(pub(super) Arc<Context>);

#[tonic::async_trait]
impl EventTypeService for EventTypes {
    async fn get_event_type(
        &self,
        request: Request<pb::GetEventTypeRequest>,
    ) -> Result<Response<pb::GetEventTypeResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        access::organization(&extensions, Scope::EventsRead, &request.organization_id)?;
        let found = self.0.catalog.get(&request.catalog, &request.name);
        let found = found.ok_or_else(|| {
            let id = format!("{}/{}", request.catalog, request.name);
            status::not_found(Object::event_type(&id))
        })?;
        Ok(Response::new(pb::GetEventTypeResponse { event_type: Some(message(found)) }))
    }

    async fn list_event_types(
        &self,
        request: Request<pb::ListEventTypesRequest>,
    ) -> Result<Response<pb::ListEventTypesResponse>, Status> {
        let (_, extensions, mut request) = request.into_parts();
        access::organization(&extensions, Scope::EventsRead, &request.organization_id)?;
        let page = Page::read(&mut request, "ListEventTypes", self.0.store.page_key())?;
        let wanted =
            |one: &&EventType| request.catalog.is_empty() || one.catalog == request.catalog;
        let from = page.from.map_or(0, |[from, _]| usize::try_from(from).unwrap_or(usize::MAX));
        let mut rest = self.0.catalog.iter().filter(wanted).skip(from);
        let mut event_types: Vec<_> = rest.by_ref().take(page.size).map(message).collect();
        let fitting = page::fitting(&event_types);
        let is_last = fitting == event_types.len() && rest.next().is_none();
        event_types.truncate(fitting);
        let next = i64::try_from(from.saturating_add(fitting)).unwrap_or(i64::MAX);
        let next_page_token = page.token((!is_last).then_some([next, 0]));
        Ok(Response::new(pb::ListEventTypesResponse { event_types, next_page_token }))
    }
}

fn message(event_type: &EventType) -> pb::EventType {
    let applies_to = match event_type.applies_to {
        AppliesTo::Body => pb::event_type::AppliesTo::Body,
        AppliesTo::Payload => pb::event_type::AppliesTo::Payload,
    };
    pb::EventType {
        catalog: event_type.catalog.to_owned(),
        name: event_type.name.to_owned(),
        description: event_type.description.clone(),
        schema_json: event_type.schema_json.to_owned(),
        example_json: event_type.example_json.clone().unwrap_or_default(),
        applies_to: applies_to.into(),
    }
}
