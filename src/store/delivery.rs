//! One delivery: put together for people, tried again, cancelled.
//!
//! Nothing stores a delivery's state. It follows from what is there: a `due` row
//! (pending, or in flight when it is owned), else an `undelivered` row (dead or
//! cancelled), else an attempt that succeeded; a target without any of them is
//! under way for the first time, with the replica that took its event in.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};

use super::engine::column;
use super::entity::{attempt, due, undelivered};
use super::event::DELIVERED_EVENT;
use super::link::Transaction;
use super::request_log::{Answer, RequestRecord};
use super::settle::keys as pair_arrays;
use super::{Store, StoreError, row};
use crate::domain::attempt::{Attempt, AttemptResult};
use crate::domain::audit::NewAuditEntry;
use crate::domain::delivery::{DeadReason, Delivery, DeliveryState};
use crate::domain::event::EventSummary;
use crate::domain::id::{DeliveryKey, EventKey, OrganizationId, SubscriptionKey};
use crate::domain::timestamp::Timestamp;

/// Every column but the response body.
const ATTEMPT: &str = "subscription_key, event_key, number, result, http_status, start_time,
    duration_us, error, response_key_id, response_version, trace_id, ours";

/// Where the claims of a retried delivery begin: above those that count from zero, and
/// with room to count on.
const RETRY_CLAIMS: Range<i32> = 1_000_000..2_000_000_000;

/// What has become of what an event carries.
enum Carried {
    /// It is there.
    Readable,
    /// It was taken away.
    Purged,
    /// Its data key was.
    Shredded,
}

impl Store {
    /// One delivery.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] also when the event did not go to the subscription.
    pub async fn delivery(
        &self,
        organization: &OrganizationId,
        key: DeliveryKey,
    ) -> Result<Delivery, StoreError> {
        self.view(&self.snapshot(organization).await?, organization, key).await
    }

    /// A delivery's attempts with numbers above `after`, oldest first. A body that cannot
    /// be decrypted is left out.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`].
    pub async fn attempts(
        &self,
        organization: &OrganizationId,
        key: DeliveryKey,
        after: u32,
        limit: usize,
        with_body: bool,
    ) -> Result<Vec<Attempt>, StoreError> {
        let reading = self.reading(organization).await?;
        let targets = self.targets(&reading, organization, key.event).await?;
        if !targets.contains(&key.subscription) {
            return Err(StoreError::NotFound);
        }
        let body = if with_body { "response_body" } else { self.no_bytes() };
        let sql = format!(
            "SELECT {ATTEMPT}, {body} AS response_body FROM attempt
             WHERE subscription_key = $1 AND event_key = $2 AND number > $3
             ORDER BY number LIMIT $4"
        );
        let values = vec![
            key.subscription.0.into(),
            key.event.0.into(),
            i32::try_from(after).unwrap_or(i32::MAX).into(),
            i64::try_from(limit).unwrap_or(i64::MAX).into(),
        ];
        let rows = reading.query_all_raw(self.statement(&sql, values)).await?;
        if with_body {
            self.learn_keys_of(&reading, &rows, "response_key_id").await?;
        }
        let read = |found| {
            let model = attempt::Model::from_query_result(found, "")?;
            row::attempt(&self.inner.vault, organization, model)
        };
        rows.iter().map(read).collect()
    }

    /// Puts an ended delivery back in line for one more attempt, whose failure is
    /// final. `respond` encodes the answer.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::RequestIdReused`];
    /// [`StoreError::Purged`] when its payload is gone, [`StoreError::Shredded`] when the
    /// payload's data key is; [`StoreError::WrongState`] when it has not ended, or its
    /// subscription takes nothing.
    pub async fn retry_delivery(
        &self,
        organization: &OrganizationId,
        key: DeliveryKey,
        request: Option<RequestRecord>,
        entry: &NewAuditEntry,
        respond: impl Fn(&Delivery) -> Vec<u8>,
    ) -> Result<Answer<Delivery>, StoreError> {
        let request = request.as_ref();
        let made = self.try_retry(organization, key, request, entry, respond).await;
        self.or_twin(organization, request, made).await
    }

