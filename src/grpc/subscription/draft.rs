//! A subscription on its way in: what its owner sent, put over what is stored, and
//! checked as a whole.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use super::profile;
use crate::domain::id::{AccountId, OrganizationId};
use crate::domain::invalid::InvalidField;
use crate::domain::payload_mode::PayloadModeKind;
use crate::domain::profile::{DEFAULT_PROFILE, Profile};
use crate::domain::receiver_tls::{SentKey, TlsInput};
use crate::domain::subscription::SubscriptionSpec;
use crate::domain::subscription_rules::SubscriptionInput;
use crate::grpc::field_mask::Field;
use crate::grpc::{Context, pb, status, time};

/// What violations of these rules are seen from.
const PARENT: &str = "subscription";

/// A subscription that need not keep any rule yet.
pub(super) struct Draft {
    /// Empty: the default one.
    profile: String,
    input: SubscriptionInput,
}

/// A subscription that keeps every rule, and its profile.
pub(super) struct Checked {
    pub(super) spec: SubscriptionSpec,
    pub(super) profile: Arc<Profile>,
}

impl Draft {
    /// All that was sent.
    pub(super) fn sent(sent: pb::Subscription) -> Result<Draft, Status> {
        let input = SubscriptionInput {
            account_id: sent.account_id,
            name: sent.name,
            url: sent.url,
            event_patterns: sent.event_patterns,
            signing_enabled: sent.signing_enabled,
            headers: sent.headers,
            attributes: sent.attributes,
            send_organization_code: sent.send_organization_code,
            retry_waits: waits(sent.retry_policy)?,
            attempt_timeout: attempt_timeout(sent.attempt_timeout)?,
            max_in_flight: sent.max_in_flight,
            tls: tls(sent.tls),
            payload_mode: payload_mode(sent.payload_mode)?,
            masked_pointers: sent.masked_pointers,
            omit_trace_context: sent.omit_trace_context,
        };
        Ok(Draft { profile: sent.profile, input })
    }

    /// What is stored.
    pub(super) fn stored(spec: SubscriptionSpec) -> Draft {
        let input = SubscriptionInput {
            account_id: spec.account.as_ref().map_or("", AccountId::as_str).to_owned(),
            name: spec.name,
            url: spec.url,
            event_patterns: spec.event_patterns,
            signing_enabled: Some(spec.signing_enabled),
            headers: spec.headers,
            attributes: spec.attributes,
            send_organization_code: spec.send_organization_code,
            retry_waits: Some(spec.retry_waits),
            attempt_timeout: Some(spec.attempt_timeout),
            max_in_flight: spec.max_in_flight,
            tls: spec.tls.to_input(),
            payload_mode: spec.payload_mode.kind(),
            masked_pointers: spec.payload_mode.pointers(),
            omit_trace_context: spec.omit_trace_context,
        };
        Draft { profile: spec.profile, input }
    }

    /// Puts these fields of `sent` over what is here. A field that is empty there gets
    /// its default.
    pub(super) fn write(
        &mut self,
        fields: &[Field],
        sent: &pb::Subscription,
    ) -> Result<(), Status> {
        let input = &mut self.input;
        for field in fields {
            match field {
                Field::Name => input.name.clone_from(&sent.name),
                Field::Url => input.url.clone_from(&sent.url),
                Field::EventPatterns => input.event_patterns.clone_from(&sent.event_patterns),
                Field::Profile => self.profile.clone_from(&sent.profile),
                Field::SigningEnabled => input.signing_enabled = sent.signing_enabled,
                Field::Headers => input.headers.clone_from(&sent.headers),
                Field::Attributes => input.attributes.clone_from(&sent.attributes),
                Field::SendOrganizationCode => {
                    input.send_organization_code = sent.send_organization_code;
                }
                Field::RetryPolicy => input.retry_waits = waits(sent.retry_policy.clone())?,
                Field::AttemptTimeout => {
                    input.attempt_timeout = attempt_timeout(sent.attempt_timeout)?;
                }
                Field::MaxInFlight => input.max_in_flight = sent.max_in_flight,
                Field::Tls => input.tls = tls(sent.tls.clone()),
                Field::PayloadMode => input.payload_mode = payload_mode(sent.payload_mode)?,
                Field::MaskedPointers => input.masked_pointers.clone_from(&sent.masked_pointers),
                Field::OmitTraceContext => input.omit_trace_context = sent.omit_trace_context,
            }
        }
        Ok(())
    }

