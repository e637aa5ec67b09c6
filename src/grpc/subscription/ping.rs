//! `PingSubscription`: the profile's own event, for one subscription alone.

use tonic::{Request, Status};

use super::find;
use super::message::is_unproven;
use crate::domain::event::{NewEvent, Payload};
use crate::domain::event_rules::{EventInput, PAYLOAD_BYTES_CEILING};
use crate::domain::id::{AccountId, DeliveryKey};
use crate::domain::scope::Scope;
use crate::domain::subscription::SubscriptionState;
use crate::grpc::status::Object;
use crate::grpc::trail::Trail;
use crate::grpc::{Context, access, call, pb, status};

pub(super) async fn ping(
    context: &Context,
    request: Request<pb::PingSubscriptionRequest>,
) -> Result<pb::PingSubscriptionResponse, Status> {
    let (metadata, extensions, request) = request.into_parts();
    let trail = Trail::of(&extensions, &[&request.subscription_id])?;
    let organization =
        access::organization(&extensions, Scope::SubscriptionsWrite, &request.organization_id)?;
    let id = &request.subscription_id;
    let subscription = find(context, &organization, id).await?;
    let object = Object::subscription(id);
    let inactive = || status::precondition(object, "WRONG_STATE", "the subscription is not active");
    if subscription.state != SubscriptionState::Active {
        return Err(inactive());
    }
    if is_unproven(context, &subscription) == Some(true) {
        let why = "the endpoint has not consented yet, and gets nothing: see ownership";
        return Err(status::precondition(object, "OWNERSHIP_UNPROVEN", why));
    }
    let profiles = context.routing.profiles();
    let profile = profiles.get(&subscription.spec.profile);
    let ping = profile.and_then(|profile| profile.ping()).ok_or_else(|| {
        status::precondition(object, "PING_UNSUPPORTED", "the subscription's profile has no ping")
    })?;
    // Who chooses the URL chooses who is called.
    let taken = context.pings.take(&organization, 1);
    taken.map_err(|wait| status::rate_exceeded("pings", wait))?;
    let input = EventInput {
        organization,
        account_id: subscription.spec.account.as_ref().map_or("", AccountId::as_str).to_owned(),
        id: String::new(),
        event_type: ping.event_type.clone(),
        occur_time: None,
        expire_time: None,
        payload: ping.payload.clone().map_or(Payload::None, Payload::Json),
        content_type: String::new(),
        attributes: <_>::default(),
        subject: String::new(),
        traceparent: String::new(),
        tracestate: String::new(),
    };
    // The ping is the operator's, not the caller's: only what the store can hold bounds it.
    let event = input.check(PAYLOAD_BYTES_CEILING, context.lease.now());
    let event = event.map_err(|invalid| status::internal(&invalid))?;
    let target = Some(subscription.key);
    let (trace, publisher) = (call::trace_context(&metadata), access::publisher(&extensions)?);
    let event = NewEvent { target, trace, publisher, ..event };
    let stored = context.intake.publish(vec![event]).await.map_err(status::publish)?;
    let stored = stored.into_iter().next();
    let stored = stored.ok_or_else(|| status::internal(&"a ping without a result"))?;
    if stored.delivery_count == 0 {
        return Err(inactive());
    }
    let delivery = DeliveryKey { event: stored.key, subscription: subscription.key };
    let delivery_id = context.store.ids().delivery(delivery);
    // The event's own row says who sent it, as with every published event; this entry follows.
    trail.object(&stored.id);
    trail.object(&delivery_id);
    let audited = trail.unchanged(&context.store).await;
    audited.map_err(|error| status::store(error, object))?;
    Ok(pb::PingSubscriptionResponse { delivery_id, event_id: stored.id })
}
