//! `CreateSubscription`.

use prost::Message;
use tonic::Status;

use super::draft::{Checked, Draft, of_request};
use super::message::{current_message, secret_message, signs, spec_message, state_message};
use super::secret::choose;
use crate::domain::id::{OrganizationId, SecretKey, SubscriptionKey};
use crate::domain::invalid::InvalidField;
use crate::domain::subscription::SubscriptionState;
use crate::grpc::field_mask::{Field, fields};
use crate::grpc::status::Object;
use crate::grpc::trail::Trail;
use crate::grpc::{Context, pb, request_id, status};
use crate::store::{Answer, Created, NewSubscription, StoreError};

pub(super) async fn create(
    context: &Context,
    organization: OrganizationId,
    mut request: pb::CreateSubscriptionRequest,
    trail: &Trail,
) -> Result<pb::CreateSubscriptionResponse, Status> {
    let store = &context.store;
    let id = std::mem::take(&mut request.request_id);
    let record = request_id::record(&id, store.page_key(), "CreateSubscription", &request)?;
    let sent = of_request(request.subscription, &organization)?;
    let mut changed: Vec<_> = fields(None, &sent)?.into_iter().map(Field::name).collect();
    changed.extend((!sent.account_id.is_empty()).then_some("account_id"));
    let state = first_state(sent.state)?;
    let checked = Draft::sent(sent)?.check(context, &organization, None)?;
    let secret = first_secret(&checked, request.signing_secret)?;
    let Checked { spec, profile } = checked;
    if request.validate_only {
        let subscription = pb::Subscription {
            organization_id: organization.as_str().to_owned(),
            state: state_message(state).into(),
            ..spec_message(&spec)
        };
        let subscription = Some(subscription);
        trail.unchanged(store).await.map_err(failed)?;
        return Ok(pb::CreateSubscriptionResponse { subscription, signing_secret: None });
    }
    let signs = signs(Some(&profile), spec.signing_enabled, 0);
    let new = NewSubscription {
        key: SubscriptionKey(context.lease.next_key()),
        organization,
        spec,
        state,
        secret: secret.map(|secret| (SecretKey(context.lease.next_key()), secret)),
    };
    let mut entry = trail.entry(changed);
    entry.object_ids.push(store.ids().subscription(new.key));
    let response = |created: &Created| pb::CreateSubscriptionResponse {
        subscription: Some(current_message(context, &created.subscription)),
        signing_secret: created.secret.as_ref().map(|one| secret_message(store.ids(), one, signs)),
    };
    let respond = |made: &Created| response(made).encode_to_vec();
    let answer = store.create_subscription(new, record, &entry, respond);
    let (mut response, secret) = match answer.await.map_err(failed)? {
        Answer::Now(created) => {
            context.refresh_routing().await;
            (response(&created), created.secret)
        }
        Answer::Before { response, secret } => {
            let before = pb::CreateSubscriptionResponse::decode(&*response);
            let before = before.map_err(|error| status::internal(&error))?;
            trail.object(before.subscription.as_ref().map_or("", |one| one.id.as_str()));
            trail.unchanged(store).await.map_err(failed)?;
            (before, secret)
        }
    };
    if let (Some(message), Some(secret)) = (&mut response.signing_secret, secret) {
        message.secret = secret.secret.unwrap_or_default();
    }
    Ok(response)
}

fn failed(error: StoreError) -> Status {
    status::store(error, Object::subscription(""))
}

fn first_state(sent: i32) -> Result<SubscriptionState, InvalidField> {
    match pb::subscription::State::try_from(sent) {
        Ok(pb::subscription::State::Unspecified | pb::subscription::State::Active) => {
            Ok(SubscriptionState::Active)
        }
        Ok(pb::subscription::State::Inactive) => Ok(SubscriptionState::Inactive),
        Ok(pb::subscription::State::Paused | pb::subscription::State::Disabled) | Err(_) => {
            let why = "STATE_ACTIVE, STATE_INACTIVE, or left out";
            Err(InvalidField::new("subscription.state", "INVALID_STATE", why))
        }
    }
}

/// The secret to begin with: the caller's; or a new one if requests are signed.
fn first_secret(checked: &Checked, given: String) -> Result<Option<String>, InvalidField> {
    let Some(rule) = checked.profile.secret() else {
        if given.is_empty() {
            return Ok(None);
        }
        let why = "this profile cannot sign";
        return Err(InvalidField::new("signing_secret", "SIGNING_UNSUPPORTED", why));
    };
    if given.is_empty() && !checked.spec.signing_enabled {
        return Ok(None);
    }
    choose(rule, given).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_begins_active_or_inactive() {
        let begin = |state: pb::subscription::State| first_state(state.into()).ok();
        assert_eq!(begin(pb::subscription::State::Unspecified), Some(SubscriptionState::Active));
        assert_eq!(begin(pb::subscription::State::Active), Some(SubscriptionState::Active));
        assert_eq!(begin(pb::subscription::State::Inactive), Some(SubscriptionState::Inactive));
        assert_eq!(begin(pb::subscription::State::Paused), None);
        assert_eq!(begin(pb::subscription::State::Disabled), None);
        assert_eq!(first_state(99).expect_err("unknown").field, "subscription.state");
    }
}
