//! How all the deliveries of some events stand, for purges: in a few statements, however
//! many there are.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{ConnectionTrait, QueryResult, Value};

use super::engine::{column, json};
use super::link::Transaction;
use super::settle::keys as pair_arrays;
use super::{Store, StoreError, row};
use crate::domain::id::{DeliveryKey, EventKey, OrganizationId, SubscriptionKey};
use crate::domain::retention::Ends;
use crate::domain::timestamp::Timestamp;

/// Deliveries asked for at a time.
const CHUNK: usize = 4000;

/// An event, as a purge sees it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) key: EventKey,
    pub(super) organization: OrganizationId,
    /// The publisher's; empty when the server made it.
    pub(super) event_id: String,
    pub(super) publish_time: Timestamp,
    /// Whether what it carried is gone.
    pub(super) is_purged: bool,
    pub(super) targets: Vec<SubscriptionKey>,
}

/// The columns of a [`Stored`].
pub(super) const STORED: &str = "key, organization_id, event_id, publish_time, purge_time, targets";

/// What tells how a delivery stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    pub(super) delivery: DeliveryKey,
    /// It has a row in `due`.
    waits: bool,
    /// When it ended without success.
    lost_at: Option<i64>,
    succeeded: bool,
    /// When its last attempt ended.
    tried_at: Option<i64>,
    /// The number of its last attempt; 0 before the first.
    pub(super) number: i16,
    /// Whether something is kept of what the receiver answered.
    pub(super) has_body: bool,
}

impl Trace {
    /// Whether it has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.waits || (self.lost_at.is_none() && !self.succeeded)
    }
}

/// One row for each pair. `attempt` is asked for a stretch of keys too, so that partitions
/// of other days are left out when it is planned.
const TRACES_POSTGRES: &str = "
    SELECT w.s AS subscription_key, w.e AS event_key, tried.ended AS tried_at, tried.number,
        tried.succeeded, tried.has_body,
        EXISTS (SELECT 1 FROM due d WHERE d.subscription_key = w.s AND d.event_key = w.e) AS waits,
        (SELECT n.end_time FROM undelivered n
         WHERE n.subscription_key = w.s AND n.event_key = w.e) AS lost_at
    FROM unnest($1::int8[], $2::int8[]) w (s, e)
    CROSS JOIN LATERAL (
        SELECT max(a.start_time + a.duration_us) AS ended, max(a.number) AS number,
            bool_or(a.result = 1) AS succeeded, bool_or(length(a.response_body) > 0) AS has_body
        FROM attempt a
        WHERE a.subscription_key = w.s AND a.event_key = w.e
          AND a.event_key >= $3 AND a.event_key <= $4) tried";
const TRACES_SQLITE: &str = "
    WITH w (s, e) AS MATERIALIZED (
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each($1))
    SELECT w.s AS subscription_key, w.e AS event_key,
        (SELECT max(a.start_time + a.duration_us) FROM attempt a
         WHERE a.subscription_key = w.s AND a.event_key = w.e) AS tried_at,
        (SELECT max(a.number) FROM attempt a
         WHERE a.subscription_key = w.s AND a.event_key = w.e) AS number,
        (SELECT max(a.result = 1) FROM attempt a
         WHERE a.subscription_key = w.s AND a.event_key = w.e) AS succeeded,
        (SELECT max(length(a.response_body) > 0) FROM attempt a
         WHERE a.subscription_key = w.s AND a.event_key = w.e) AS has_body,
        EXISTS (SELECT 1 FROM due d WHERE d.subscription_key = w.s AND d.event_key = w.e) AS waits,
        (SELECT n.end_time FROM undelivered n
         WHERE n.subscription_key = w.s AND n.event_key = w.e) AS lost_at
    FROM w";

impl Stored {
    /// Reads a row of [`STORED`].
    pub(super) fn read(found: &QueryResult) -> Result<Stored, StoreError> {
        Ok(Stored {
            key: EventKey(column(found, "key")?),
            organization: OrganizationId::stored(&column::<String>(found, "organization_id")?),
            event_id: column(found, "event_id")?,
            publish_time: Timestamp(column(found, "publish_time")?),
            is_purged: column::<i64>(found, "purge_time")? != 0,
            targets: row::unpack(&column::<Vec<u8>>(found, "targets")?),
        })
    }

    pub(super) fn deliveries(&self) -> impl Iterator<Item = DeliveryKey> {
        let event = self.key;
        self.targets.iter().map(move |&subscription| DeliveryKey { event, subscription })
    }
}