    async fn try_retry(
        &self,
        organization: &OrganizationId,
        key: DeliveryKey,
        request: Option<&RequestRecord>,
        entry: &NewAuditEntry,
        respond: impl Fn(&Delivery) -> Vec<u8>,
    ) -> Result<Answer<Delivery>, StoreError> {
        let transaction = self.begin_for(organization).await?;
        let carried = self.lock_event(&transaction, organization, key.event).await?;
        if let Some(before) = self.answered(&transaction, organization, request).await? {
            return Ok(before);
        }
        let delivery = self.view(&transaction, organization, key).await?;
        if !is_ended(delivery.state) {
            return Err(StoreError::WrongState("the delivery has not ended"));
        }
        match carried {
            Carried::Readable => {}
            Carried::Purged => return Err(StoreError::Purged),
            Carried::Shredded => return Err(StoreError::Shredded),
        }
        let now = Timestamp(self.clock(&transaction).await?);
        if delivery.event.expire_time.is_some_and(|expire_time| expire_time <= now) {
            return Err(StoreError::WrongState("the event has expired"));
        }
        match self.live(&transaction, organization, key.subscription).await {
            Ok(subscription) if subscription.state.takes_events() => {}
            Ok(_) => return Err(StoreError::WrongState("the subscription is not active")),
            Err(StoreError::NotFound) => {
                return Err(StoreError::WrongState("the subscription is deleted"));
            }
            Err(error) => return Err(error),
        }
        let pair = [Value::from(key.subscription.0), Value::from(key.event.0)];
        let end = "DELETE FROM undelivered WHERE subscription_key = $1 AND event_key = $2
            RETURNING state, reason";
        let ended = transaction.query_one_raw(self.statement(end, pair.to_vec())).await?;
        let given_out = match ended {
            Some(ended) if column::<i16>(&ended, "state")? == DeliveryState::Cancelled as i16 => {
                column::<i16>(&ended, "reason")?
            }
            Some(_) | None => 0,
        };
        // The claim's number starts where an earlier claim of this delivery is by chance
        // only, one in a billion, also of a retry a moment ago; and an attempt that may
        // still be under way keeps its own number: what it settles later changes nothing
        // of this one.
        let again = "
            INSERT INTO due (subscription_key, event_key, due_at, owner, claim, attempts,
                takeovers, last_chance)
            VALUES ($1, $2, {now}, 0, $5, $3, 0, $4)";
        let attempts = last_number(&delivery).max(given_out);
        let claim = fastrand::i32(RETRY_CLAIMS);
        let mut values = pair.to_vec();
        values.extend([attempts.into(), true.into(), claim.into()]);
        transaction.execute_raw(self.statement(again, values)).await?;
        let delivery = self.view(&transaction, organization, key).await?;
        let response = respond(&delivery);
        self.remember(&transaction, organization, request, response, None).await?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        Ok(Answer::Now(delivery))
    }

    /// Gives an open delivery up. One that is cancelled already is returned as it is.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]; [`StoreError::WrongState`] when it has ended.
    pub async fn cancel_delivery(
        &self,
        organization: &OrganizationId,
        key: DeliveryKey,
        entry: &NewAuditEntry,
    ) -> Result<Delivery, StoreError> {
        let transaction = self.begin_for(organization).await?;
        self.lock_event(&transaction, organization, key.event).await?;
        let mut values = vec![key.subscription.0.into(), key.event.0.into()];
        // Taken out before it is looked at: a settlement that ends it now has its say.
        let leave = "DELETE FROM due WHERE subscription_key = $1 AND event_key = $2
            RETURNING owner, attempts";
        let left = transaction.query_one_raw(self.statement(leave, values.clone())).await?;
        // The number of the last attempt that may have been made: the next one, made
        // after a retry, must have another.
        let given_out = if let Some(left) = left {
            let under_way = column::<i64>(&left, "owner")? != 0;
            column::<i16>(&left, "attempts")?.saturating_add(under_way.into())
        } else {
            let delivery = self.view(&transaction, organization, key).await?;
            match delivery.state {
                DeliveryState::Cancelled => {
                    self.audit(&transaction, &entry.without_change()).await?;
                    transaction.commit().await?;
                    return Ok(delivery);
                }
                DeliveryState::Succeeded | DeliveryState::Dead => {
                    return Err(StoreError::WrongState("the delivery has ended"));
                }
                DeliveryState::Pending | DeliveryState::InFlight => {
                    last_number(&delivery).saturating_add(1)
                }
            }
        };
        let end = "
            INSERT INTO undelivered (subscription_key, event_key, organization_id, state, reason,
                end_time)
            VALUES ($1, $2, $3, $4, $5, {now})";
        let state = DeliveryState::Cancelled as i16;
        values.extend([organization.as_str().into(), state.into(), given_out.into()]);
        transaction.execute_raw(self.statement(end, values)).await?;
        let delivery = self.view(&transaction, organization, key).await?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        Ok(delivery)
    }

