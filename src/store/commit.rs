//! The first hot write: events and all their deliveries, in one transaction.
//!
//! A delivery whose subscription's queue on this replica has room is stored by
//! the event's `targets` alone: it counts as claimed by the replica whose number
//! is in the event's key. A target that does not fit, or whose subscription is
//! paused, gets a `due` row beside it.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use sea_orm::{ConnectionTrait, Value, sqlx};

use super::data_key::SealingKeys;
use super::engine::{ALONE_MAX, column};
use super::link::Transaction;
use super::replica::number;
use super::row::{EventColumns, StoredEvent};
use super::{Fence, Store, StoreError};
use crate::domain::event::Event;
use crate::domain::id::{DeliveryKey, EventKey, SubscriptionKey};
use crate::keyring::Digested;

/// One event of a batch.
#[derive(Clone, Debug)]
pub struct NewEventRow {
    /// The event, with its key and times.
    pub event: Arc<Event>,
    /// SHA-256 of what the publisher chose; set when the publisher chose the id.
    pub content_hash: Option<[u8; 32]>,
    /// Every subscription it goes to, ascending.
    pub targets: Vec<SubscriptionKey>,
    /// Those of the targets that wait in `due` instead of this replica's memory.
    pub parked: Vec<SubscriptionKey>,
}

/// A batch that stands or falls together.
#[derive(Debug)]
pub struct Commit<'a> {
    /// Who commits.
    pub fence: Fence,
    /// The version of the routing table that the targets were matched with.
    pub routing_version: i64,
    /// What makes that table too old.
    pub stale: Stale,
    /// At least one.
    pub events: &'a [NewEventRow],
}

/// What makes the matching of a batch stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Any change since: one number is compared, however many organizations there are.
    ByAnyChange,
    /// A change of one of the batch's own organizations: so the others cannot keep it from
    /// being stored, however often they change something. What is known of endpoints does
    /// not count here: it has deliveries wait, and changes nobody's targets.
    ByOwnChange,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Everything is on disk.
    Stored,
    /// Nothing was stored: a subscription changed ([`Stale`]), or the batch was given up
    /// meanwhile. Match again with the new table, under new keys.
    RoutingMoved,
    /// Nothing was stored: one of the publishers' ids is there by now.
    IdTaken,
}

/// The whole batch in one statement, which is its own transaction: one round trip,
/// the same text for every batch size.
///
/// - `me` is the fence: without this replica's row nothing is inserted. Nor once the
///   events' keys, which ascend, lie below the floor that a recovery has raised:
///   [`Store::recover_commit`].
/// - `table_is_current` looks at the routing clock, or at what changed, in this statement's
///   snapshot. A subscription change that was answered before this statement began is in
///   that snapshot, so an event never misses a subscription that was acknowledged before it.
/// - `event_key` has no ON CONFLICT: a taken id fails the whole statement (23505), and
///   the intake looks the ids up and sends the rest again. Ids come sorted, so that two
///   batches that share ids wait for each other instead of deadlocking.
/// - Rows affected are those of the outermost insert: all of the events or none.
const COMMIT_POSTGRES: &str = "
    WITH me AS MATERIALIZED (
        SELECT 1 FROM replica
        WHERE number = $1 AND incarnation = $2 AND commit_floor <= ($12::int8[])[1]
        FOR KEY SHARE
    ),
    table_is_current AS MATERIALIZED (
        SELECT 1 FROM me, routing_clock WHERE {current}
    ),
    ids AS (
        INSERT INTO event_key (organization_id, event_id, event_key, content_hash,
            delivery_count, hash_key_id)
        SELECT u.* FROM table_is_current,
            unnest($4::text[], $5::text[], $6::int8[], $7::bytea[], $8::int4[], $9::int4[]) u
    ),
    parked AS (
        INSERT INTO due (subscription_key, event_key, due_at, owner, claim, attempts, takeovers, last_chance)
        SELECT u.subscription, u.event, (extract(epoch FROM clock_timestamp()) * 1000000)::int8,
            0, 0, 0, 0, false
        FROM table_is_current, unnest($10::int8[], $11::int8[]) u (subscription, event)
    )
    INSERT INTO event (key, organization_id, account_id, event_id, event_type, occur_time,
        publish_time, expire_time, content_type, payload_kind, payload_bytes, payload,
        payload_key_id, payload_version, attributes, subject, traceparent, tracestate, targets,
        publisher)
    SELECT u.* FROM table_is_current,
        unnest($12::int8[], $13::text[], $14::text[], $15::text[], $16::text[], $17::int8[],
            $18::int8[], $19::int8[], $20::text[], $21::int2[], $22::int4[], $23::bytea[],
            $24::int4[], $25::int2[], $26::text[], $27::text[], $28::text[], $29::text[],
            $30::bytea[], $31::text[]) u";