/// All deliveries of some events.
pub(super) fn deliveries(events: &[Stored]) -> Vec<DeliveryKey> {
    events.iter().flat_map(Stored::deliveries).collect()
}

/// How the deliveries of each event stand.
pub(super) fn ends(events: &[Stored], traces: &[Trace]) -> HashMap<EventKey, Ends> {
    let begin = |event: &Stored| (event.key, Ends { open: false, last: event.publish_time });
    let mut ends: HashMap<EventKey, Ends> = events.iter().map(begin).collect();
    for trace in traces {
        if let Some(ends) = ends.get_mut(&trace.delivery.event) {
            ends.open |= trace.is_open();
            let last = trace.lost_at.max(trace.tried_at).map_or(ends.last, Timestamp);
            ends.last = ends.last.max(last);
        }
    }
    ends
}

/// The subscriptions of each event, for statements that take one event at a time.
fn by_event(deliveries: &[DeliveryKey]) -> BTreeMap<EventKey, Vec<i64>> {
    let mut events: BTreeMap<EventKey, Vec<i64>> = BTreeMap::new();
    for delivery in deliveries {
        events.entry(delivery.event).or_default().push(delivery.subscription.0);
    }
    events
}

impl Store {
    /// What tells how each of the deliveries stands, in no order.
    pub(super) async fn traces(
        &self,
        transaction: &Transaction,
        deliveries: &[DeliveryKey],
    ) -> Result<Vec<Trace>, StoreError> {
        let mut traces = Vec::with_capacity(deliveries.len());
        for chunk in deliveries.chunks(CHUNK) {
            let statement = if self.is_shared() {
                self.statement(TRACES_POSTGRES, with_bounds(chunk))
            } else {
                let pair = |key: &DeliveryKey| (key.subscription.0, key.event.0);
                let pairs: Vec<(i64, i64)> = chunk.iter().map(pair).collect();
                let pairs = serde_json::to_string(&pairs).expect("numbers are JSON");
                self.statement(TRACES_SQLITE, vec![pairs.into()])
            };
            for found in transaction.query_all_raw(statement).await? {
                traces.push(read_trace(&found)?);
            }
        }
        Ok(traces)
    }

    /// Runs a statement over the rows of some deliveries: `postgres` over all of them, with
    /// [`with_bounds`] as its values; `sqlite` over those of one event, with a JSON array of
    /// subscriptions as `$1` and the event as `$2`. Gives the rows that they return.
    pub(super) async fn over_deliveries(
        &self,
        transaction: &Transaction,
        deliveries: &[DeliveryKey],
        postgres: &str,
        sqlite: &str,
    ) -> Result<Vec<QueryResult>, StoreError> {
        if self.is_shared() && !deliveries.is_empty() {
            let statement = self.statement(postgres, with_bounds(deliveries));
            return Ok(transaction.query_all_raw(statement).await?);
        }
        let mut rows = Vec::new();
        for (event, subscriptions) in by_event(deliveries) {
            let values = vec![json(&subscriptions).into(), event.0.into()];
            rows.extend(transaction.query_all_raw(self.statement(sqlite, values)).await?);
        }
        Ok(rows)
    }
}

/// Subscriptions and events as arrays, the smallest and the largest event.
fn with_bounds(deliveries: &[DeliveryKey]) -> Vec<Value> {
    let events = || deliveries.iter().map(|delivery| delivery.event.0);
    let [subscriptions, keys] = pair_arrays(deliveries.iter().copied());
    let (first, last) = (events().min().unwrap_or(0), events().max().unwrap_or(0));
    vec![subscriptions, keys, first.into(), last.into()]
}

fn read_trace(found: &QueryResult) -> Result<Trace, StoreError> {
    let delivery = DeliveryKey {
        event: EventKey(column(found, "event_key")?),
        subscription: SubscriptionKey(column(found, "subscription_key")?),
    };
    Ok(Trace {
        delivery,
        waits: column(found, "waits")?,
        lost_at: column(found, "lost_at")?,
        succeeded: column::<Option<bool>>(found, "succeeded")?.unwrap_or_default(),
        tried_at: column(found, "tried_at")?,
        number: column::<Option<i16>>(found, "number")?.unwrap_or_default(),
        has_body: column::<Option<bool>>(found, "has_body")?.unwrap_or_default(),
    })
}
