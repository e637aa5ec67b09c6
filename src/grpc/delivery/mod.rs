//! `DeliveryService`: tells how deliveries stand, and acts on them.

mod message;

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use self::message::{attempt_message, delivery_message};
use super::event::optional_account;
use super::page::{self, Page};
use super::pb::delivery_service_server::DeliveryService;
use super::status::Object;
use super::trail::Trail;
use super::{Context, access, pb, request_id, status, time};
use crate::domain::delivery::DeliveryState;
use crate::domain::id::{DeliveryKey, EventKey, OrganizationId, SubscriptionKey};
use crate::domain::invalid::InvalidField;
use crate::domain::pattern::EventPattern;
use crate::domain::scope::Scope;
use crate::store::{Answer, DeliveryFilter, StoreError};

/// Serves `DeliveryService`.
pub(super) struct Deliveries(pub(super) Arc<Context>);

#[tonic::async_trait]
impl DeliveryService for Deliveries {
    async fn get_delivery(
        &self,
        request: Request<pb::GetDeliveryRequest>,
    ) -> Result<Response<pb::GetDeliveryResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let organization =
            access::organization(&extensions, Scope::DeliveriesRead, &request.organization_id)?;
        let (key, object) = self.key(&request.delivery_id)?;
        let found = self.0.store.delivery(&organization, key).await;
        let found = found.map_err(|error| status::store(error, object))?;
        let delivery = Some(delivery_message(self.0.store.ids(), found));
        Ok(Response::new(pb::GetDeliveryResponse { delivery }))
    }

    async fn list_deliveries(
        &self,
        request: Request<pb::ListDeliveriesRequest>,
    ) -> Result<Response<pb::ListDeliveriesResponse>, Status> {
        let (_, extensions, mut request) = request.into_parts();
        let organization =
            access::organization(&extensions, Scope::DeliveriesRead, &request.organization_id)?;
        let page = Page::read(&mut request, "ListDeliveries", self.0.store.page_key())?;
        self.list(&organization, request, page).await.map(Response::new)
    }

    async fn list_delivery_attempts(
        &self,
        request: Request<pb::ListDeliveryAttemptsRequest>,
    ) -> Result<Response<pb::ListDeliveryAttemptsResponse>, Status> {
        let (_, extensions, mut request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.delivery_id])?;
        if request.include_response_body {
            trail.reads_payload();
        }
        let organization =
            access::organization(&extensions, Scope::DeliveriesRead, &request.organization_id)?;
        if request.include_response_body {
            access::scope(&extensions, Scope::BodiesRead)?;
        }
        let page = Page::read(&mut request, "ListDeliveryAttempts", self.0.store.page_key())?;
        let attempts = self.attempts(&organization, &request, page).await?;
        if request.include_response_body {
            trail.read(&self.0.auditor).await?;
        }
        Ok(Response::new(attempts))
    }

    async fn retry_delivery(
        &self,
        request: Request<pb::RetryDeliveryRequest>,
    ) -> Result<Response<pb::RetryDeliveryResponse>, Status> {
        let (_, extensions, mut request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.delivery_id])?;
        let organization =
            access::organization(&extensions, Scope::DeliveriesWrite, &request.organization_id)?;
        let store = &self.0.store;
        let id = std::mem::take(&mut request.request_id);
        let record = request_id::record(&id, store.page_key(), "RetryDelivery", &request)?;
        let (key, object) = self.key(&request.delivery_id)?;
        let response = |delivery| pb::RetryDeliveryResponse {
            delivery: Some(delivery_message(store.ids(), delivery)),
        };
        let encoded = |delivery: &_| response(Clone::clone(delivery)).encode_to_vec();
        let entry = trail.entry(["state"]);
        let answer = store.retry_delivery(&organization, key, record, &entry, encoded).await;
        match answer.map_err(|error| status::store(error, object))? {
            Answer::Now(delivery) => Ok(Response::new(response(delivery))),
            Answer::Before { response, secret: _ } => {
                let before = pb::RetryDeliveryResponse::decode(&*response);
                let before = before.map_err(|error| status::internal(&error))?;
                trail.unchanged(store).await.map_err(|error| status::store(error, object))?;
                Ok(Response::new(before))
            }
        }
    }

    async fn cancel_delivery(
        &self,
        request: Request<pb::CancelDeliveryRequest>,
    ) -> Result<Response<pb::CancelDeliveryResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.delivery_id])?;
        let organization =
            access::organization(&extensions, Scope::DeliveriesWrite, &request.organization_id)?;
        let (key, object) = self.key(&request.delivery_id)?;
        let entry = trail.entry(["state"]);
        let cancelled = self.0.store.cancel_delivery(&organization, key, &entry).await;
        let cancelled = cancelled.map_err(|error| status::store(error, object))?;
        let delivery = Some(delivery_message(self.0.store.ids(), cancelled));
        Ok(Response::new(pb::CancelDeliveryResponse { delivery }))
    }
}

