//! What is taken from the body of a receiver's answer.
//!
//! The status counts once the answer has ended, or once it has shown itself longer
//! than we read. An answer that is cut or drips past the deadline is no answer:
//! sending again is the safe mistake, the receiver drops duplicates by their id.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::body::Incoming;

use crate::domain::attempt::Failure;
use crate::domain::attempt::RESPONSE_BODY_BYTES_MAX;

use super::Trouble;

/// Bytes read beyond those that are kept, to be able to use the connection again.
const DRAIN_BYTES_MAX: usize = 64 * 1024;

/// The body as far as it was read.
pub(super) struct Received {
    /// At most [`RESPONSE_BODY_BYTES_MAX`] bytes, as they came: not decompressed.
    pub(super) start: Bytes,
    /// Whether the body ended, so that the connection may be used again.
    pub(super) ended: bool,
}

/// Reads a body to its end or to our limit. Trailers are ignored.
pub(super) async fn receive(mut body: Incoming) -> Result<Received, Trouble> {
    if body.is_end_stream() {
        return Ok(Received { start: Bytes::new(), ended: true });
    }
    let mut start = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let broken = |_| Trouble::new(Failure::Protocol, "The answer broke off.");
        let Ok(chunk) = frame.map_err(broken)?.into_data() else { continue };
        let wanted = RESPONSE_BODY_BYTES_MAX.saturating_sub(start.len()).min(chunk.len());
        start.extend_from_slice(&chunk[..wanted]);
        length += chunk.len();
        if length > RESPONSE_BODY_BYTES_MAX + DRAIN_BYTES_MAX {
            return Ok(Received { start: start.into(), ended: false });
        }
    }
    Ok(Received { start: start.into(), ended: true })
}
