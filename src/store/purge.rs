//! Purging on demand: what events carry goes at once, and nothing more is sent of it.
//!
//! An event's row and its attempts stay; its payload, its attributes, its subject and what
//! receivers answered do not. Open deliveries of it are cancelled in the same transaction,
//! so that nobody claims, retries or takes over what has nothing to send.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use sea_orm::{ConnectionTrait, QueryResult, Value};

use super::engine::column;
use super::link::Transaction;
use super::standing::{STORED, Stored, Trace, deliveries};
use super::{Store, StoreError};
use crate::domain::audit::NewAuditEntry;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::Event;
use crate::domain::id::{DeliveryKey, EventKey, OrganizationId, SubscriptionKey};
use crate::domain::retention::Stage;
use crate::domain::timestamp::Timestamp;

/// Events that one look of a purge by subject goes through, and how many looks one call takes.
const CHUNK: usize = 1000;
/// Events that a transaction purges on demand, on PostgreSQL and on SQLite, which has one
/// writer: of an organization of a thousand subscriptions their deliveries are many.
const PART: usize = 100;
const PART_SQLITE: usize = 10;
const CHUNKS: usize = 20;
/// A request that was under way during the purge has recorded by then what it was answered:
/// it takes 30 seconds at most.
const LATE: Duration = Duration::from_mins(2);

/// What a call of a purge by subject has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectPurge {
    /// Events that carry nothing any more.
    pub purged: u64,
    /// Where to go on; `None`: that was all.
    pub next: Option<EventKey>,
}

/// Takes deliveries of one event out of line, whoever holds them.
const LEAVE_POSTGRES: &str = "
    DELETE FROM due USING unnest($1::int8[], $2::int8[]) u (s, e)
    WHERE due.subscription_key = u.s AND due.event_key = u.e
      AND due.event_key >= $3 AND due.event_key <= $4
    RETURNING due.subscription_key, due.event_key, due.owner, due.attempts";
const LEAVE_SQLITE: &str = "
    DELETE FROM due
    WHERE subscription_key IN (SELECT value FROM json_each($1)) AND event_key = $2
    RETURNING subscription_key, event_key, owner, attempts";

const FORGET_BODIES_POSTGRES: &str = r"
    UPDATE attempt SET response_body = '\x'::bytea FROM unnest($1::int8[], $2::int8[]) u (s, e)
    WHERE attempt.subscription_key = u.s AND attempt.event_key = u.e
      AND attempt.event_key >= $3 AND attempt.event_key <= $4
      AND length(attempt.response_body) > 0";
const FORGET_BODIES_SQLITE: &str = "
    UPDATE attempt SET response_body = x''
    WHERE subscription_key IN (SELECT value FROM json_each($1)) AND event_key = $2
      AND length(response_body) > 0";

impl Store {
    /// Purges one event, and leaves `entry`. Gives it as it is then; one that was purged
    /// before stays so.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`].
    pub async fn purge_event(
        &self,
        organization: &OrganizationId,
        id: &str,
        entry: &NewAuditEntry,
    ) -> Result<Event, StoreError> {
        let key = self.event_key_of(organization, id).await?;
        let transaction = self.begin_for(organization).await?;
        let purged = self.purge_now(&transaction, organization, &[key]).await?;
        let unchanged = entry.without_change();
        let is_new = purged.ok_or(StoreError::NotFound)? != 0;
        self.audit(&transaction, if is_new { entry } else { &unchanged }).await?;
        transaction.commit().await?;
        self.truncate_log().await?;
        self.event_by_id(organization, id, false).await
    }

