//! Rows of `subscription`, `subscription_tls` and `signing_secret`.

use std::time::Duration;

use super::{account, map, map_text, optional_account, optional_time};
use crate::domain::id::{OrganizationId, SecretKey, SubscriptionKey};
use crate::domain::payload_mode::{PayloadMode, PayloadModeKind};
use crate::domain::receiver_tls::{ClientCertificate, PrivateKey, ReceiverTls};
use crate::domain::subscription::{
    SigningSecret, Subscription, SubscriptionSpec, SubscriptionState,
};
use crate::domain::timestamp::Timestamp;
use crate::keyring::{Column, DataKey, Place};
use crate::store::StoreError;
use crate::store::entity::{signing_secret, subscription, subscription_tls};
use crate::store::vault::{Form, Vault, seal_text};

/// A subscription, deleted or not. Its data key must have been looked for before.
pub(in crate::store) fn subscription(
    vault: &Vault,
    found: subscription::Model,
    tls: ReceiverTls,
) -> Result<Subscription, StoreError> {
    let number = |number: i32, name| u32::try_from(number).map_err(|_| StoreError::Corrupt(name));
    let waits: Vec<u64> =
        serde_json::from_str(&found.retry_waits).map_err(|_| StoreError::Corrupt("retry_waits"))?;
    let (key, organization) = (found.key, OrganizationId::stored(&found.organization_id));
    let form = Form { key_id: found.headers_key_id, version: found.headers_version };
    let place = |column| Place::keyed(column, &organization, [key]);
    let headers = vault.open_text(form, Column::SubscriptionHeaders, place, found.headers);
    let spec = SubscriptionSpec {
        account: optional_account(&found.account_id),
        name: found.name,
        url: found.url,
        event_patterns: serde_json::from_str(&found.event_patterns)
            .map_err(|_| StoreError::Corrupt("event_patterns"))?,
        profile: found.profile,
        signing_enabled: found.signing_enabled,
        headers: map(headers.as_deref().unwrap_or_default())?,
        attributes: map(&found.attributes)?,
        send_organization_code: found.send_organization_code,
        retry_waits: waits.into_iter().map(Duration::from_millis).collect(),
        attempt_timeout: Duration::from_millis(
            number(found.attempt_timeout_ms, "attempt_timeout_ms")?.into(),
        ),
        max_in_flight: number(found.max_in_flight, "max_in_flight")?,
        tls,
        payload_mode: payload_mode(found.payload_mode, &found.masked_pointers)?,
        omit_trace_context: found.omit_trace_context,
    };
    Ok(Subscription {
        key: SubscriptionKey(key),
        organization,
        spec,
        state: SubscriptionState::stored(found.state).ok_or(StoreError::Corrupt("state"))?,
        state_reason: found.state_reason,
        version: found.routing_version,
        create_time: Timestamp(found.create_time),
        update_time: Timestamp(found.update_time),
        headers_lost: headers.is_err(),
    })
}

/// A subscription's row; its headers sealed where there is a key. Lists are JSON; waits and
/// the time limit keep whole milliseconds.
pub(in crate::store) fn subscription_model(
    subscription: &Subscription,
    key: Option<&DataKey>,
) -> subscription::Model {
    let spec = &subscription.spec;
    let millis = |wait: &Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let waits: Vec<u64> = spec.retry_waits.iter().map(millis).collect();
    let (headers, form) = match key.filter(|_| !spec.headers.is_empty()) {
        Some(key) => {
            let keys = [subscription.key.0];
            let column = Column::SubscriptionHeaders;
            let place = Place::keyed(column, &subscription.organization, keys);
            (seal_text(key, &place, &map_text(&spec.headers)), Form::of(key))
        }
        None => (map_text(&spec.headers), Form::PLAIN),
    };
    subscription::Model {
        key: subscription.key.0,
        organization_id: subscription.organization.as_str().to_owned(),
        account_id: account(spec.account.as_ref()).to_owned(),
        name: spec.name.clone(),
        url: spec.url.clone(),
        event_patterns: serde_json::to_string(&spec.event_patterns).expect("strings are JSON"),
        profile: spec.profile.clone(),
        signing_enabled: spec.signing_enabled,
        headers,
        headers_key_id: form.key_id,
        headers_version: form.version,
        attributes: map_text(&spec.attributes),
        send_organization_code: spec.send_organization_code,
        retry_waits: serde_json::to_string(&waits).expect("numbers are JSON"),
        attempt_timeout_ms: i32::try_from(spec.attempt_timeout.as_millis()).unwrap_or(i32::MAX),
        max_in_flight: i32::try_from(spec.max_in_flight).unwrap_or(i32::MAX),
        state: subscription.state as i16,
        state_reason: subscription.state_reason.clone(),
        routing_version: subscription.version,
        create_time: subscription.create_time.0,
        update_time: subscription.update_time.0,
        deleted: false,
        payload_mode: spec.payload_mode.kind() as i16,
        masked_pointers: pointers_text(&spec.payload_mode),
        omit_trace_context: spec.omit_trace_context,
    }
}