/// `{current}` of [`COMMIT_POSTGRES`] for [`Stale::ByAnyChange`].
const NOTHING_CHANGED: &str = "version = $3";
/// The same for [`Stale::ByOwnChange`]. What a deleted organization leaves has no name any
/// more, and may have been of any. The names are put together with nothing so that rows are
/// found by their versions: an organization may have many that have not changed.
const NONE_OF_OURS_CHANGED: &str = "
        NOT EXISTS (
            SELECT 1 FROM subscription
            WHERE routing_version > $3 AND organization_id || '' = ANY(array_append($13::text[], ''))
        )
        AND NOT EXISTS (
            SELECT 1 FROM data_key
            WHERE routing_version > $3 AND routing_version <> 0
                AND organization_id || '' = ANY(array_append($13::text[], ''))
        )";

/// What a batch on SQLite is stored under; no row without the fence.
const TERMS_SQLITE: &str = "
    SELECT commit_floor, {current} AS current
    FROM replica WHERE number = ? AND incarnation = ?";
/// What a small batch on SQLite is inserted under: the table and the fence, as in
/// [`COMMIT_POSTGRES`].
const COMMIT_ALONE_SQLITE: &str = "
    WHERE {current}
      AND EXISTS (SELECT 1 FROM replica WHERE number = ? AND incarnation = ? AND commit_floor <= ?)";
/// `{current}` of both for [`Stale::ByAnyChange`].
const NOTHING_CHANGED_SQLITE: &str = "(SELECT version FROM routing_clock) = ?";
/// The same for [`Stale::ByOwnChange`]; names as a JSON array.
const NONE_OF_OURS_CHANGED_SQLITE: &str = "
    NOT EXISTS (
        SELECT 1 FROM subscription
        WHERE routing_version > ? AND organization_id || '' IN (SELECT value FROM json_each(?))
    )
    AND NOT EXISTS (
        SELECT 1 FROM data_key
        WHERE routing_version > ? AND routing_version <> 0
            AND organization_id || '' IN (SELECT value FROM json_each(?))
    )";

const EVENT_COLUMNS: &str = "INSERT INTO event (key, organization_id, account_id, event_id,
    event_type, occur_time, publish_time, expire_time, content_type, payload_kind, payload_bytes,
    payload, payload_key_id, payload_version, attributes, subject, traceparent, tracestate,
    targets, publisher)";
const EVENT_KEY_COLUMNS: &str = "INSERT INTO event_key (organization_id, event_id, event_key,
    content_hash, delivery_count, hash_key_id)";
pub(super) const DUE_COLUMNS: &str =
    "INSERT INTO due (subscription_key, event_key, due_at, owner, claim,
    attempts, takeovers, last_chance)";

impl Store {
    /// Stores a batch, durably, or nothing of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`]: nothing was stored and this replica must register
    /// anew. [`StoreError::Unavailable`]: it is not known whether the batch was
    /// stored; [`Store::recover_commit`] tells once the database answers again.
    /// [`StoreError::Rejected`]: the database refuses a value of one of the events.
    /// [`StoreError::Locked`]: nothing was stored, since the data key of one of the
    /// organizations does not open.
    pub async fn commit(&self, batch: &Commit<'_>) -> Result<Committed, StoreError> {
        let organizations = batch.events.iter().map(|row| &row.event.summary.organization);
        let keys = self.sealing_keys(organizations).await?;
        let stored = if self.is_shared() {
            self.commit_postgres(batch, &keys).await
        } else {
            self.commit_sqlite(batch, &keys).await
        };
        match stored {
            Err(StoreError::Taken) => Ok(Committed::IdTaken),
            other => other,
        }
    }

