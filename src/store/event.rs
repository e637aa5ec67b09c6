//! Looking events up: by id, by key, and an organization's newest first.

use std::collections::HashMap;
use std::ops::Range;

use sea_orm::{ConnectionTrait, EntityTrait, FromQueryResult, QueryResult};

use super::engine::column;
use super::entity::{event, event_key};
use super::{Store, StoreError, row};
use crate::domain::event::{Event, EventSummary, Payload};
use crate::domain::id::{AccountId, EventKey, OrganizationId};
use crate::domain::pattern::EventPattern;
use crate::domain::timestamp::Timestamp;

/// Most rows that one page looks at before it comes back short.
const SCAN_MAX: usize = 10_000;
/// Most bytes of payload in one page; one event may be larger.
const PAGE_BYTES_MAX: u64 = 2 << 20;
/// Rows asked for at a time; of events without payload, fewer while it is not known that
/// they are small: attributes can be a quarter of a MiB.
const CHUNK: usize = 500;
const CHUNK_FIRST: usize = 64;
const CHUNK_BYTES: usize = 1 << 20;

/// The column that names the data key of an event.
const KEY_ID: &str = "payload_key_id";

/// How far a key's time may lie from its event's publish time: a clock that steps
/// back leaves keys ahead of it.
const KEY_SLACK_US: i64 = 10_000_000;

/// Every column but the payload, which nobody wants to read in bulk.
pub(super) const EVENT: &str = "key, organization_id, account_id, event_id, event_type,
    occur_time, publish_time, expire_time, content_type, payload_kind, payload_bytes,
    NULL AS payload, payload_key_id, payload_version, attributes, subject, traceparent,
    tracestate, targets, purge_time, publisher";

/// The same for a delivery, which shows neither attributes nor subject.
pub(super) const DELIVERED_EVENT: &str = "key, organization_id, account_id, event_id, event_type,
    occur_time, publish_time, expire_time, content_type, payload_kind, payload_bytes,
    NULL AS payload, payload_key_id, payload_version, '' AS attributes, '' AS subject,
    traceparent, tracestate, targets, purge_time, '' AS publisher";

/// Which events; each part that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// About this account.
    pub account: Option<AccountId>,
    /// Of a type that matches.
    pub pattern: Option<EventPattern>,
    /// Taken in at this time or later.
    pub from: Option<Timestamp>,
    /// Taken in before this time.
    pub to: Option<Timestamp>,
}

impl EventFilter {
    pub(super) fn holds(&self, event: &EventSummary) -> bool {
        self.account.as_ref().is_none_or(|account| event.account.as_ref() == Some(account))
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(&event.event_type))
            && self.from.is_none_or(|from| from <= event.publish_time)
            && self.to.is_none_or(|to| event.publish_time < to)
    }

    /// No event that the filter lets through has a smaller key.
    pub(super) fn floor(&self) -> EventKey {
        let from = self.from.map(|from| Timestamp(from.0.saturating_sub(KEY_SLACK_US)));
        from.map_or(EventKey(i64::MIN), EventKey::first_at)
    }

    /// Every event that the filter lets through has a smaller key.
    pub(super) fn ceiling(&self) -> EventKey {
        let to = self.to.map(|to| Timestamp(to.0.saturating_add(KEY_SLACK_US)));
        to.map_or(EventKey(i64::MAX), EventKey::first_at)
    }
}

/// Some events, newest first.
#[derive(Debug)]
pub struct EventPage {
    /// At most as many as asked for; fewer where the scan stopped early.
    pub events: Vec<Event>,
    /// Where to go on; `None` when there is nothing more.
    pub next: Option<EventKey>,
}

impl Store {
    /// The event of a public id: the publisher's, or `evt_…`.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]; [`StoreError::Shredded`] when the payload is asked for and
    /// its data key is gone.
    pub async fn event_by_id(
        &self,
        organization: &OrganizationId,
        id: &str,
        with_payload: bool,
    ) -> Result<Event, StoreError> {
        let reading = self.reading(organization).await?;
        let key = self.find_event_key(&reading, organization, id).await?;
        let columns = if with_payload { "*" } else { EVENT };
        let sql = format!("SELECT {columns} FROM event WHERE key = $1 AND organization_id = $2");
        let values = vec![key.0.into(), organization.as_str().into()];
        let found = reading.query_one_raw(self.statement(&sql, values)).await?;
        let found = found.ok_or(StoreError::NotFound)?;
        self.learn_keys_of(&reading, std::slice::from_ref(&found), KEY_ID).await?;
        self.read_event(&found)
    }

    /// The key of the event of a public id.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`].
    pub async fn event_key_of(
        &self,
        organization: &OrganizationId,
        id: &str,
    ) -> Result<EventKey, StoreError> {
        let reading = self.reading(organization).await?;
        self.find_event_key(&reading, organization, id).await
    }

    async fn find_event_key(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        id: &str,
    ) -> Result<EventKey, StoreError> {
        if let Some(key) = self.ids().parse_event(id) {
            // An id that the publisher chose is the event's only one.
            let sql = "SELECT key FROM event
                       WHERE key = $1 AND organization_id = $2 AND event_id = ''";
            let values = vec![key.0.into(), organization.as_str().into()];
            if connection.query_one_raw(self.statement(sql, values)).await?.is_some() {
                return Ok(key);
            }
        }
        let key = (organization.as_str().to_owned(), id.to_owned());
        let found = event_key::Entity::find_by_id(key).one(connection).await?;
        found.map(|row| EventKey(row.event_key)).ok_or(StoreError::NotFound)
    }

