//! Subscriptions and signing secrets as callers see them: headers that carry
//! credentials hidden, secrets only where a method gives them out.

use std::time::Instant;

use crate::domain::headers::hidden;
use crate::domain::id::{AccountId, IdCodec};
use crate::domain::ownership::{Fingerprint, OwnershipRecord, OwnershipState};
use crate::domain::page::etag;
use crate::domain::payload_mode::PayloadModeKind;
use crate::domain::profile::Profile;
use crate::domain::receiver_tls::ReceiverTls;
use crate::domain::subscription::{
    SigningSecret, Subscription, SubscriptionSpec, SubscriptionState,
};
use crate::grpc::{Context, pb, time};
use crate::permits::{CircuitState, Circuits, Endpoint};

/// A subscription as stored, how this replica gets on with its receiver, and whether that
/// wants events.
pub(super) fn current_message(context: &Context, subscription: &Subscription) -> pb::Subscription {
    let circuit = |circuits| circuit_message(context, circuits, subscription);
    let ownership = |asked| ownership_message(known_of(context, subscription, asked).as_ref());
    pb::Subscription {
        circuit: context.circuits.as_ref().map(circuit),
        ownership: asks(context, subscription).map(ownership),
        ..subscription_message(context.store.ids(), subscription)
    }
}

/// Whether the endpoint has yet to consent; `None` where it need not.
pub(super) fn is_unproven(context: &Context, subscription: &Subscription) -> Option<bool> {
    let asked = asks(context, subscription)?;
    let known = known_of(context, subscription, asked);
    Some(known.is_none_or(|known| known.state != OwnershipState::Proven))
}

/// What the endpoint must consent to, with the URL that is stored now.
fn asks(context: &Context, subscription: &Subscription) -> Option<Fingerprint> {
    let profiles = context.routing.profiles();
    let profile = profiles.get(&subscription.spec.profile)?;
    Some(profile.ownership()?.fingerprint(&subscription.spec.url))
}

/// What this replica knows of that, from a moment ago.
fn known_of(
    context: &Context,
    subscription: &Subscription,
    asked: Fingerprint,
) -> Option<OwnershipRecord> {
    let route = context.routing.route(subscription.key)?;
    route.known_of(asked).cloned()
}

fn ownership_message(known: Option<&OwnershipRecord>) -> pb::Ownership {
    let Some(known) = known else {
        let state = pb::ownership::State::Pending.into();
        return pb::Ownership { state, ..pb::Ownership::default() };
    };
    let (state, next) = match known.state {
        OwnershipState::Pending => (pb::ownership::State::Pending, Some(known.due_time)),
        OwnershipState::Proven => (pb::ownership::State::Proven, None),
        OwnershipState::Failed => (pb::ownership::State::Failed, None),
    };
    pb::Ownership {
        state: state.into(),
        reason: known.reason.clone(),
        check_time: known.check_time.map(time::to_timestamp),
        // 0: at once.
        next_check_time: next.filter(|next| 0 < next.0).map(time::to_timestamp),
        failed_checks: known.failures,
    }
}

fn circuit_message(
    context: &Context,
    circuits: &Circuits,
    subscription: &Subscription,
) -> pb::Circuit {
    let endpoint = Endpoint { subscription: subscription.key, version: subscription.version };
    let circuit = circuits.circuit(endpoint);
    // Inside, spans are measured by the monotonic clock; callers see the database's.
    let (tick, now) = (Instant::now(), context.lease.now());
    let state = match circuit.state {
        CircuitState::Closed => pb::circuit::State::Closed,
        CircuitState::Open(_) => pb::circuit::State::Open,
        CircuitState::HalfOpen => pb::circuit::State::HalfOpen,
    };
    let last_failure = circuit.last_failure.map(|at| now.minus(tick.saturating_duration_since(at)));
    pb::Circuit {
        state: state.into(),
        probe_time: circuit.opens_in(tick).map(|wait| time::to_timestamp(now.plus(wait))),
        consecutive_failures: circuit.failures,
        last_failure_time: last_failure.map(time::to_timestamp),
    }
}

/// A subscription as stored.
pub(super) fn subscription_message(ids: &IdCodec, subscription: &Subscription) -> pb::Subscription {
    pb::Subscription {
        id: ids.subscription(subscription.key),
        organization_id: subscription.organization.as_str().to_owned(),
        state: state_message(subscription.state).into(),
        state_reason: subscription.state_reason.clone(),
        create_time: Some(time::to_timestamp(subscription.create_time)),
        update_time: Some(time::to_timestamp(subscription.update_time)),
        etag: etag(ids, subscription.version),
        ..spec_message(&subscription.spec)
    }
}