    /// Purges the organization's events about `subject`, newest first, from below `before`.
    /// Looks at 20,000 events at most; what is published meanwhile is not looked at. What
    /// one transaction purges leaves `entry`, with the ids; a call that found none leaves it
    /// alone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: some may be purged; asking again is safe.
    pub async fn purge_subject(
        &self,
        organization: &OrganizationId,
        subject: &str,
        before: Option<EventKey>,
        entry: &NewAuditEntry,
    ) -> Result<SubjectPurge, StoreError> {
        let mut below = before.unwrap_or(EventKey(i64::MAX));
        let mut purged = 0;
        let mut is_recorded = false;
        let mut next = None;
        for _ in 0..CHUNKS {
            // Anew each time: the organization may get a key meanwhile, and marks with it.
            let (floor, marks) = self.traces_of(organization, subject).await?;
            let rows = self.marked(organization, &marks, floor..below).await?;
            let (mut about, mut ids) = (Vec::new(), Vec::new());
            for found in &rows {
                below = EventKey(column(found, "key")?);
                if column(found, "about")? {
                    about.push(below);
                    let id: String = column(found, "event_id")?;
                    ids.push(if id.is_empty() { self.ids().event(below) } else { id });
                }
            }
            // Each may go to every subscription that there is.
            let part = if self.is_shared() { PART } else { PART_SQLITE };
            for (about, ids) in about.chunks(part).zip(ids.chunks(part)) {
                let transaction = self.begin_for(organization).await?;
                let there = self.purge_now(&transaction, organization, about).await?;
                let there = there.unwrap_or_default();
                let entry = if there == 0 { entry.without_change() } else { entry.clone() };
                self.audit(&transaction, &NewAuditEntry { object_ids: ids.to_vec(), ..entry })
                    .await?;
                transaction.commit().await?;
                is_recorded = true;
                purged += there;
            }
            next = (rows.len() == CHUNK).then_some(below);
            if next.is_none() {
                break;
            }
        }
        if !is_recorded {
            self.audit_alone(&entry.without_change()).await?;
        }
        // Also where nothing was left to purge: an earlier call may have failed right here.
        self.truncate_log().await?;
        Ok(SubjectPurge { purged, next })
    }

    /// From which event on something may be kept about a subject, and what stands for it
    /// there: itself, or its digests in the rows of sealed events.
    async fn traces_of(
        &self,
        organization: &OrganizationId,
        subject: &str,
    ) -> Result<(EventKey, Vec<String>), StoreError> {
        let reading = self.reading(organization).await?;
        let floor = self.oldest_unpurged(&reading, organization).await?;
        Ok((floor, self.subject_marks(&reading, organization, subject).await?))
    }

    /// The newest thousand events with keys in `range`, each with whether one of the marks is
    /// its subject. Purged ones have none any more.
    async fn marked(
        &self,
        organization: &OrganizationId,
        marks: &[String],
        range: Range<EventKey>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let places = Store::list_from(3, marks.len());
        let sql = format!(
            "SELECT key, event_id, subject IN ({places}) AS about FROM event
             WHERE organization_id = $1 AND key < $2 AND key >= $3
             ORDER BY key DESC LIMIT {CHUNK}"
        );
        let (floor, below) = (range.start.0, range.end.0);
        let mut values: Vec<Value> = vec![organization.as_str().into(), below.into(), floor.into()];
        values.extend(marks.iter().map(|mark| Value::from(mark.as_str())));
        let reading = self.reading(organization).await?;
        Ok(reading.query_all_raw(self.statement(&sql, values)).await?)
    }

    /// Purges events and cancels what is open of them. Tells how many were not purged yet;
    /// `None` when none of them is there.
    pub(super) async fn purge_now(
        &self,
        transaction: &Transaction,
        organization: &OrganizationId,
        keys: &[EventKey],
    ) -> Result<Option<u64>, StoreError> {
        let (list, values) = self.among(1, keys.iter().map(|key| key.0));
        let lock = if self.is_shared() { "FOR UPDATE" } else { "" };
        let sql = format!(
            "SELECT {STORED} FROM event WHERE organization_id = $1 AND key IN ({list})
             ORDER BY key {lock}"
        );
        let mut all = vec![Value::from(organization.as_str())];
        all.extend(values);
        let rows = transaction.query_all_raw(self.statement(&sql, all)).await?;
        let events = rows.iter().map(Stored::read).collect::<Result<Vec<_>, _>>()?;
        if events.is_empty() {
            return Ok(None);
        }
        let traces = self.cancel_open(transaction, organization, &events).await?;
        let now = Timestamp(self.clock(transaction).await?);
        // As if it had ended long ago, so that its turn is in a while.
        let keep = self.retention(transaction).await?.of(Some(organization), Stage::Payload);
        let since = now.minus(keep).plus(LATE);
        let visits: Vec<_> = events.iter().map(|event| (event, since)).collect();
        self.visit_again(transaction, Stage::Payload, &visits).await?;
        let keys: Vec<EventKey> = events.iter().map(|event| event.key).collect();
        self.erase(transaction, &keys, &traces).await.map(Some)
    }