    async fn commit_postgres(
        &self,
        batch: &Commit<'_>,
        keys: &SealingKeys,
    ) -> Result<Committed, StoreError> {
        let ids = ids(batch.events, keys);
        let parked = parked(batch.events);
        let events = StoredEvent::all(batch.events, keys);
        let columns = EventColumns::of(&events);
        let query = sqlx::query(commit_postgres(batch.stale))
            .bind(number(batch.fence))
            .bind(batch.fence.incarnation)
            .bind(batch.routing_version)
            .bind(ids.iter().map(|id| id.0).collect::<Vec<&str>>())
            .bind(ids.iter().map(|id| id.1).collect::<Vec<&str>>())
            .bind(ids.iter().map(|id| id.2).collect::<Vec<i64>>())
            .bind(ids.iter().map(|id| &id.3[..]).collect::<Vec<&[u8]>>())
            .bind(ids.iter().map(|id| id.4).collect::<Vec<i32>>())
            .bind(ids.iter().map(|id| id.5).collect::<Vec<i32>>())
            .bind(parked.iter().map(|key| key.subscription.0).collect::<Vec<i64>>())
            .bind(parked.iter().map(|key| key.event.0).collect::<Vec<i64>>());
        let stored = self.execute_postgres(columns.bind(query)).await?;
        if stored == u64::try_from(batch.events.len()).unwrap_or(u64::MAX) {
            return Ok(Committed::Stored);
        }
        if self.is_registered(batch.fence).await? {
            Ok(Committed::RoutingMoved)
        } else {
            Err(StoreError::Fenced)
        }
    }

    async fn commit_sqlite(
        &self,
        batch: &Commit<'_>,
        keys: &SealingKeys,
    ) -> Result<Committed, StoreError> {
        let plain = |row: &NewEventRow| row.content_hash.is_none() && row.parked.is_empty();
        if batch.events.len() <= ALONE_MAX && batch.events.iter().all(plain) {
            return self.commit_alone(batch, keys).await;
        }
        let transaction = self.begin().await?;
        if !self.is_current_sqlite(&transaction, batch).await? {
            return Ok(Committed::RoutingMoved);
        }
        let ids = ids(batch.events, keys);
        let count = ids.len();
        let rows = ids.into_iter().map(|(organization, id, key, hash, deliveries, hash_key)| {
            let hash = hash.to_vec().into();
            let (deliveries, hash_key) = (deliveries.into(), hash_key.into());
            vec![organization.into(), id.into(), key.into(), hash, deliveries, hash_key]
        });
        self.insert_rows(&transaction, EVENT_KEY_COLUMNS, 6, "", rows, count).await?;
        let now = batch.events.first().map_or(0, |row| row.event.summary.publish_time.0);
        let parked = parked(batch.events);
        let count = parked.len();
        let rows = parked.into_iter().map(|key| due_row(key, now));
        self.insert_rows(&transaction, DUE_COLUMNS, 8, "", rows, count).await?;
        let rows = StoredEvent::all(batch.events, keys).into_iter().map(StoredEvent::values);
        self.insert_rows(&transaction, EVENT_COLUMNS, 20, "", rows, batch.events.len()).await?;
        transaction.commit().await?;
        Ok(Committed::Stored)
    }

    /// Whether the batch was matched with the routing table of now, and lies above the
    /// commit floor.
    async fn is_current_sqlite(
        &self,
        transaction: &Transaction,
        batch: &Commit<'_>,
    ) -> Result<bool, StoreError> {
        let (current, mut values) = current_sqlite(batch);
        values.extend([number(batch.fence).into(), batch.fence.incarnation.into()]);
        let terms = self.statement(&TERMS_SQLITE.replace("{current}", current), values);
        let terms = transaction.query_one_raw(terms).await?.ok_or(StoreError::Fenced)?;
        let (current, floor): (bool, i64) =
            (column(&terms, "current")?, column(&terms, "commit_floor")?);
        let first = batch.events.first().map_or(0, |row| row.event.summary.key.0);
        Ok(current && floor <= first)
    }

    /// A few events and nothing beside them, in one statement.
    async fn commit_alone(
        &self,
        batch: &Commit<'_>,
        keys: &SealingKeys,
    ) -> Result<Committed, StoreError> {
        let rows = StoredEvent::all(batch.events, keys).into_iter().map(StoredEvent::values);
        let rows = rows.collect();
        let fence = batch.fence;
        let first = batch.events.first().map_or(0, |row| row.event.summary.key.0);
        let (current, mut values) = current_sqlite(batch);
        values.extend([number(fence).into(), fence.incarnation.into(), first.into()]);
        let terms = COMMIT_ALONE_SQLITE.replace("{current}", current);
        let stored = self.insert_alone(EVENT_COLUMNS, rows, &terms, values).await?;
        if stored != 0 {
            return Ok(Committed::Stored);
        }
        if self.is_registered(fence).await? {
            Ok(Committed::RoutingMoved)
        } else {
            Err(StoreError::Fenced)
        }
    }