/// What its owner decided; the rest is empty.
pub(super) fn spec_message(spec: &SubscriptionSpec) -> pb::Subscription {
    let waits = spec.retry_waits.iter().map(|wait| time::to_duration(*wait)).collect();
    pb::Subscription {
        account_id: spec.account.as_ref().map_or("", AccountId::as_str).to_owned(),
        name: spec.name.clone(),
        url: spec.url.clone(),
        event_patterns: spec.event_patterns.clone(),
        profile: spec.profile.clone(),
        signing_enabled: Some(spec.signing_enabled),
        headers: hidden(&spec.headers),
        attributes: spec.attributes.clone(),
        send_organization_code: spec.send_organization_code,
        retry_policy: Some(pb::RetryPolicy { waits }),
        attempt_timeout: Some(time::to_duration(spec.attempt_timeout)),
        max_in_flight: spec.max_in_flight,
        tls: tls_message(&spec.tls),
        payload_mode: payload_mode_message(spec.payload_mode.kind()).into(),
        masked_pointers: spec.payload_mode.pointers(),
        omit_trace_context: spec.omit_trace_context,
        ..pb::Subscription::default()
    }
}

/// What is said of TLS, the private key hidden.
fn tls_message(tls: &ReceiverTls) -> Option<pb::ReceiverTls> {
    let shown = tls.to_input();
    (!tls.is_default()).then_some(pb::ReceiverTls {
        client_certificate: shown.client_certificate,
        client_private_key: shown.client_private_key.0,
        certificate_authorities: shown.certificate_authorities,
    })
}

fn payload_mode_message(kind: PayloadModeKind) -> pb::subscription::PayloadMode {
    match kind {
        PayloadModeKind::Full => pb::subscription::PayloadMode::Full,
        PayloadModeKind::IdOnly => pb::subscription::PayloadMode::IdOnly,
        PayloadModeKind::Masked => pb::subscription::PayloadMode::Masked,
    }
}

pub(super) fn state_message(state: SubscriptionState) -> pb::subscription::State {
    match state {
        SubscriptionState::Active => pb::subscription::State::Active,
        SubscriptionState::Paused => pb::subscription::State::Paused,
        SubscriptionState::Inactive => pb::subscription::State::Inactive,
        SubscriptionState::Disabled => pb::subscription::State::Disabled,
    }
}

/// A secret by its id and times, without the secret.
pub(super) fn secret_message(
    ids: &IdCodec,
    secret: &SigningSecret,
    signs: bool,
) -> pb::SigningSecret {
    pb::SigningSecret {
        id: ids.secret(secret.key),
        secret: String::new(),
        create_time: Some(time::to_timestamp(secret.create_time)),
        expire_time: secret.expire_time.map(time::to_timestamp),
        signs,
    }
}

/// Whether a live secret signs requests: `older` live ones come before it. Profiles
/// with one signature sign with the oldest (decision 27).
pub(super) fn signs(profile: Option<&Profile>, signing_enabled: bool, older: usize) -> bool {
    let profile = profile.filter(|profile| signing_enabled && profile.signature().is_some());
    profile.is_some_and(|profile| older == 0 || profile.signs_with_every_secret())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::profile::Profiles;
    use crate::domain::timestamp::Timestamp;

    #[test]
    fn an_endpoint_is_pending_until_more_is_known_of_it() {
        let (none, time) = (ownership_message(None), Timestamp(1_000_000));
        assert_eq!(none.state(), pb::ownership::State::Pending);
        let record = |state| OwnershipRecord {
            asked: Fingerprint([7; 32]),
            state,
            failures: 2,
            reason: "why".to_owned(),
            check_time: Some(time),
            due_time: time,
        };
        for (state, shown, next) in [
            (OwnershipState::Pending, pb::ownership::State::Pending, Some(1)),
            (OwnershipState::Proven, pb::ownership::State::Proven, None),
            (OwnershipState::Failed, pb::ownership::State::Failed, None),
        ] {
            let message = ownership_message(Some(&record(state)));
            assert_eq!(message.state(), shown);
            assert_eq!(message.next_check_time.map(|time| time.seconds), next, "{state:?}");
            assert_eq!(message.check_time.map(|time| time.seconds), Some(1));
            assert_eq!((message.reason.as_str(), message.failed_checks), ("why", 2));
        }
        let at_once = OwnershipRecord { due_time: Timestamp(0), ..record(OwnershipState::Pending) };
        assert_eq!(ownership_message(Some(&at_once)).next_check_time, None);
    }

    #[test]
    fn the_oldest_secret_signs_alone_unless_the_profile_sends_several_signatures() {
        let profiles = Profiles::built_in();
        let signs = |name, enabled| {
            let profile = profiles.get(name).map(|profile| &**profile);
            [0, 1, 2].map(|older| signs(profile, enabled, older))
        };
        assert_eq!(signs("standard", true), [true, true, true]);
        assert_eq!(signs("meetinglawyers", true), [true, false, false]);
        assert_eq!(signs("standard", false), [false; 3]);
        assert_eq!(signs("gone", true), [false; 3]);
    }
}
