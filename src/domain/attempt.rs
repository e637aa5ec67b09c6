//! One HTTP request of a delivery, and what came of it.

use std::time::Duration;

use bytes::Bytes;

use super::timestamp::Timestamp;

/// Most bytes of a response body that are kept, for failures only.
pub const RESPONSE_BODY_BYTES_MAX: usize = 4096;

/// What the receiver did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Responded {
        /// 100 to 999.
        status: u16,
        /// Time it asked us to wait (RFC 9110, 10.2.3), if it said so intelligibly.
        retry_after: Option<Duration>,
        /// The start of the body, at most [`RESPONSE_BODY_BYTES_MAX`] bytes.
        body: Bytes,
    },
    /// It did not, or could not be asked.
    NoResponse(Failure),
    /// Nobody was asked: our own way out does not work, which is no fault of the
    /// receiver's and spends no retry.
    NotAsked {
        /// How long to wait before the next try.
        wait: Duration,
    },
}

/// Why there was no answer. Closed: a metric label and a column value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No address for the name.
    Dns,
    /// No connection.
    Connect,
    /// No TLS session: the certificate or the handshake was refused.
    Tls,
    /// The attempt's deadline passed.
    Timeout,
    /// The connection broke, or the answer was not HTTP within our limits.
    Protocol,
    /// The address is one that may not be called.
    BlockedAddress,
}

/// Whose fault it is that a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The receiver's, or of something on the way to it.
    Receiver,
    /// Of this machine or its name servers: it says nothing of the receiver.
    Ours,
}

/// An attempt as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// How it ended.
    pub result: AttemptResult,
    /// Status of the answer, if there was one.
    pub http_status: Option<u16>,
    /// For people; never a payload, a secret or an address. May be empty.
    pub error: String,
    /// The start of the answer to a failed attempt; empty after a success.
    pub response_body: Bytes,
    /// When it began.
    pub start_time: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// W3C trace id of the attempt's span; all zero when there was none.
    pub trace_id: [u8; 16],
    /// Whose fault it is that it failed; of the receiver, if it succeeded.
    pub fault: Fault,
}

/// Phases of one request; `None` for those it did not reach or did not need.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Resolving the name.
    pub dns: Option<Duration>,
    /// The TCP connection.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// From handing the request to the connection to the head of the answer.
    pub first_byte: Option<Duration>,
    /// From there to the end of the answer, or of what is read of it.
    pub body: Option<Duration>,
}

/// How an attempt ended. The numbers are those of the column and of the API's
/// `DeliveryAttempt.Outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum AttemptResult {
    /// A status that the profile counts as success.
    Succeeded = 1,
    /// Any other status.
    HttpStatus = 2,
    /// No address for the name.
    DnsError = 3,
    /// No connection.
    ConnectError = 4,
    /// No TLS session.
    TlsError = 5,
    /// Too slow.
    Timeout = 6,
    /// The connection broke, or the answer was not HTTP.
    ProtocolError = 7,
    /// The address is one that may not be called.
    BlockedAddress = 8,
    /// Nothing was sent, by our own fault or the payload's; spends no retry.
    NotSent = 9,
}

impl AttemptResult {
    /// Every result, in the order of the numbers.
    pub const ALL: [AttemptResult; 9] = [
        AttemptResult::Succeeded,
        AttemptResult::HttpStatus,
        AttemptResult::DnsError,
        AttemptResult::ConnectError,
        AttemptResult::TlsError,
        AttemptResult::Timeout,
        AttemptResult::ProtocolError,
        AttemptResult::BlockedAddress,
        AttemptResult::NotSent,
    ];

    /// The result stored as `number`.
    #[must_use]
    pub fn stored(number: i16) -> Option<AttemptResult> {
        AttemptResult::ALL.into_iter().find(|result| *result as i16 == number)
    }

    /// Its name in metrics and traces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AttemptResult::Succeeded => "succeeded",
            AttemptResult::HttpStatus => "http_status",
            AttemptResult::DnsError => "dns_error",
            AttemptResult::ConnectError => "connect_error",
            AttemptResult::TlsError => "tls_error",
            AttemptResult::Timeout => "timeout",
            AttemptResult::ProtocolError => "protocol_error",
            AttemptResult::BlockedAddress => "blocked_address",
            AttemptResult::NotSent => "not_sent",
        }
    }
}

impl From<Failure> for AttemptResult {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Dns => AttemptResult::DnsError,
            Failure::Connect => AttemptResult::ConnectError,
            Failure::Tls => AttemptResult::TlsError,
            Failure::Timeout => AttemptResult::Timeout,
            Failure::Protocol => AttemptResult::ProtocolError,
            Failure::BlockedAddress => AttemptResult::BlockedAddress,
        }
    }
}