    /// Locks an event's row against settlements that would put one of its deliveries
    /// in line (they lock it FOR KEY SHARE), and against twins of this change. Tells
    /// what has become of its payload.
    async fn lock_event(
        &self,
        transaction: &Transaction,
        organization: &OrganizationId,
        key: EventKey,
    ) -> Result<Carried, StoreError> {
        let lock = if self.is_shared() { "FOR UPDATE" } else { "" };
        let sql = format!(
            "SELECT payload IS NOT NULL AS there, payload_key_id FROM event
             WHERE key = $1 AND organization_id = $2 {lock}"
        );
        let values = vec![key.0.into(), organization.as_str().into()];
        let found = transaction.query_one_raw(self.statement(&sql, values)).await?;
        let found = found.ok_or(StoreError::NotFound)?;
        if !column::<bool>(&found, "there")? {
            return Ok(Carried::Purged);
        }
        let key_id = column(&found, "payload_key_id")?;
        self.learn_keys(transaction, [key_id]).await?;
        let readable = key_id == 0 || self.inner.vault.key(key_id).is_some();
        Ok(if readable { Carried::Readable } else { Carried::Shredded })
    }

    async fn view(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        key: DeliveryKey,
    ) -> Result<Delivery, StoreError> {
        let views = self.views(connection, organization, &[key]).await?;
        views.into_iter().next().ok_or(StoreError::NotFound)
    }

    /// The deliveries of `keys`, in their order; what is not one of the
    /// organization's deliveries is left out. Four statements, however many keys.
    pub(super) async fn views(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        keys: &[DeliveryKey],
    ) -> Result<Vec<Delivery>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut parts = Parts {
            events: self.targeted_events(connection, organization, keys).await?,
            ..Parts::default()
        };
        for found in connection.query_all_raw(self.rows_of(keys, "*", "due")).await? {
            let found = due::Model::from_query_result(&found, "")?;
            parts.due.insert(pair_of(found.subscription_key, found.event_key), found);
        }
        for found in connection.query_all_raw(self.rows_of(keys, "*", "undelivered")).await? {
            let found = undelivered::Model::from_query_result(&found, "")?;
            parts.undelivered.insert(pair_of(found.subscription_key, found.event_key), found);
        }
        let columns = format!("{ATTEMPT}, {} AS response_body", self.no_bytes());
        for found in connection.query_all_raw(self.rows_of(keys, &columns, "attempt")).await? {
            let found = attempt::Model::from_query_result(&found, "")?;
            let key = pair_of(found.subscription_key, found.event_key);
            let attempt = row::attempt(&self.inner.vault, organization, found)?;
            parts.attempts.entry(key).or_default().push(attempt);
        }
        keys.iter().filter_map(|key| parts.delivery(*key).transpose()).collect()
    }

    /// The rows of some deliveries.
    fn rows_of(&self, keys: &[DeliveryKey], columns: &str, table: &str) -> Statement {
        if self.is_shared() {
            // OFFSET 0 keeps the planner from joining the whole table instead of
            // looking each pair up by the primary key.
            let sql = format!(
                "SELECT found.* FROM unnest($1::int8[], $2::int8[]) wanted (s, e)
                 CROSS JOIN LATERAL (
                     SELECT {columns} FROM {table}
                     WHERE subscription_key = wanted.s AND event_key = wanted.e OFFSET 0) found"
            );
            return self.statement(&sql, pair_arrays(keys.iter().copied()).into());
        }
        // SQLite would scan the whole table for `(…, …) IN (VALUES …)`; CROSS JOIN
        // fixes the order of the loops.
        let pairs = Store::pairs(keys.len());
        let sql = format!(
            "WITH wanted (s, e) AS ({pairs}) SELECT {columns} FROM wanted CROSS JOIN {table}
             WHERE subscription_key = s AND event_key = e"
        );
        let pair = |key: &DeliveryKey| [Value::from(key.subscription.0), key.event.0.into()];
        self.statement(&sql, keys.iter().flat_map(pair).collect())
    }

    async fn targeted_events(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        keys: &[DeliveryKey],
    ) -> Result<HashMap<EventKey, (EventSummary, HashSet<SubscriptionKey>)>, StoreError> {
        let mut events: Vec<i64> = keys.iter().map(|key| key.event.0).collect();
        events.sort_unstable();
        events.dedup();
        let (list, keys) = self.among(1, events);
        let sql = format!(
            "SELECT {DELIVERED_EVENT} FROM event WHERE organization_id = $1 AND key IN ({list})"
        );
        let mut values = vec![organization.as_str().into()];
        values.extend(keys);
        let mut found = HashMap::new();
        for row in connection.query_all_raw(self.statement(&sql, values)).await? {
            let targets = row::unpack(&column::<Vec<u8>>(&row, "targets")?);
            let event = self.read_event(&row)?.summary;
            found.insert(event.key, (event, targets.into_iter().collect()));
        }
        Ok(found)
    }

    /// The subscriptions that an event went to, ascending.
    pub(super) async fn targets(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        key: EventKey,
    ) -> Result<Vec<SubscriptionKey>, StoreError> {
        let sql = "SELECT targets FROM event WHERE key = $1 AND organization_id = $2";
        let values = vec![key.0.into(), organization.as_str().into()];
        let found = connection.query_one_raw(self.statement(sql, values)).await?;
        let found = found.ok_or(StoreError::NotFound)?;
        Ok(row::unpack(&column::<Vec<u8>>(&found, "targets")?))
    }

    /// An empty byte string in this engine's spelling.
    fn no_bytes(&self) -> &'static str {
        if self.is_shared() { r"'\x'::bytea" } else { "x''" }
    }
}