    /// Cancels the open deliveries of these events, which are locked; tells how all of them
    /// stood.
    async fn cancel_open(
        &self,
        transaction: &Transaction,
        organization: &OrganizationId,
        events: &[Stored],
    ) -> Result<Vec<Trace>, StoreError> {
        let deliveries = deliveries(events);
        // Taken out before they are looked at: a settlement that ends one now has its say.
        let left =
            self.over_deliveries(transaction, &deliveries, LEAVE_POSTGRES, LEAVE_SQLITE).await?;
        let mut open = HashMap::with_capacity(left.len());
        for found in &left {
            let delivery = DeliveryKey {
                event: EventKey(column(found, "event_key")?),
                subscription: SubscriptionKey(column(found, "subscription_key")?),
            };
            let under_way = column::<i64>(found, "owner")? != 0;
            let attempts: i16 = column(found, "attempts")?;
            open.insert(delivery, attempts.saturating_add(under_way.into()));
        }
        let traces = self.traces(transaction, &deliveries).await?;
        for trace in traces.iter().filter(|trace| trace.is_open()) {
            // Under way for the first time, which no row tells: it has the next number.
            open.entry(trace.delivery).or_insert_with(|| trace.number.saturating_add(1));
        }
        let now = self.clock(transaction).await?;
        // The number of the last attempt that may have been made, as of every cancelled one.
        let row = |(delivery, given_out): (DeliveryKey, i16)| -> Vec<Value> {
            vec![
                delivery.subscription.0.into(),
                delivery.event.0.into(),
                organization.as_str().into(),
                (DeliveryState::Cancelled as i16).into(),
                given_out.into(),
                now.into(),
            ]
        };
        self.insert_ended(transaction, open.into_iter().map(row).collect()).await?;
        Ok(traces)
    }

    /// Takes away what the events carry, and what `traces` say that receivers answered.
    /// Tells of how many events it was there.
    pub(super) async fn erase(
        &self,
        transaction: &Transaction,
        events: &[EventKey],
        traces: &[Trace],
    ) -> Result<u64, StoreError> {
        let (list, values) = self.among(0, events.iter().map(|key| key.0));
        let sql = format!(
            "UPDATE event SET payload = NULL, attributes = '', subject = '', purge_time = {{now}}
             WHERE key IN ({list}) AND purge_time = 0"
        );
        let erased = transaction.execute_raw(self.statement(&sql, values)).await?.rows_affected();
        let answered = traces.iter().filter(|trace| trace.has_body);
        let answered: Vec<DeliveryKey> = answered.map(|trace| trace.delivery).collect();
        self.over_deliveries(transaction, &answered, FORGET_BODIES_POSTGRES, FORGET_BODIES_SQLITE)
            .await?;
        Ok(erased)
    }

    /// No event of the organization that is not purged has a smaller key.
    async fn oldest_unpurged(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
    ) -> Result<EventKey, StoreError> {
        let sql = "SELECT min(event_key) AS waits,
                (SELECT payload_key FROM retention WHERE organization_id IN ($1, '')
                 ORDER BY organization_id DESC LIMIT 1) AS passed
            FROM retention_visit WHERE stage = $2 AND organization_id = $1";
        let values = vec![organization.as_str().into(), (Stage::Payload as i16).into()];
        let found = connection.query_one_raw(self.statement(sql, values)).await?;
        let found = found.ok_or(StoreError::Corrupt("retention"))?;
        let passed: i64 = column(&found, "passed")?;
        let waits: Option<i64> = column(&found, "waits")?;
        Ok(EventKey(waits.map_or(passed, |waits| waits.min(passed))))
    }

    /// On SQLite: leaves nothing of what was purged in the log beside the file, into which
    /// it was written when it came. On PostgreSQL the log is the operator's.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn truncate_log(&self) -> Result<(), StoreError> {
        if !self.is_shared() {
            let truncate = self.statement("PRAGMA wal_checkpoint(TRUNCATE)", Vec::new());
            let told = self.write().query_one_raw(truncate).await?;
            // A reader in its way is no error to SQLite.
            let busy: i32 = told.map(|row| column(&row, "busy")).transpose()?.unwrap_or_default();
            if busy != 0 {
                let why = "somebody reads the log of SQLite: it still holds what was purged";
                return Err(StoreError::Unavailable(why.into()));
            }
        }
        Ok(())
    }
}
