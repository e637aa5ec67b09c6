//! Signing secrets: rotate, list, revoke.

use std::time::Duration;

use prost::Message;
use tonic::Status;

use super::message::{secret_message, signs};
use super::{find, key_of};
use crate::domain::id::{OrganizationId, SecretKey};
use crate::domain::invalid::InvalidField;
use crate::domain::secret::SecretRule;
use crate::domain::subscription::{SigningSecret, Subscription};
use crate::domain::timestamp::Timestamp;
use crate::grpc::delivery::required;
use crate::grpc::status::Object;
use crate::grpc::trail::Trail;
use crate::grpc::{Context, pb, request_id, status, time};
use crate::store::{Answer, NewSecret};

const OVERLAP_DEFAULT: Duration = Duration::from_hours(24);
const OVERLAP_MAX: Duration = Duration::from_hours(30 * 24);

pub(super) async fn rotate(
    context: &Context,
    organization: &OrganizationId,
    mut request: pb::RotateSigningSecretRequest,
    trail: &Trail,
) -> Result<pb::RotateSigningSecretResponse, Status> {
    let store = &context.store;
    let id = std::mem::take(&mut request.request_id);
    let record = request_id::record(&id, store.page_key(), "RotateSigningSecret", &request)?;
    let overlap = overlap(request.overlap)?;
    let subscription = find(context, organization, &request.subscription_id).await?;
    let object = Object::subscription(&request.subscription_id);
    let profiles = context.routing.profiles();
    let profile = profiles.get(&subscription.spec.profile);
    let rule = profile.and_then(|profile| profile.secret()).ok_or_else(|| {
        let why = "the subscription's profile cannot sign";
        status::precondition(object, "SIGNING_UNSUPPORTED", why)
    })?;
    let secret = choose(rule, request.signing_secret)?;
    let older = match overlap {
        Duration::ZERO => 0,
        _ => live(context, organization, &subscription).await?.len(),
    };
    let enabled = subscription.spec.signing_enabled;
    let signs = signs(profile.map(|profile| &**profile), enabled, older);
    let response = |secret: &SigningSecret| pb::RotateSigningSecretResponse {
        signing_secret: Some(secret_message(store.ids(), secret, signs)),
    };
    let new = NewSecret { key: SecretKey(context.lease.next_key()), secret, overlap };
    let mut entry = trail.entry(["signing_secrets"]);
    entry.object_ids.push(store.ids().secret(new.key));
    let respond = |secret: &SigningSecret| response(secret).encode_to_vec();
    let key = subscription.key;
    let answer = store.rotate_secret(organization, key, new, record, &entry, respond).await;
    let (mut response, secret) = match answer.map_err(|error| status::store(error, object))? {
        Answer::Now(secret) => {
            context.refresh_routing().await;
            (response(&secret), Some(secret))
        }
        Answer::Before { response, secret } => {
            let before = pb::RotateSigningSecretResponse::decode(&*response);
            let before = before.map_err(|error| status::internal(&error))?;
            trail.object(before.signing_secret.as_ref().map_or("", |one| one.id.as_str()));
            trail.unchanged(store).await.map_err(|error| status::store(error, object))?;
            (before, secret)
        }
    };
    if let (Some(message), Some(secret)) = (&mut response.signing_secret, secret) {
        message.secret = secret.secret.unwrap_or_default();
    }
    Ok(response)
}

pub(super) async fn list(
    context: &Context,
    organization: &OrganizationId,
    request: &pb::ListSigningSecretsRequest,
) -> Result<pb::ListSigningSecretsResponse, Status> {
    let subscription = find(context, organization, &request.subscription_id).await?;
    let profiles = context.routing.profiles();
    let profile = profiles.get(&subscription.spec.profile).map(|profile| &**profile);
    let enabled = subscription.spec.signing_enabled;
    let live = live(context, organization, &subscription).await?;
    let ids = context.store.ids();
    let message = |(older, secret)| secret_message(ids, secret, signs(profile, enabled, older));
    let signing_secrets = live.iter().enumerate().map(message).rev().collect();
    Ok(pb::ListSigningSecretsResponse { signing_secrets })
}

pub(super) async fn revoke(
    context: &Context,
    organization: &OrganizationId,
    request: &pb::RevokeSigningSecretRequest,
    trail: &Trail,
) -> Result<(), Status> {
    let id = &request.signing_secret_id;
    required("signing_secret_id", id)?;
    let key = key_of(context, &request.subscription_id)?;
    find(context, organization, &request.subscription_id).await?;
    let object = Object::signing_secret(id);
    let secret = context.store.ids().parse_secret(id);
    let secret = secret.ok_or_else(|| status::not_found(object))?;
    let entry = trail.entry(["signing_secrets"]);
    let revoked = context.store.revoke_secret(organization, key, secret, &entry).await;
    revoked.map_err(|error| status::store(error, object))?;
    context.refresh_routing().await;
    Ok(())
}

/// The caller's secret if it is one for this profile, or a new one.
pub(super) fn choose(rule: &SecretRule, given: String) -> Result<String, InvalidField> {
    if given.is_empty() {
        return Ok(rule.generate());
    }
    rule.check(&given)?;
    Ok(given)
}

/// A subscription's live secrets, oldest first.
pub(super) async fn live(
    context: &Context,
    organization: &OrganizationId,
    subscription: &Subscription,
) -> Result<Vec<SigningSecret>, Status> {
    let secrets = context.store.secrets(organization, subscription.key).await;
    let mut secrets = secrets.map_err(|error| {
        let id = context.store.ids().subscription(subscription.key);
        status::store(error, Object::subscription(&id))
    })?;
    let now = context.lease.now();
    secrets.retain(|secret| is_live(secret, now));
    Ok(secrets)
}

fn is_live(secret: &SigningSecret, now: Timestamp) -> bool {
    secret.expire_time.is_none_or(|end| now < end)
}

fn overlap(sent: Option<prost_types::Duration>) -> Result<Duration, InvalidField> {
    let Some(sent) = sent else { return Ok(OVERLAP_DEFAULT) };
    let overlap = time::duration("overlap", sent)?;
    if OVERLAP_MAX < overlap {
        return Err(InvalidField::new("overlap", "INVALID_OVERLAP", "from 0 to 30 days"));
    }
    Ok(overlap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_secrets_stay_a_day_unless_the_caller_says_otherwise() {
        let span = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        assert_eq!(overlap(None), Ok(Duration::from_hours(24)));
        assert_eq!(overlap(span(0, 0)), Ok(Duration::ZERO));
        assert_eq!(overlap(span(30 * 86_400, 0)), Ok(OVERLAP_MAX));
        assert_eq!(overlap(span(30 * 86_400, 1)).expect_err("longer").field, "overlap");
        assert_eq!(overlap(span(-1, 0)).expect_err("negative").field, "overlap");
    }

    #[test]
    fn a_callers_secret_is_kept_as_it_is_or_refused() {
        let rule = SecretRule::Text { generate_chars: 32, chars_min: 16, chars_max: 32 };
        let given = "a secret of 18 char".to_owned();
        assert_eq!(choose(&rule, given.clone()), Ok(given));
        let refused = choose(&rule, "short".to_owned()).expect_err("too short");
        assert_eq!(refused.field, "signing_secret");
        assert_eq!(choose(&rule, String::new()).expect("made").len(), 32);
    }
}
