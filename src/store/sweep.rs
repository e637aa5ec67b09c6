//! Purging by age.
//!
//! A purge never reads all events. For each stage a cursor goes once over the events, in
//! the order of their keys, up to those that are too young; an event whose deliveries have
//! not been over for long enough is left behind in `retention_visit` with the moment from
//! which its time counts. So each event is looked at once, and once more for each time that
//! its deliveries took longer than it is kept: the hot path writes nothing for it. An
//! organization with times of its own has cursors of its own.
//!
//! Whoever holds the cursor's row goes on from there; other replicas pass by.

use std::time::Duration;

use sea_orm::{ConnectionTrait, Value};

use super::engine::column;
use super::link::Transaction;
use super::retention::EVERYBODY;
use super::standing::{STORED, Stored, Trace, deliveries, ends};
use super::{Store, StoreError};
use crate::domain::id::{EventKey, OrganizationId};
use crate::domain::retention::{Retention, Stage, Verdict};
use crate::domain::timestamp::Timestamp;

/// Deliveries that one portion goes over at most, where its first event has no more.
const DELIVERIES_MAX: usize = 10_000;
/// Most deliveries end within moments: cursors that stay back so far find them over.
const SLACK: Duration = Duration::from_mins(1);

/// What one portion of a purge has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Events that were purged.
    pub events: u64,
    /// By how much the one was late that was most.
    pub late: Duration,
    /// Whether there may be more.
    pub more: bool,
}

/// The organizations of `retention_visit`, each with the earliest moment from which an event
/// of it is kept: one step of the index an organization, whatever the number of rows.
const WAITING: &str = "
    WITH RECURSIVE waiting (organization) AS (
        SELECT min(organization_id) FROM retention_visit WHERE stage = $1
        UNION ALL
        SELECT (SELECT min(v.organization_id) FROM retention_visit v
                WHERE v.stage = $1 AND v.organization_id > waiting.organization)
        FROM waiting WHERE waiting.organization IS NOT NULL
    )
    SELECT organization, {now} AS now,
        (SELECT min(v.since) FROM retention_visit v
         WHERE v.stage = $1 AND v.organization_id = waiting.organization) AS since
    FROM waiting WHERE organization IS NOT NULL";

const VISIT_POSTGRES: &str = "
    INSERT INTO retention_visit (stage, event_key, organization_id, since)
    SELECT $1::int2, u.e, u.o, u.since FROM unnest($2::int8[], $3::text[], $4::int8[]) u (e, o, since)
    ON CONFLICT (stage, event_key) DO UPDATE SET since = excluded.since";
/// A look at everybody's events passes so many for each that it may purge.
const STRETCH: u64 = 20;
const VISIT_COLUMNS: &str =
    "INSERT INTO retention_visit (stage, event_key, organization_id, since)";
const VISIT_TAIL: &str = "ON CONFLICT (stage, event_key) DO UPDATE SET since = excluded.since";

impl Store {
    /// Goes on with one stage where its cursor is: over the events of `organization`, or for
    /// `None` of all that have no cursors of their own. At most `limit` events.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: nothing was changed; asking again is safe.
    pub async fn purge_passing(
        &self,
        organization: Option<&OrganizationId>,
        stage: Stage,
        limit: u32,
    ) -> Result<Purged, StoreError> {
        let name = organization.map_or(EVERYBODY, OrganizationId::as_str);
        let transaction = self.begin().await?;
        let Some(from) = self.hold_cursor(&transaction, name, stage).await? else {
            return Ok(Purged::default());
        };
        let retention = self.retention(&transaction).await?;
        let now = Timestamp(self.clock(&transaction).await?);
        let old = now.minus(retention.of(organization, stage)).minus(SLACK);
        let top = EventKey::first_at(old);
        let ceiling = match organization {
            Some(_) => top,
            None => self.stretch(&transaction, from, top, limit).await?,
        };
        let found = match organization {
            Some(_) => self.own_events(&transaction, name, from, ceiling, limit).await?,
            None => self.events_of_all(&transaction, &retention, from, ceiling, limit).await?,
        };
        let full = limit as usize <= found.len();
        let (events, cut) = portion(found);
        let more = full || cut;
        // Nothing that is taken in from now on has a key below the ceiling.
        let last = events.last().filter(|_| more).map(|event| event.key.0);
        let end = last.unwrap_or(ceiling.0.saturating_sub(1));
        let purged = self.visit_events(&transaction, stage, &retention, &events, now).await?;
        let position = position(stage);
        let sql = format!(
            "UPDATE retention SET {position} = $1 WHERE organization_id = $2 AND {position} < $1"
        );
        transaction.execute_raw(self.statement(&sql, vec![end.into(), name.into()])).await?;
        transaction.commit().await?;
        Ok(Purged { more: more || ceiling < top, ..purged })
    }

