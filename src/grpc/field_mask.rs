//! Which fields an update writes (AIP-134, AIP-161).

use super::pb;
use crate::domain::invalid::InvalidField;
use crate::domain::subscription::SubscriptionSpec;

/// A field of a subscription that an update may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    Url,
    EventPatterns,
    Profile,
    SigningEnabled,
    Headers,
    Attributes,
    SendOrganizationCode,
    RetryPolicy,
    AttemptTimeout,
    MaxInFlight,
    Tls,
    PayloadMode,
    MaskedPointers,
    OmitTraceContext,
}

const WRITABLE: [(&str, Field); 15] = [
    ("name", Field::Name),
    ("url", Field::Url),
    ("event_patterns", Field::EventPatterns),
    ("profile", Field::Profile),
    ("signing_enabled", Field::SigningEnabled),
    ("headers", Field::Headers),
    ("attributes", Field::Attributes),
    ("send_organization_code", Field::SendOrganizationCode),
    ("retry_policy", Field::RetryPolicy),
    ("attempt_timeout", Field::AttemptTimeout),
    ("max_in_flight", Field::MaxInFlight),
    ("tls", Field::Tls),
    ("payload_mode", Field::PayloadMode),
    ("masked_pointers", Field::MaskedPointers),
    ("omit_trace_context", Field::OmitTraceContext),
];

const OUTPUT_ONLY: [&str; 9] = [
    "id",
    "organization_id",
    "state",
    "state_reason",
    "create_time",
    "update_time",
    "etag",
    "circuit",
    "ownership",
];

impl Field {
    /// As the API names it.
    pub(super) fn name(self) -> &'static str {
        WRITABLE.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| *name)
    }

    /// Whether it is another one in `new`.
    pub(super) fn differs(self, old: &SubscriptionSpec, new: &SubscriptionSpec) -> bool {
        match self {
            Field::Name => old.name != new.name,
            Field::Url => old.url != new.url,
            Field::EventPatterns => old.event_patterns != new.event_patterns,
            Field::Profile => old.profile != new.profile,
            Field::SigningEnabled => old.signing_enabled != new.signing_enabled,
            Field::Headers => old.headers != new.headers,
            Field::Attributes => old.attributes != new.attributes,
            Field::SendOrganizationCode => old.send_organization_code != new.send_organization_code,
            Field::RetryPolicy => old.retry_waits != new.retry_waits,
            Field::AttemptTimeout => old.attempt_timeout != new.attempt_timeout,
            Field::MaxInFlight => old.max_in_flight != new.max_in_flight,
            Field::Tls => old.tls != new.tls,
            Field::PayloadMode => old.payload_mode.kind() != new.payload_mode.kind(),
            Field::MaskedPointers => old.payload_mode.pointers() != new.payload_mode.pointers(),
            Field::OmitTraceContext => old.omit_trace_context != new.omit_trace_context,
        }
    }
}

/// The fields that an update writes. Without a mask, or with an empty one, those that
/// are set in `sent`; `*` means every writable one.
///
/// # Errors
///
/// For `update_mask` when a path is unknown, output only or immutable.
pub(super) fn fields(
    mask: Option<&prost_types::FieldMask>,
    sent: &pb::Subscription,
) -> Result<Vec<Field>, InvalidField> {
    let every = || WRITABLE.iter().map(|(_, field)| *field);
    match mask.map_or(&[][..], |mask| &mask.paths) {
        [] => Ok(every().filter(|field| is_set(*field, sent)).collect()),
        [all] if all == "*" => Ok(every().collect()),
        paths => paths.iter().map(|path| field(path)).collect(),
    }
}

fn field(path: &str) -> Result<Field, InvalidField> {
    let invalid = |reason, why| Err(InvalidField::new("update_mask", reason, why));
    // A policy is its waits.
    let path = if path == "retry_policy.waits" { "retry_policy" } else { path };
    if let Some((_, field)) = WRITABLE.iter().find(|(name, _)| *name == path) {
        return Ok(*field);
    }
    if let Some(name) = OUTPUT_ONLY.iter().find(|name| **name == path) {
        let why = format!("{name} is output only");
        return invalid("OUTPUT_ONLY_PATH", why);
    }
    match path {
        "account_id" => invalid("IMMUTABLE_PATH", "account_id is immutable".to_owned()),
        "*" => invalid("UNKNOWN_PATH", "\"*\" stands alone".to_owned()),
        _ => invalid("UNKNOWN_PATH", "a path that is no field of Subscription".to_owned()),
    }
}

