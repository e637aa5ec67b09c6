//! A document that the operator names, such as the keys of a token's issuer.
//!
//! The same connections as those to receivers, with the same limits of time, head and
//! redirects. It is for rooms whose policy is the operator's own: nobody else's text ever
//! becomes a target here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use tokio::time::timeout;

use super::Egress;
use super::Room;
use super::Trouble;
use super::connect;
use super::sender::Course;
use super::target::Target;
use crate::domain::attempt::Failure;

/// Why there is no document. Says no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(&'static str);

impl Egress {
    /// Gets a document of at most `bytes_max` bytes, within `limit`. Only a 200 counts.
    ///
    /// # Errors
    ///
    /// Whatever went wrong, in words for the operator.
    pub async fn fetch(
        &self,
        target: &Arc<Target>,
        bytes_max: usize,
        limit: Duration,
    ) -> Result<Vec<u8>, FetchError> {
        match timeout(limit, get(&self.room(), target, bytes_max)).await {
            Ok(Ok(document)) => Ok(document),
            Ok(Err(trouble)) => Err(FetchError(trouble.detail)),
            Err(_elapsed) => Err(FetchError("There was no answer in time.")),
        }
    }
}

async fn get(room: &Room, target: &Arc<Target>, bytes_max: usize) -> Result<Vec<u8>, Trouble> {
    let mut course = Course::default();
    let mut connection = Box::pin(connect::open(room, target, &mut course)).await?;
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = target.path.clone();
    let headers = request.headers_mut();
    headers.insert(header::HOST, target.host_header.clone());
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let user_agent = concat!("Hookward/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(user_agent));
    let answer = connection.sender.send_request(request).await;
    let answer = answer.map_err(|_| broken("The answer was not HTTP within the limits."))?;
    if answer.status() != StatusCode::OK {
        return Err(broken("The answer was not a 200."));
    }
    let mut body = answer.into_body();
    let mut document = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| broken("The answer broke off."))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if bytes_max < document.len() + chunk.len() {
            return Err(broken("The document is too large."));
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

fn broken(detail: &'static str) -> Trouble {
    Trouble::new(Failure::Protocol, detail)
}