    /// Where a look at everybody's events from here ends: nearly all may belong to
    /// organizations with cursors of their own, and to pass them takes time as well.
    async fn stretch(
        &self,
        transaction: &Transaction,
        from: EventKey,
        top: EventKey,
        limit: u32,
    ) -> Result<EventKey, StoreError> {
        let sql = format!(
            "SELECT key FROM event WHERE key > $1 AND key < $2 ORDER BY key LIMIT 1 OFFSET {}",
            STRETCH * u64::from(limit)
        );
        let values = vec![from.0.into(), top.0.into()];
        let end = transaction.query_one_raw(self.statement(&sql, values)).await?;
        Ok(end.map(|row| column(&row, "key")).transpose()?.map_or(top, EventKey))
    }

    /// The organizations that have events which one stage has passed and must look at again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn purge_waiting(&self, stage: Stage) -> Result<Vec<OrganizationId>, StoreError> {
        let retention = self.retention(self.read()).await?;
        let values = vec![(stage as i16).into()];
        let mut waiting = Vec::new();
        for found in self.read().query_all_raw(self.statement(WAITING, values)).await? {
            let organization = OrganizationId::stored(&column::<String>(&found, "organization")?);
            let since = Timestamp(column(&found, "since")?);
            let keep = retention.of(Some(&organization), stage);
            if since.plus(keep) <= Timestamp(column(&found, "now")?) {
                waiting.push(organization);
            }
        }
        Ok(waiting)
    }

    /// Looks again at an organization's events that one stage has passed. At most `limit`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: nothing was changed; asking again is safe.
    pub async fn purge_again(
        &self,
        organization: &OrganizationId,
        stage: Stage,
        limit: u32,
    ) -> Result<Purged, StoreError> {
        let transaction = self.begin().await?;
        let retention = self.retention(&transaction).await?;
        let own = retention.own.contains_key(organization);
        let name = if own { organization.as_str() } else { EVERYBODY };
        if self.hold_cursor(&transaction, name, stage).await?.is_none() {
            return Ok(Purged::default());
        }
        let now = Timestamp(self.clock(&transaction).await?);
        let sql = format!(
            "SELECT event_key FROM retention_visit
             WHERE stage = $1 AND organization_id = $2 AND since <= $3
             ORDER BY since LIMIT {limit}"
        );
        let due = now.minus(retention.of(Some(organization), stage));
        let values = vec![(stage as i16).into(), organization.as_str().into(), due.0.into()];
        let rows = transaction.query_all_raw(self.statement(&sql, values)).await?;
        let keys = rows.iter().map(|found| column(found, "event_key"));
        let mut gone = keys.collect::<Result<Vec<i64>, _>>()?;
        let (list, values) = self.among(0, gone.iter().copied());
        let lock = self.lock_to_purge();
        let sql = format!("SELECT {STORED} FROM event WHERE key IN ({list}) ORDER BY key {lock}");
        let found = transaction.query_all_raw(self.statement(&sql, values)).await?;
        let found = found.iter().map(Stored::read).collect::<Result<Vec<_>, _>>()?;
        // Those without an event were purged otherwise.
        gone.retain(|key| !found.iter().any(|event| event.key.0 == *key));
        let (events, cut) = portion(found);
        self.forget_visits(&transaction, &[stage], gone).await?;
        self.forget_visits(&transaction, &[stage], events.iter().map(|event| event.key.0)).await?;
        let purged = self.visit_events(&transaction, stage, &retention, &events, now).await?;
        transaction.commit().await?;
        Ok(Purged { more: cut || limit as usize <= rows.len(), ..purged })
    }

    /// Where a stage's cursor is. `None`: another replica is at it. Nobody else purges what
    /// the cursor is for until the transaction ends.
    async fn hold_cursor(
        &self,
        transaction: &Transaction,
        name: &str,
        stage: Stage,
    ) -> Result<Option<EventKey>, StoreError> {
        let lock = if self.is_shared() { "FOR UPDATE SKIP LOCKED" } else { "" };
        let position = position(stage);
        let sql = format!(
            "SELECT {position} AS position FROM retention WHERE organization_id = $1 {lock}"
        );
        let cursor = transaction.query_one_raw(self.statement(&sql, vec![name.into()])).await?;
        cursor.map(|cursor| column(&cursor, "position").map(EventKey)).transpose()
    }

    /// Purges those of the events that are over, and notes the others.
    async fn visit_events(
        &self,
        transaction: &Transaction,
        stage: Stage,
        retention: &Retention,
        events: &[Stored],
        now: Timestamp,
    ) -> Result<Purged, StoreError> {
        let traces = self.traces(transaction, &deliveries(events)).await?;
        let ends = ends(events, &traces);
        let mut over = Vec::new();
        let mut again = Vec::new();
        let mut late = Duration::ZERO;
        for event in events {
            let Some(ends) = ends.get(&event.key) else { continue };
            let keep = retention.of(Some(&event.organization), stage);
            match ends.verdict(keep, now) {
                // Purged on demand: what came in later goes.
                _ if event.is_purged && stage == Stage::Payload => over.push(event),
                Verdict::Purge => {
                    late = late.max(now.since(ends.last.plus(keep)));
                    over.push(event);
                }
                Verdict::KeepFrom(since) => again.push((event, since)),
            }
        }
        self.visit_again(transaction, stage, &again).await?;
        let events = self.remove(transaction, stage, &over, &traces).await?;
        Ok(Purged { events, late, more: false })
    }

    /// Takes away what goes in this stage. The events ascend.
    async fn remove(
        &self,
        transaction: &Transaction,
        stage: Stage,
        over: &[&Stored],
        traces: &[Trace],
    ) -> Result<u64, StoreError> {
        if over.is_empty() {
            return Ok(0);
        }
        let is_over = |trace: &&Trace| {
            over.binary_search_by_key(&trace.delivery.event, |event| event.key).is_ok()
        };
        let traces: Vec<Trace> = traces.iter().filter(is_over).copied().collect();
        match stage {
            Stage::Payload => {
                let keys: Vec<EventKey> = over.iter().map(|event| event.key).collect();
                self.erase(transaction, &keys, &traces).await
            }
            Stage::Metadata => self.forget(transaction, over).await,
        }
    }

    /// These events are to be looked at again, once they were kept from then on.
    pub(super) async fn visit_again(
        &self,
        transaction: &Transaction,
        stage: Stage,
        events: &[(&Stored, Timestamp)],
    ) -> Result<(), StoreError> {
        let stage = stage as i16;
        if self.is_shared() && !events.is_empty() {
            let keys: Vec<i64> = events.iter().map(|(event, _)| event.key.0).collect();
            let organizations =
                events.iter().map(|(event, _)| event.organization.as_str().to_owned());
            let organizations: Vec<String> = organizations.collect();
            let since: Vec<i64> = events.iter().map(|(_, since)| since.0).collect();
            let values = vec![stage.into(), keys.into(), organizations.into(), since.into()];
            transaction.execute_raw(self.statement(VISIT_POSTGRES, values)).await?;
            return Ok(());
        }
        let row = |(event, since): &(&Stored, Timestamp)| -> Vec<Value> {
            let organization = event.organization.as_str();
            vec![stage.into(), event.key.0.into(), organization.into(), since.0.into()]
        };
        let rows = events.iter().map(row);
        self.insert_rows(transaction, VISIT_COLUMNS, 4, VISIT_TAIL, rows, events.len()).await?;
        Ok(())
    }

    /// The next events of one organization.
    async fn own_events(
        &self,
        transaction: &Transaction,
        organization: &str,
        from: EventKey,
        ceiling: EventKey,
        limit: u32,
    ) -> Result<Vec<Stored>, StoreError> {
        let lock = self.lock_to_purge();
        let sql = format!(
            "SELECT {STORED} FROM event WHERE organization_id = $1 AND key > $2 AND key < $3
             ORDER BY key LIMIT {limit} {lock}"
        );
        let values = vec![organization.into(), from.0.into(), ceiling.0.into()];
        let rows = transaction.query_all_raw(self.statement(&sql, values)).await?;
        rows.iter().map(Stored::read).collect()
    }

    /// The next events of all organizations without cursors of their own.
    async fn events_of_all(
        &self,
        transaction: &Transaction,
        retention: &Retention,
        from: EventKey,
        ceiling: EventKey,
        limit: u32,
    ) -> Result<Vec<Stored>, StoreError> {
        let own: Vec<String> = retention.own.keys().map(|one| one.as_str().to_owned()).collect();
        let (others, own): (_, Value) = if self.is_shared() {
            ("organization_id <> ALL($3::text[])", own.into())
        } else {
            let own = serde_json::to_string(&own).expect("strings are JSON");
            ("organization_id NOT IN (SELECT value FROM json_each($3))", own.into())
        };
        let lock = self.lock_to_purge();
        let sql = format!(
            "SELECT {STORED} FROM event WHERE key > $1 AND key < $2 AND {others}
             ORDER BY key LIMIT {limit} {lock}"
        );
        let values = vec![from.0.into(), ceiling.0.into(), own];
        let rows = transaction.query_all_raw(self.statement(&sql, values)).await?;
        rows.iter().map(Stored::read).collect()
    }

    /// Holds off retries of these events' deliveries, which lock them for update, until
    /// the transaction ends: either finds what the other has done. Settlements pass.
    fn lock_to_purge(&self) -> &'static str {
        if self.is_shared() { "FOR NO KEY UPDATE" } else { "" }
    }
}

/// The column of a stage's cursor.
fn position(stage: Stage) -> &'static str {
    match stage {
        Stage::Payload => "payload_key",
        Stage::Metadata => "metadata_key",
    }
}

/// The first of the events, with [`DELIVERIES_MAX`] deliveries at most, or one; and whether
/// some were left out.
fn portion(mut events: Vec<Stored>) -> (Vec<Stored>, bool) {
    let mut left = DELIVERIES_MAX;
    let fits = |event: &&Stored| {
        let fits = event.targets.len() <= left;
        left = left.saturating_sub(event.targets.len());
        fits
    };
    let fitting = events.iter().take_while(fits).count().max(1);
    let cut = fitting < events.len();
    events.truncate(fitting);
    (events, cut)
}
