//! A request beside the deliveries, whose answer is looked at: whether an endpoint wants
//! events at all.
//!
//! The same judged addresses, certificates, proxy and limits as those of a delivery, and one
//! deadline. The connection is its own and is not kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use tokio::time::timeout;

use super::Egress;
use super::Room;
use super::Trouble;
use super::connect;
use super::response;
use super::sender::Course;
use super::sender::broken;
use super::sender::http_request;
use super::sender::late;
use super::sender::retry_after;
use super::target::Target;
use crate::domain::attempt::Fault;
use crate::domain::attempt::Outcome;
use crate::domain::endpoint_url::Host;

/// What is asked.
pub struct Inquiry {
    /// Where it goes.
    pub target: Arc<Target>,
    /// OPTIONS or POST.
    pub method: Method,
    /// Its headers; those that are this room's own are ignored, as in a delivery.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body; may be empty.
    pub body: Bytes,
    /// Time for everything, from name resolution to the last byte of the answer.
    pub timeout: Duration,
}

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    /// What the receiver did, with the start of its answer.
    pub outcome: Outcome,
    /// Whose fault it is, where the receiver did not answer.
    pub fault: Fault,
    /// The answer's headers; none where there was no answer.
    pub headers: HeaderMap,
    /// What went wrong, for people, empty when the receiver answered. Never an
    /// address, never the resolver's words.
    pub detail: &'static str,
}

impl Egress {
    /// Asks, and reads the answer. Cannot fail: whatever goes wrong is an [`Outcome`].
    /// Dropping the future ends the connection.
    pub async fn inquire(&self, inquiry: Inquiry) -> Reply {
        let has_name = matches!(inquiry.target.host, Host::Name(_));
        let mut course = Course::default();
        let (limit, room) = (inquiry.timeout, self.room());
        let trouble = match timeout(limit, ask(&room, inquiry, &mut course)).await {
            Ok(Ok(reply)) => return reply,
            Ok(Err(trouble)) => trouble,
            Err(_elapsed) => late(&room, has_name, &course),
        };
        let Trouble { outcome, fault, detail } = trouble;
        Reply { outcome, fault, headers: HeaderMap::new(), detail }
    }
}

async fn ask(room: &Room, inquiry: Inquiry, course: &mut Course) -> Result<Reply, Trouble> {
    let Inquiry { target, method, headers, body, timeout: _ } = inquiry;
    let mut connection = Box::pin(connect::open(room, &target, course)).await?;
    let request = http_request(method, &target, headers, body);
    let answer = connection.sender.send_request(request).await;
    let (head, body) = answer.map_err(|error| broken(&error))?.into_parts();
    let received = response::receive(body).await?;
    let outcome = Outcome::Responded {
        status: head.status.as_u16(),
        retry_after: retry_after(&head.headers),
        body: received.start,
    };
    Ok(Reply { outcome, fault: Fault::Receiver, headers: head.headers, detail: "" })
}
