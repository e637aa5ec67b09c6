//! `PublishEvents`: from messages to checked events, and from what became of them to
//! the answer. The hot path: payloads are moved, never copied.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tonic::{Request, Response, Status};

use crate::domain::event::{NewEvent, Payload, TraceContext};
use crate::domain::event_rules::{EventInput, content_hash};
use crate::domain::id::OrganizationId;
use crate::domain::invalid::InvalidField;
use crate::domain::scope::Scope;
use crate::domain::timestamp::Timestamp;
use crate::grpc::{Context, access, call, pb, status, time};
use crate::intake::{PublishError, PublishedEvent};

/// Largest request, as encoded by its sender.
const REQUEST_BYTES_MAX: usize = 4 << 20;
const EVENTS_MAX: usize = 1000;
/// Events that break a rule are looked for until there are this many.
const BROKEN_MAX: usize = 16;

/// What every event of a request is read with.
struct Reader<'a> {
    organization: &'a OrganizationId,
    trace: TraceContext,
    publisher: Arc<str>,
    payload_bytes_max: usize,
    now: Timestamp,
}

/// An event that stands in its request more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repeat {
    /// Its place in the request.
    place: usize,
    /// The place of the first one with its id.
    first: usize,
}

pub(super) async fn publish(
    context: &Context,
    request: Request<pb::PublishEventsRequest>,
) -> Result<Response<pb::PublishEventsResponse>, Status> {
    let (metadata, extensions, request) = request.into_parts();
    let organization =
        access::organization(&extensions, Scope::EventsPublish, &request.organization_id)?;
    if REQUEST_BYTES_MAX < request.encoded_len() {
        return Err(status::too_large());
    }
    if !(1..=EVENTS_MAX).contains(&request.events.len()) {
        return Err(InvalidField::new("events", "EVENTS_COUNT", "1 to 1000 events").into());
    }
    let admitted = context.intake.admit(&organization, request.events.len());
    admitted.map_err(status::publish)?;
    let reader = Reader {
        organization: &organization,
        trace: call::trace_context(&metadata),
        publisher: access::publisher(&extensions)?,
        payload_bytes_max: context.limits.payload_bytes_max,
        now: context.lease.now(),
    };
    let mut events = read_all(&reader, request.events)?;
    let repeats = take_repeats(&mut events)?;
    let published = context.intake.publish(events).await;
    let published = published.map_err(|error| status::publish(placed(error, &repeats)))?;
    Ok(Response::new(pb::PublishEventsResponse { results: results(published, &repeats) }))
}

fn read_all(reader: &Reader<'_>, sent: Vec<pb::Event>) -> Result<Vec<NewEvent>, Status> {
    let mut events = Vec::with_capacity(sent.len());
    let mut broken = Vec::new();
    for (place, event) in sent.into_iter().enumerate() {
        match reader.read(event) {
            Ok(event) => events.push(event),
            Err(invalid) => broken.push(invalid.within(&format!("events[{place}]"))),
        }
        if BROKEN_MAX <= broken.len() {
            break;
        }
    }
    if broken.is_empty() { Ok(events) } else { Err(status::invalid(broken)) }
}

impl Reader<'_> {
    fn read(&self, event: pb::Event) -> Result<NewEvent, InvalidField> {
        let named = event.organization_id.as_str();
        if !named.is_empty() && named != self.organization.as_str() {
            let why = "left out, or that of the request";
            return Err(InvalidField::new("organization_id", "ORGANIZATION_MISMATCH", why));
        }
        let input = EventInput {
            organization: self.organization.clone(),
            account_id: event.account_id,
            id: event.id,
            event_type: event.r#type,
            occur_time: time::optional_timestamp("occur_time", event.occur_time)?,
            expire_time: time::optional_timestamp("expire_time", event.expire_time)?,
            payload: match event.payload {
                None => Payload::None,
                Some(pb::event::Payload::Json(text)) => Payload::Json(Bytes::from(text)),
                Some(pb::event::Payload::Raw(bytes)) => Payload::Raw(bytes),
            },
            content_type: event.content_type,
            attributes: event.attributes,
            subject: event.subject,
            // One context for all, read once.
            traceparent: String::new(),
            tracestate: String::new(),
        };
        let event = input.check(self.payload_bytes_max, self.now)?;
        let publisher = Arc::clone(&self.publisher);
        Ok(NewEvent { trace: self.trace.clone(), publisher, ..event })
    }
}

/// Takes those events out whose id stands earlier in the request with the same
/// content; they are in the order of the request.
///
/// # Errors
///
/// `DUPLICATE_ID` for `events[i].id` when the content is another one.
fn take_repeats(events: &mut Vec<NewEvent>) -> Result<Vec<Repeat>, InvalidField> {
    let mut firsts = HashMap::with_capacity(events.len());
    let mut repeats = Vec::new();
    for (place, event) in events.iter().enumerate() {
        let Some(id) = event.id.as_deref() else { continue };
        let first = *firsts.entry(id).or_insert(place);
        if first == place {
            continue;
        }
        if content_hash(event) != content_hash(&events[first]) {
            let why = format!("events[{first}] has this id and another content");
            let field = format!("events[{place}].id");
            return Err(InvalidField::new(field, "DUPLICATE_ID", why));
        }
        repeats.push(Repeat { place, first });
    }
    if !repeats.is_empty() {
        let mut place = 0;
        events.retain(|_| {
            place += 1;
            !is_repeat(&repeats, place - 1)
        });
    }
    Ok(repeats)
}