    /// After a commit whose answer was lost: makes sure that what was stored is
    /// delivered, by giving every delivery of the batch a `due` row where its event
    /// is there, and that what was not stored by now never is. Tells which events were
    /// stored. `floor`: larger than the batch's keys, smaller than those to come.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: ask again until it answers.
    /// [`StoreError::Fenced`]: whoever took over has found what was stored.
    pub async fn recover_commit(
        &self,
        fence: Fence,
        events: &[NewEventRow],
        floor: EventKey,
    ) -> Result<Vec<EventKey>, StoreError> {
        let transaction = self.begin().await?;
        self.hold_alone(&transaction, fence, floor).await?;
        let mut stored = Vec::new();
        for chunk in events.chunks(500) {
            let keys = chunk.iter().map(|row| row.event.summary.key.0);
            let (list, keys) = self.among(0, keys);
            let sql = format!("SELECT key FROM event WHERE key IN ({list})");
            for row in transaction.query_all_raw(self.statement(&sql, keys)).await? {
                stored.push(EventKey(column(&row, "key")?));
            }
        }
        let found = |row: &&NewEventRow| stored.contains(&row.event.summary.key);
        let deliveries: Vec<DeliveryKey> = events
            .iter()
            .filter(found)
            .flat_map(|row| {
                let event = row.event.summary.key;
                row.targets.iter().map(move |&subscription| DeliveryKey { event, subscription })
            })
            .collect();
        self.lock_events(&transaction, deliveries.iter().map(|key| key.event)).await?;
        self.insert_due(&transaction, &deliveries, 0, 0).await?;
        transaction.commit().await?;
        Ok(stored)
    }
}

/// The statement that stores a batch on PostgreSQL.
fn commit_postgres(stale: Stale) -> &'static str {
    static WHILE_NOTHING_CHANGES: LazyLock<String> =
        LazyLock::new(|| COMMIT_POSTGRES.replace("{current}", NOTHING_CHANGED));
    static WHILE_OTHERS_CHANGE: LazyLock<String> =
        LazyLock::new(|| COMMIT_POSTGRES.replace("{current}", NONE_OF_OURS_CHANGED));
    match stale {
        Stale::ByAnyChange => &WHILE_NOTHING_CHANGES,
        Stale::ByOwnChange => &WHILE_OTHERS_CHANGE,
    }
}

/// `{current}` of the statements that store a batch on SQLite, and its values.
fn current_sqlite(batch: &Commit<'_>) -> (&'static str, Vec<Value>) {
    let version = batch.routing_version;
    match batch.stale {
        Stale::ByAnyChange => (NOTHING_CHANGED_SQLITE, vec![version.into()]),
        Stale::ByOwnChange => {
            let names = batch.events.iter().map(|row| row.event.summary.organization.as_str());
            let names: BTreeSet<&str> = names.chain([""]).collect();
            let names = serde_json::to_string(&names).expect("names are JSON");
            let values = vec![version.into(), names.clone().into(), version.into(), names.into()];
            (NONE_OF_OURS_CHANGED_SQLITE, values)
        }
    }
}

/// A due row that anybody may claim now.
fn due_row(key: DeliveryKey, now: i64) -> Vec<Value> {
    vec![
        key.subscription.0.into(),
        key.event.0.into(),
        now.into(),
        0_i64.into(),
        0_i32.into(),
        0_i16.into(),
        0_i16.into(),
        false.into(),
    ]
}

fn parked(events: &[NewEventRow]) -> Vec<DeliveryKey> {
    let of = |row: &NewEventRow| {
        let event = row.event.summary.key;
        let delivery = move |&subscription: &SubscriptionKey| DeliveryKey { event, subscription };
        row.parked.iter().map(delivery).collect::<Vec<_>>()
    };
    events.iter().flat_map(of).collect()
}

/// Organization, id, key, hash, deliveries, and the data key that the hash is digested with.
type IdRow<'a> = (&'a str, &'a str, i64, [u8; 32], i32, i32);

/// Rows of `event_key` for the events whose publishers chose an id, sorted.
fn ids<'a>(events: &'a [NewEventRow], keys: &SealingKeys) -> Vec<IdRow<'a>> {
    let row = |row: &'a NewEventRow| -> Option<IdRow<'a>> {
        let summary = &row.event.summary;
        let plain = row.content_hash?;
        let (hash, key) = match keys.of(&summary.organization) {
            Some(key) => (key.digest(Digested::EventContent, &plain), key.id()),
            None => (plain, 0),
        };
        let deliveries = i32::try_from(row.targets.len()).unwrap_or(i32::MAX);
        Some((summary.organization.as_str(), &summary.id, summary.key.0, hash, deliveries, key))
    };
    let mut rows: Vec<IdRow<'a>> = events.iter().filter_map(row).collect();
    rows.sort_unstable();
    rows
}
