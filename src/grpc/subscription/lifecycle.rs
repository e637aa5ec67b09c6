//! Pause, resume, activate, deactivate.

use tonic::Status;

use super::key_of;
use super::message::{current_message, is_unproven};
use crate::domain::id::OrganizationId;
use crate::domain::lifecycle::Transition;
use crate::domain::subscription::Subscription;
use crate::grpc::status::Object;
use crate::grpc::trail::Trail;
use crate::grpc::{Context, pb, status};
use crate::store::{Change, ChangeError};

pub(super) async fn apply(
    context: &Context,
    organization: &OrganizationId,
    id: &str,
    transition: Transition,
    trail: &Trail,
) -> Result<pb::Subscription, Status> {
    let key = key_of(context, id)?;
    let change = |current: Subscription| {
        let state = transition.apply(current.state)?;
        let unproven = is_unproven(context, &current);
        let asks = unproven.is_some_and(|unproven| transition.asks_anew(current.state, unproven));
        if state == current.state {
            return Ok(if asks { Change::Ask } else { Change::Keep });
        }
        // Only a disabled one has a reason.
        let state_reason = String::new();
        let changed = Box::new(Subscription { state, state_reason, ..current });
        Ok(if asks { Change::WriteAndAsk(changed) } else { Change::Write(changed) })
    };
    let (store, entry) = (&context.store, trail.entry(["state"]));
    let changed = store.change_subscription(organization, key, None, &entry, change).await;
    let object = Object::subscription(id);
    let changed = changed.map_err(|error| match error {
        ChangeError::Store(error) => status::store(error, object),
        ChangeError::Refused(why) => status::precondition(object, "WRONG_STATE", why),
    })?;
    context.refresh_routing().await;
    Ok(current_message(context, &changed))
}