impl Deliveries {
    /// The key of a delivery's id. What is no id names nothing.
    fn key<'a>(&self, id: &'a str) -> Result<(DeliveryKey, Object<'a>), Status> {
        required("delivery_id", id)?;
        let object = Object::delivery(id);
        let key = self.0.store.ids().parse_delivery(id);
        key.map(|key| (key, object)).ok_or_else(|| status::not_found(object))
    }

    async fn list(
        &self,
        organization: &OrganizationId,
        request: pb::ListDeliveriesRequest,
        page: Page<'_>,
    ) -> Result<pb::ListDeliveriesResponse, Status> {
        let store = &self.0.store;
        let Some(filter) = self.filter(organization, request).await? else {
            return Ok(pb::ListDeliveriesResponse::default());
        };
        let before = page.from.map(|[event, subscription]| DeliveryKey {
            event: EventKey(event),
            subscription: SubscriptionKey(subscription),
        });
        let found = store.deliveries(organization, &filter, before, page.size).await;
        let found = found.map_err(|error| status::store(error, Object::delivery("")))?;
        let key_of = |one: &crate::domain::delivery::Delivery| DeliveryKey {
            event: one.event.key,
            subscription: one.subscription,
        };
        let keys: Vec<_> = found.deliveries.iter().map(key_of).collect();
        let messages = found.deliveries.into_iter().map(|one| delivery_message(store.ids(), one));
        let mut deliveries: Vec<_> = messages.collect();
        let fitting = page::fitting(&deliveries);
        let next = if fitting < deliveries.len() {
            deliveries.truncate(fitting);
            keys.get(fitting - 1).copied()
        } else {
            found.next
        };
        let next_page_token = page.token(next.map(|key| [key.event.0, key.subscription.0]));
        Ok(pb::ListDeliveriesResponse { deliveries, next_page_token })
    }

    /// What a list looks for; `None` when there can be nothing: its event is not there.
    async fn filter(
        &self,
        organization: &OrganizationId,
        request: pb::ListDeliveriesRequest,
    ) -> Result<Option<DeliveryFilter>, Status> {
        let (from, to) = time::range("create_time", request.create_time)?;
        let mut filter = DeliveryFilter {
            subscription: None,
            account: optional_account(&request.account_id)?,
            event: None,
            pattern: EventPattern::parse_filter(&request.event_type_pattern)?,
            states: states(&request.states)?,
            from,
            to,
        };
        if !request.subscription_id.is_empty() {
            let key = self.0.store.ids().parse_subscription(&request.subscription_id);
            let invalid = || {
                let why = "the id of a subscription, or nothing";
                InvalidField::new("subscription_id", "INVALID_ID", why)
            };
            filter.subscription = Some(key.ok_or_else(invalid)?);
        }
        if !request.event_id.is_empty() {
            match self.0.store.event_key_of(organization, &request.event_id).await {
                Ok(key) => filter.event = Some(key),
                Err(StoreError::NotFound) => return Ok(None),
                Err(error) => return Err(status::store(error, Object::event(&request.event_id))),
            }
        }
        Ok(Some(filter))
    }

    async fn attempts(
        &self,
        organization: &OrganizationId,
        request: &pb::ListDeliveryAttemptsRequest,
        page: Page<'_>,
    ) -> Result<pb::ListDeliveryAttemptsResponse, Status> {
        let (key, object) = self.key(&request.delivery_id)?;
        let store = &self.0.store;
        let after = page.from.map_or(0, |[after, _]| u32::try_from(after).unwrap_or(u32::MAX));
        let (limit, with_body) = (page.size + 1, request.include_response_body);
        let found = store.attempts(organization, key, after, limit, with_body).await;
        let found = found.map_err(|error| status::store(error, object))?;
        let count = found.len();
        let messages = found.into_iter().map(|one| attempt_message(store.ids(), key, one));
        let mut attempts: Vec<_> = messages.take(page.size).collect();
        attempts.truncate(page::fitting(&attempts));
        let last = attempts.last().filter(|_| attempts.len() < count);
        let next_page_token = page.token(last.map(|last| [last.number.into(), 0]));
        Ok(pb::ListDeliveryAttemptsResponse { attempts, next_page_token })
    }
}

/// Refuses an id that was left out.
pub(super) fn required(field: &str, id: &str) -> Result<(), InvalidField> {
    if id.is_empty() {
        return Err(InvalidField::new(field, "REQUIRED", "required"));
    }
    Ok(())
}

fn states(sent: &[i32]) -> Result<Vec<DeliveryState>, InvalidField> {
    let read = |(place, state): (usize, &i32)| {
        let state = match pb::delivery::State::try_from(*state) {
            Ok(pb::delivery::State::Pending) => DeliveryState::Pending,
            Ok(pb::delivery::State::InFlight) => DeliveryState::InFlight,
            Ok(pb::delivery::State::Succeeded) => DeliveryState::Succeeded,
            Ok(pb::delivery::State::Dead) => DeliveryState::Dead,
            Ok(pb::delivery::State::Cancelled) => DeliveryState::Cancelled,
            Ok(pb::delivery::State::Unspecified) | Err(_) => {
                let field = format!("states[{place}]");
                return Err(InvalidField::new(field, "INVALID_STATE", "a state of a delivery"));
            }
        };
        Ok(state)
    };
    sent.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_a_filter_are_those_that_deliveries_have() {
        let every = [1, 2, 3, 4, 5].map(|number| i16::try_from(number).expect("small"));
        let read = states(&[1, 2, 3, 4, 5]).expect("all known");
        assert_eq!(read.iter().map(|state| *state as i16).collect::<Vec<_>>(), every);
        for unknown in [0, 6, -1, i32::MAX] {
            let refused = states(&[1, unknown]).expect_err("no state");
            assert_eq!(refused.field, "states[1]");
        }
    }
}
