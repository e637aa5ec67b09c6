//! Where a sealed value stands: table, column, organization, row.

use crate::domain::id::OrganizationId;

/// A column whose values are sealed. Its name is part of every value's key: it stays as it
/// is, whatever becomes of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Response bodies of failed attempts.
    AttemptResponseBody,
    /// Attributes and subject of events.
    EventDetails,
    /// Payloads.
    EventPayload,
    /// Answers to requests with a request id.
    RequestLogResponse,
    /// Signing secrets.
    SigningSecret,
    /// Custom headers, credentials among them.
    SubscriptionHeaders,
    /// Private keys of client certificates.
    SubscriptionTlsKey,
}

impl Column {
    /// Every column.
    pub const ALL: [Column; 7] = [
        Column::AttemptResponseBody,
        Column::EventDetails,
        Column::EventPayload,
        Column::RequestLogResponse,
        Column::SigningSecret,
        Column::SubscriptionHeaders,
        Column::SubscriptionTlsKey,
    ];

    /// `table.column`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Column::AttemptResponseBody => "attempt.response_body",
            Column::EventDetails => "event.details",
            Column::EventPayload => "event.payload",
            Column::RequestLogResponse => "request_log.response",
            Column::SigningSecret => "signing_secret.secret",
            Column::SubscriptionHeaders => "subscription.headers",
            Column::SubscriptionTlsKey => "subscription_tls.secret",
        }
    }
}

/// One value's place. What is sealed for one place does not open at another.
#[derive(Debug)]
pub struct Place {
    /// Column, organization and row, so written that no two places write the same.
    bytes: Vec<u8>,
}

impl Place {
    /// In the row that these numbers are the primary key of.
    #[must_use]
    pub fn keyed<const N: usize>(
        column: Column,
        organization: &OrganizationId,
        keys: [i64; N],
    ) -> Place {
        let keys = keys.map(i64::to_be_bytes);
        Place { bytes: within(column.name(), organization, keys.as_flattened()) }
    }

    /// In the row of the organization that has this name.
    #[must_use]
    pub fn named(column: Column, organization: &OrganizationId, name: &str) -> Place {
        Place { bytes: within(column.name(), organization, name.as_bytes()) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// `what`, a zero byte, the organization behind its length, and the rest.
pub(super) fn within(what: &str, organization: &OrganizationId, rest: &[u8]) -> Vec<u8> {
    let organization = organization.as_str().as_bytes();
    let mut bytes = Vec::with_capacity(what.len() + 2 + organization.len() + rest.len());
    bytes.extend_from_slice(what.as_bytes());
    bytes.push(0);
    // An organization's id has at most 64 bytes.
    bytes.push(u8::try_from(organization.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(organization);
    bytes.extend_from_slice(rest);
    bytes
}