    /// An organization's events, newest first. Looks at 10,000 rows and returns
    /// 2 MiB of payload at most; a page may be short, even empty, with more to come.
    /// A payload that cannot be decrypted is left out.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn events(
        &self,
        organization: &OrganizationId,
        filter: &EventFilter,
        before: Option<EventKey>,
        limit: usize,
        with_payload: bool,
    ) -> Result<EventPage, StoreError> {
        let mut below = filter.ceiling().min(before.unwrap_or(EventKey(i64::MAX)));
        let reading = self.reading(organization).await?;
        let mut page = EventPage { events: Vec::new(), next: None };
        let mut bytes = 0;
        let mut scanned = 0;
        let mut rows = CHUNK_FIRST.min(limit + 1);
        while page.next.is_none() {
            let range = filter.floor()..below;
            let chunk = self.event_chunk(&reading, organization, range, rows).await?;
            scanned += chunk.len();
            let is_last = chunk.len() < rows;
            if chunk.iter().map(Event::weight).sum::<usize>() < CHUNK_BYTES {
                rows = CHUNK.min(4 * rows);
            }
            for event in chunk {
                let summary = &event.summary;
                if filter.holds(summary) {
                    let payload = if with_payload { summary.payload_bytes } else { 0 };
                    let size = payload + event.weight() as u64;
                    let is_full = limit <= page.events.len() || PAGE_BYTES_MAX < bytes + size;
                    if is_full && !page.events.is_empty() {
                        page.next = Some(below);
                        break;
                    }
                    bytes += size;
                    below = summary.key;
                    page.events.push(event);
                } else {
                    below = summary.key;
                }
            }
            if is_last {
                break;
            }
            if SCAN_MAX <= scanned {
                page.next = Some(below);
            }
        }
        if with_payload {
            self.add_payloads(&reading, organization, &mut page.events).await?;
        }
        Ok(page)
    }

    /// Events with their payloads, in no order; those that are gone are left out.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub(super) async fn events_by_keys(&self, keys: &[EventKey]) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        for chunk in keys.chunks(CHUNK) {
            let (list, values) = self.among(0, chunk.iter().map(|key| key.0));
            let sql = format!("SELECT * FROM event WHERE key IN ({list})");
            let rows = self.read().query_all_raw(self.statement(&sql, values)).await?;
            self.learn_keys_of(self.read(), &rows, KEY_ID).await?;
            for found in &rows {
                match self.read_event(found) {
                    Ok(event) => loaded.events.push(event),
                    // One that is damaged must not hold up the others.
                    Err(StoreError::Shredded | StoreError::Corrupt(_)) => {
                        loaded.unreadable.push(EventKey(column(found, "key")?));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(loaded)
    }

    /// The newest events with keys in `range`, at most so many.
    async fn event_chunk(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        range: Range<EventKey>,
        rows: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let sql = format!(
            "SELECT {EVENT} FROM event WHERE organization_id = $1 AND key < $2 AND key >= $3
             ORDER BY key DESC LIMIT {rows}"
        );
        let (floor, below) = (range.start.0, range.end.0);
        let values = vec![organization.as_str().into(), below.into(), floor.into()];
        let rows = connection.query_all_raw(self.statement(&sql, values)).await?;
        self.learn_keys_of(connection, &rows, KEY_ID).await?;
        rows.iter().map(|row| self.read_event(row)).collect()
    }

    async fn add_payloads(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        events: &mut [Event],
    ) -> Result<(), StoreError> {
        for chunk in events.chunks_mut(CHUNK) {
            let (list, keys) = self.among(1, chunk.iter().map(|event| event.summary.key.0));
            // Their data keys are known since the rows were read without payloads.
            let sql = format!("SELECT * FROM event WHERE organization_id = $1 AND key IN ({list})");
            let mut values = vec![organization.as_str().into()];
            values.extend(keys);
            let mut payloads = HashMap::new();
            for found in connection.query_all_raw(self.statement(&sql, values)).await? {
                let payload = match self.read_event(&found) {
                    Ok(event) => event.payload,
                    Err(StoreError::Shredded | StoreError::Corrupt(_)) => Payload::None,
                    Err(error) => return Err(error),
                };
                payloads.insert(column::<i64>(&found, "key")?, payload);
            }
            for event in chunk {
                if let Some(payload) = payloads.remove(&event.summary.key.0) {
                    event.payload = payload;
                }
            }
        }
        Ok(())
    }

    /// An event of its row, whose data key was looked for.
    pub(super) fn read_event(&self, found: &QueryResult) -> Result<Event, StoreError> {
        row::event(self.ids(), &self.inner.vault, event::Model::from_query_result(found, "")?)
    }
}

/// Events that were looked up by their keys.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) events: Vec<Event>,
    /// There, but their payloads cannot be decrypted.
    pub(super) unreadable: Vec<EventKey>,
}