/// One that cannot be read is an error: nothing is sent, rather than too much.
fn payload_mode(kind: i16, pointers: &str) -> Result<PayloadMode, StoreError> {
    let kind = PayloadModeKind::stored(kind).ok_or(StoreError::Corrupt("payload_mode"))?;
    let pointers: Vec<String> = match pointers {
        "" => Vec::new(),
        text => serde_json::from_str(text).map_err(|_| StoreError::Corrupt("masked_pointers"))?,
    };
    let mode = PayloadMode::check(kind, &pointers);
    mode.map_err(|_| StoreError::Corrupt("masked_pointers"))
}

fn pointers_text(mode: &PayloadMode) -> String {
    match mode {
        PayloadMode::Full | PayloadMode::IdOnly => String::new(),
        PayloadMode::Masked(_) => {
            serde_json::to_string(&mode.pointers()).expect("strings are JSON")
        }
    }
}

/// Certificates of a subscription of the organization. A private key that cannot be
/// decrypted is there and cannot be read, so that this subscription is not sent to and the
/// others are. Its data key must have been looked for before.
pub(in crate::store) fn tls(
    vault: &Vault,
    organization: &OrganizationId,
    found: subscription_tls::Model,
) -> ReceiverTls {
    let (chain, authorities) = (found.certificate, found.authorities);
    if chain.is_empty() {
        return ReceiverTls { client: None, authorities };
    }
    let form = Form { key_id: found.secret_key_id, version: found.secret_version };
    let subscription = SubscriptionKey(found.subscription_key);
    let place = |_| tls_place(organization, subscription);
    let pem = vault.open(form, Column::SubscriptionTlsKey, place, found.secret).ok();
    let pem = pem.and_then(|bytes| String::from_utf8(bytes).ok());
    let key = pem.map_or_else(PrivateKey::unreadable, PrivateKey::stored);
    ReceiverTls { client: Some(ClientCertificate { chain, key }), authorities }
}

/// The place of a private key.
pub(in crate::store) fn tls_place(
    organization: &OrganizationId,
    subscription: SubscriptionKey,
) -> Place {
    Place::keyed(Column::SubscriptionTlsKey, organization, [subscription.0])
}

/// A signing secret of the organization; without its value where that cannot be decrypted.
pub(in crate::store) fn secret(
    vault: &Vault,
    organization: &OrganizationId,
    found: signing_secret::Model,
) -> Result<SigningSecret, StoreError> {
    let form = Form { key_id: found.secret_key_id, version: found.secret_version };
    let key = SecretKey(found.key);
    let place = |_| secret_place(organization, key);
    let secret = vault.open(form, Column::SigningSecret, place, found.secret).ok();
    let secret = secret.map(String::from_utf8).transpose();
    Ok(SigningSecret {
        key,
        secret: secret.map_err(|_| StoreError::Corrupt("secret"))?,
        create_time: Timestamp(found.create_time),
        expire_time: optional_time(found.expire_time),
    })
}

/// The place of a secret.
pub(in crate::store) fn secret_place(organization: &OrganizationId, key: SecretKey) -> Place {
    Place::keyed(Column::SigningSecret, organization, [key.0])
}