    /// Checks every rule. `stored` is what hidden values stand for.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` naming fields of `subscription`.
    pub(super) fn check(
        self,
        context: &Context,
        organization: &OrganizationId,
        stored: Option<&SubscriptionSpec>,
    ) -> Result<Checked, Status> {
        let name = if self.profile.is_empty() { DEFAULT_PROFILE } else { &self.profile };
        let unknown = || {
            let why = "the name of a profile of this server; see ListProfiles";
            InvalidField::new("profile", "UNKNOWN_PROFILE", why).within(PARENT)
        };
        let (profiles, policy) = (context.routing.profiles(), context.egress.policy());
        let profile = Arc::clone(profiles.get(name).ok_or_else(unknown)?);
        let rules = profile::rules(&profile, &profiles);
        let addresses = policy.rules(Some(organization));
        let spec = self.input.check(&rules, addresses, stored);
        let spec = spec.map_err(|invalid| invalid.within(PARENT))?;
        let wrong = profile.check_spec(&spec);
        if !wrong.is_empty() {
            let wrong = wrong.into_iter().map(|invalid| invalid.within(PARENT));
            return Err(status::invalid(wrong.collect()));
        }
        Ok(Checked { spec, profile })
    }
}

/// The subscription of a request, if it names no other organization.
///
/// # Errors
///
/// `INVALID_ARGUMENT` for `subscription` or its organization.
pub(super) fn of_request(
    sent: Option<pb::Subscription>,
    organization: &OrganizationId,
) -> Result<pb::Subscription, InvalidField> {
    let sent = sent.ok_or_else(|| InvalidField::new(PARENT, "REQUIRED", "required"))?;
    let named = sent.organization_id.as_str();
    if !named.is_empty() && named != organization.as_str() {
        let why = "left out, or that of the request";
        let invalid = InvalidField::new("organization_id", "ORGANIZATION_MISMATCH", why);
        return Err(invalid.within(PARENT));
    }
    Ok(sent)
}

fn tls(sent: Option<pb::ReceiverTls>) -> TlsInput {
    let sent = sent.unwrap_or_default();
    TlsInput {
        client_certificate: sent.client_certificate,
        client_private_key: SentKey(sent.client_private_key),
        certificate_authorities: sent.certificate_authorities,
    }
}

fn payload_mode(sent: i32) -> Result<PayloadModeKind, InvalidField> {
    match pb::subscription::PayloadMode::try_from(sent) {
        Ok(pb::subscription::PayloadMode::Unspecified | pb::subscription::PayloadMode::Full) => {
            Ok(PayloadModeKind::Full)
        }
        Ok(pb::subscription::PayloadMode::IdOnly) => Ok(PayloadModeKind::IdOnly),
        Ok(pb::subscription::PayloadMode::Masked) => Ok(PayloadModeKind::Masked),
        // Read as anything else it might show what its owner wants hidden.
        Err(_) => {
            let why = "a payload mode of this version, or nothing";
            let invalid = InvalidField::new("payload_mode", "INVALID_PAYLOAD_MODE", why);
            Err(invalid.within(PARENT))
        }
    }
}

fn waits(policy: Option<pb::RetryPolicy>) -> Result<Option<Vec<Duration>>, InvalidField> {
    let Some(policy) = policy else { return Ok(None) };
    let read = |(place, wait)| time::millis(&format!("retry_policy.waits[{place}]"), wait);
    let waits = policy.waits.into_iter().enumerate().map(read).collect::<Result<_, _>>();
    waits.map(Some).map_err(|invalid| invalid.within(PARENT))
}

fn attempt_timeout(
    timeout: Option<prost_types::Duration>,
) -> Result<Option<Duration>, InvalidField> {
    let read = timeout.map(|timeout| time::millis("attempt_timeout", timeout)).transpose();
    read.map_err(|invalid| invalid.within(PARENT))
}