fn is_set(field: Field, sent: &pb::Subscription) -> bool {
    match field {
        Field::Name => !sent.name.is_empty(),
        Field::Url => !sent.url.is_empty(),
        Field::EventPatterns => !sent.event_patterns.is_empty(),
        Field::Profile => !sent.profile.is_empty(),
        Field::SigningEnabled => sent.signing_enabled.is_some(),
        Field::Headers => !sent.headers.is_empty(),
        Field::Attributes => !sent.attributes.is_empty(),
        Field::SendOrganizationCode => sent.send_organization_code,
        Field::RetryPolicy => sent.retry_policy.is_some(),
        Field::AttemptTimeout => sent.attempt_timeout.is_some(),
        Field::MaxInFlight => sent.max_in_flight != 0,
        Field::Tls => sent.tls.is_some(),
        Field::PayloadMode => sent.payload_mode != 0,
        Field::MaskedPointers => !sent.masked_pointers.is_empty(),
        Field::OmitTraceContext => sent.omit_trace_context,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn mask(paths: &[&str]) -> prost_types::FieldMask {
        prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
    }

    fn of(paths: &[&str]) -> Result<Vec<Field>, &'static str> {
        let read = fields(Some(&mask(paths)), &pb::Subscription::default());
        read.map_err(|invalid| {
            assert_eq!(invalid.field, "update_mask");
            invalid.reason
        })
    }

    #[test]
    fn without_a_mask_the_set_writable_fields_are_written() {
        let sent = pb::Subscription {
            id: "sub_1".to_owned(),
            account_id: "clinic-7".to_owned(),
            url: "https://receiver.example/".to_owned(),
            signing_enabled: Some(false),
            state: pb::subscription::State::Paused.into(),
            retry_policy: Some(pb::RetryPolicy::default()),
            etag: "\"4\"".to_owned(),
            ..pb::Subscription::default()
        };
        let expected = Ok(vec![Field::Url, Field::SigningEnabled, Field::RetryPolicy]);
        assert_eq!(fields(None, &sent), expected);
        assert_eq!(fields(Some(&mask(&[])), &sent), expected);
        assert_eq!(fields(None, &pb::Subscription::default()), Ok(vec![]));
    }

    #[test]
    fn a_named_field_is_written_even_when_it_is_empty() {
        assert_eq!(of(&["headers", "name"]), Ok(vec![Field::Headers, Field::Name]));
        assert_eq!(of(&["retry_policy.waits"]), Ok(vec![Field::RetryPolicy]));
    }

    #[test]
    fn a_star_alone_means_every_writable_field() {
        assert_eq!(of(&["*"]).map(|fields| fields.len()), Ok(WRITABLE.len()));
        assert_eq!(of(&["*", "name"]), Err("UNKNOWN_PATH"));
    }

    #[test]
    fn paths_that_cannot_be_written_are_refused() {
        for path in OUTPUT_ONLY {
            assert_eq!(of(&["name", path]), Err("OUTPUT_ONLY_PATH"), "{path}");
        }
        assert_eq!(of(&["account_id"]), Err("IMMUTABLE_PATH"));
        for path in ["", "eventPatterns", "headers.X-Team", "url.host", "retry_policy.max"] {
            assert_eq!(of(&[path]), Err("UNKNOWN_PATH"), "{path}");
        }
    }

    #[test]
    fn every_field_of_the_message_is_writable_output_only_or_immutable() {
        let files = prost_types::FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).expect("built");
        let mut messages = files.file.iter().flat_map(|file| &file.message_type);
        let message = messages.find(|message| message.name() == "Subscription").expect("there");
        for field in &message.field {
            let name = field.name();
            let known = WRITABLE.iter().any(|(writable, _)| *writable == name)
                || OUTPUT_ONLY.contains(&name)
                || name == "account_id";
            assert!(known, "{name}");
        }
        assert_eq!(message.field.len(), WRITABLE.len() + OUTPUT_ONLY.len() + 1);
    }
}