fn is_repeat(repeats: &[Repeat], place: usize) -> bool {
    repeats.binary_search_by_key(&place, |repeat| repeat.place).is_ok()
}

/// The error with places of the request instead of places among those that were
/// handed on.
fn placed(error: PublishError, repeats: &[Repeat]) -> PublishError {
    match error {
        PublishError::IdConflict { index } => {
            let mut kept = (0..).filter(|place| !is_repeat(repeats, *place));
            PublishError::IdConflict { index: kept.nth(index).unwrap_or(index) }
        }
        other @ (PublishError::QueueFull { .. }
        | PublishError::RateExceeded { .. }
        | PublishError::BacklogFull { .. }
        | PublishError::TooManyDeliveries
        | PublishError::Rejected
        | PublishError::StorageFull
        | PublishError::Unavailable
        | PublishError::ShuttingDown) => other,
    }
}

/// One result for each event of the request, in its order.
fn results(published: Vec<PublishedEvent>, repeats: &[Repeat]) -> Vec<pb::PublishResult> {
    let mut results: Vec<pb::PublishResult> = Vec::with_capacity(published.len() + repeats.len());
    let mut repeats = repeats.iter().peekable();
    let mut published = published.into_iter();
    loop {
        if let Some(repeat) = repeats.next_if(|repeat| repeat.place == results.len()) {
            let first = results[repeat.first].clone();
            results.push(pb::PublishResult { duplicate: true, ..first });
        } else if let Some(event) = published.next() {
            results.push(pb::PublishResult {
                event_id: event.id,
                duplicate: event.duplicate,
                delivery_count: event.delivery_count,
            });
        } else {
            return results;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::EventKey;

    fn event(id: &str, event_type: &str) -> pb::Event {
        let (id, r#type) = (id.to_owned(), event_type.to_owned());
        pb::Event { id, r#type, ..pb::Event::default() }
    }

    fn read(events: Vec<pb::Event>) -> Result<Vec<NewEvent>, Status> {
        let organization = OrganizationId::parse("acme").expect("valid");
        let reader = Reader {
            organization: &organization,
            trace: TraceContext::default(),
            publisher: "anyone".into(),
            payload_bytes_max: 100,
            now: Timestamp(0),
        };
        read_all(&reader, events)
    }

    fn published(id: &str) -> PublishedEvent {
        PublishedEvent { id: id.to_owned(), key: EventKey(1), delivery_count: 2, duplicate: false }
    }

    #[test]
    fn every_broken_event_is_named_by_its_place() {
        let mut foreign = event("b", "order");
        foreign.organization_id = "other".to_owned();
        let refused = read(vec![event("a", ""), event("b", "order"), foreign]);
        let refused = refused.expect_err("two are broken");
        let violations = tonic_types::StatusExt::get_details_bad_request(&refused);
        let violations = violations.expect("a bad request").field_violations;
        let fields: Vec<_> = violations.iter().map(|one| (&*one.field, &*one.reason)).collect();
        let expected = [
            ("events[0].type", "INVALID_EVENT_TYPE"),
            ("events[2].organization_id", "ORGANIZATION_MISMATCH"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn an_event_may_name_the_organization_of_its_request() {
        let mut own = event("a", "order");
        own.organization_id = "acme".to_owned();
        assert_eq!(read(vec![own]).expect("valid").len(), 1);
    }

    #[test]
    fn repeats_in_a_request_are_handed_on_once_and_answered_as_duplicates() {
        let sent = ["a", "b", "a", "", "b", "", "c"].map(|id| event(id, "order")).to_vec();
        let mut events = read(sent).expect("valid");
        let repeats = take_repeats(&mut events).expect("all the same");
        let ids: Vec<_> = events.iter().map(|event| event.id.as_deref().unwrap_or("")).collect();
        assert_eq!(ids, ["a", "b", "", "", "c"]);
        let answer = results(["a", "b", "x", "y", "c"].map(published).to_vec(), &repeats);
        let told: Vec<_> = answer.iter().map(|one| (&*one.event_id, one.duplicate)).collect();
        let expected = [
            ("a", false),
            ("b", false),
            ("a", true),
            ("x", false),
            ("b", true),
            ("y", false),
            ("c", false),
        ];
        assert_eq!(told, expected);
        assert!(answer.iter().all(|one| one.delivery_count == 2));
        let conflict = placed(PublishError::IdConflict { index: 4 }, &repeats);
        assert!(matches!(conflict, PublishError::IdConflict { index: 6 }), "{conflict:?}");
    }

    #[test]
    fn the_same_id_with_another_content_in_a_request_is_refused() {
        let sent = vec![event("a", "order"), event("b", "order"), event("a", "refund")];
        let refused = take_repeats(&mut read(sent).expect("each alone is valid"));
        let refused = refused.expect_err("two events, one id");
        assert_eq!((&*refused.field, refused.reason), ("events[2].id", "DUPLICATE_ID"));
    }
}