/// What deliveries are put together from.
#[derive(Default)]
struct Parts {
    /// With the subscriptions that each went to.
    events: HashMap<EventKey, (EventSummary, HashSet<SubscriptionKey>)>,
    due: HashMap<DeliveryKey, due::Model>,
    undelivered: HashMap<DeliveryKey, undelivered::Model>,
    attempts: HashMap<DeliveryKey, Vec<Attempt>>,
}

impl Parts {
    fn delivery(&mut self, key: DeliveryKey) -> Result<Option<Delivery>, StoreError> {
        let Some((event, targets)) = self.events.get(&key.event) else { return Ok(None) };
        if !targets.contains(&key.subscription) {
            return Ok(None);
        }
        let mut attempts = self.attempts.remove(&key).unwrap_or_default();
        attempts.sort_unstable_by_key(|attempt| attempt.number);
        let succeeded = attempts.iter().rfind(|one| one.result == AttemptResult::Succeeded);
        let (mut next_attempt_time, mut dead_reason, mut end_time) = (None, None, None);
        let state = if let Some(due) = self.due.get(&key) {
            if due.owner == 0 {
                next_attempt_time = Some(Timestamp(due.due_at));
                DeliveryState::Pending
            } else {
                DeliveryState::InFlight
            }
        } else if let Some(end) = self.undelivered.get(&key) {
            end_time = Some(Timestamp(end.end_time));
            if end.state == DeliveryState::Dead as i16 {
                dead_reason =
                    Some(DeadReason::stored(end.reason).ok_or(StoreError::Corrupt("reason"))?);
                DeliveryState::Dead
            } else {
                DeliveryState::Cancelled
            }
        } else if let Some(success) = succeeded {
            end_time = Some(end_of(success));
            DeliveryState::Succeeded
        } else {
            DeliveryState::InFlight
        };
        let attempt_count = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
        let last_attempt = attempts.pop();
        let last_end = last_attempt.as_ref().map(end_of);
        let update_time = event.publish_time.max(last_end.max(end_time).unwrap_or_default());
        Ok(Some(Delivery {
            event: event.clone(),
            subscription: key.subscription,
            state,
            attempt_count,
            next_attempt_time,
            last_attempt,
            dead_reason,
            end_time,
            update_time,
        }))
    }
}

fn pair_of(subscription: i64, event: i64) -> DeliveryKey {
    DeliveryKey { event: EventKey(event), subscription: SubscriptionKey(subscription) }
}

/// The number of the last attempt on record; 0 before the first.
fn last_number(delivery: &Delivery) -> i16 {
    let last = delivery.last_attempt.as_ref().map_or(0, |attempt| attempt.number);
    i16::try_from(last).unwrap_or(i16::MAX)
}

fn end_of(attempt: &Attempt) -> Timestamp {
    attempt.start_time.plus(attempt.duration)
}

fn is_ended(state: DeliveryState) -> bool {
    match state {
        DeliveryState::Succeeded | DeliveryState::Dead | DeliveryState::Cancelled => true,
        DeliveryState::Pending | DeliveryState::InFlight => false,
    }
}
