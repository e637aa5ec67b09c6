//! The third hot write: what came of attempts.
//!
//! The healthy case, a first attempt that succeeded, is one appended row and
//! nothing else. Only what is not settled by its first attempt touches `due`.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseTransaction, Value};

use super::commit::DUE_COLUMNS;
use super::replica::number;
use super::row::{AttemptRow, attempt_row};
use super::{Fence, Store, StoreError};
use crate::domain::attempt::Attempt;
use crate::domain::delivery::{DeadReason, DeliveryState};
use crate::domain::id::{DeliveryKey, OrganizationId};
use crate::domain::timestamp::micros;

/// What to record of one claimed delivery.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Which.
    pub delivery: DeliveryKey,
    /// Whose.
    pub organization: OrganizationId,
    /// The claim's number; 0 for one that was claimed by its commit.
    pub claim: i32,
    /// Whether it has a `due` row owned by this replica.
    pub in_due: bool,
    /// The request that was made, if one was.
    pub attempt: Option<Attempt>,
    /// Attempts recorded, this one included.
    pub attempts: u32,
    /// Where the delivery goes from here.
    pub next: Next,
}

/// Where a delivery goes from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The end: the receiver has it.
    Succeeded,
    /// Back in line, this long from now by the database's clock.
    RetryIn(Duration),
    /// Back in line as it was, for anybody: nothing was tried.
    Release,
    /// The end: a dead letter.
    Dead(DeadReason),
    /// The end: its subscription is gone.
    Cancelled,
}

/// Appends attempts, for as long as this replica is registered. A row that is
/// there already (the same settlement sent twice) is left as it is.
const APPEND_POSTGRES: &str = "
    WITH me AS MATERIALIZED (
        SELECT 1 FROM replica WHERE number = $1 AND incarnation = $2 FOR KEY SHARE
    )
    INSERT INTO attempt (subscription_key, event_key, number, result, http_status, start_time,
        duration_us, error, response_body, trace_id)
    SELECT u.* FROM me, unnest($3::int8[], $4::int8[], $5::int2[], $6::int2[], $7::int2[],
        $8::int8[], $9::int8[], $10::text[], $11::bytea[], $12::bytea[]) u
    ON CONFLICT DO NOTHING";

const ATTEMPT_COLUMNS: &str = "INSERT INTO attempt (subscription_key, event_key, number, result,
    http_status, start_time, duration_us, error, response_body, trace_id)";

/// Takes ended deliveries out of `due`, where the claim is still this one's.
const END: &str =
    "DELETE FROM due WHERE subscription_key = $1 AND event_key = $2 AND owner = $3 AND claim = $4";

/// Puts a claimed delivery back in line, where the claim is still this one's.
const PUT_BACK: &str = "
    UPDATE due SET owner = 0, due_at = {now} + $5, attempts = $6, last_chance = false
    WHERE subscription_key = $1 AND event_key = $2 AND owner = $3 AND claim = $4";

/// Puts a claimed delivery back as it was.
const RELEASE: &str = "
    UPDATE due SET owner = 0
    WHERE subscription_key = $1 AND event_key = $2 AND owner = $3 AND claim = $4";

/// Puts a delivery in line whose first attempt failed. One that was cancelled
/// meanwhile stays so: the event's row, locked before this, holds off a
/// cancellation until the end of the transaction.
const PUT_IN_LINE: &str = "
    INSERT INTO due (subscription_key, event_key, due_at, owner, claim, attempts, takeovers, last_chance)
    SELECT $1, $2, {now} + $3, 0, 0, $4, 0, $5
    WHERE NOT EXISTS (SELECT 1 FROM undelivered u WHERE u.subscription_key = $1 AND u.event_key = $2)
    ON CONFLICT DO NOTHING";

/// Ends a delivery without success. One that was cancelled stays cancelled.
const GIVE_UP: &str = "
    INSERT INTO undelivered (subscription_key, event_key, organization_id, state, reason, end_time)
    VALUES ($1, $2, $3, $4, $5, {now}) ON CONFLICT DO NOTHING";

impl Store {
    /// Records a batch of settlements, all or nothing. Sending the same batch again
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`]: nothing was recorded, another replica has these
    /// deliveries. [`StoreError::Unavailable`]: send the batch again.
    pub async fn settle(&self, fence: Fence, batch: &[Settlement]) -> Result<(), StoreError> {
        let healthy = |one: &Settlement| one.next == Next::Succeeded && !one.in_due;
        if self.is_shared() && batch.iter().all(healthy) {
            return self.append_postgres(fence, batch).await;
        }
        let transaction = self.begin().await?;
        self.hold(&transaction, fence).await?;
        self.append(&transaction, fence, batch).await?;
        if self.is_shared() {
            lock_events(self, &transaction, batch).await?;
        }
        for one in batch {
            if !healthy(one) {
                self.follow_up(&transaction, fence, one).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Gives claimed deliveries that have waited long in this replica's memory a
    /// `due` row that it owns, so that its watermark can move past their events.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`]; [`StoreError::Unavailable`]: nothing was written.
    pub async fn spill(&self, fence: Fence, deliveries: &[DeliveryKey]) -> Result<(), StoreError> {
        let transaction = self.begin().await?;
        self.hold(&transaction, fence).await?;
        self.insert_due(&transaction, deliveries, fence.incarnation, 0).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Adds due rows, due now, that `owner` has claimed (0: nobody).
    pub(super) async fn insert_due(
        &self,
        transaction: &DatabaseTransaction,
        deliveries: &[DeliveryKey],
        owner: i64,
        takeovers: i16,
    ) -> Result<u64, StoreError> {
        if self.is_shared() {
            let sql =
                "INSERT INTO due (subscription_key, event_key, due_at, owner, claim, attempts,
                    takeovers, last_chance)
                SELECT u.s, u.e, {now}, $3, 0, 0, $4, false
                FROM unnest($1::int8[], $2::int8[]) u (s, e) ON CONFLICT DO NOTHING";
            let [subscriptions, events] = keys(deliveries.iter().copied());
            let values = vec![subscriptions, events, owner.into(), takeovers.into()];
            return Ok(transaction.execute_raw(self.statement(sql, values)).await?.rows_affected());
        }
        let now = self.clock(transaction).await?;
        let row = |key: &DeliveryKey| -> Vec<Value> {
            vec![
                key.subscription.0.into(),
                key.event.0.into(),
                now.into(),
                owner.into(),
                0_i32.into(),
                0_i16.into(),
                takeovers.into(),
                false.into(),
            ]
        };
        let rows = deliveries.iter().map(row);
        let tail = "ON CONFLICT DO NOTHING";
        self.insert_rows(transaction, DUE_COLUMNS, 8, tail, rows, deliveries.len()).await
    }

    async fn append_postgres(&self, fence: Fence, batch: &[Settlement]) -> Result<(), StoreError> {
        let (values, rows) = append_values(fence, batch);
        let statement = self.statement(APPEND_POSTGRES, values);
        let appended = self.write().execute_raw(statement).await?.rows_affected();
        // Fewer rows than attempts: some were there already, or the fence is gone.
        if appended < rows && !self.is_registered(fence).await? {
            return Err(StoreError::Fenced);
        }
        Ok(())
    }

    async fn append(
        &self,
        transaction: &DatabaseTransaction,
        fence: Fence,
        batch: &[Settlement],
    ) -> Result<(), StoreError> {
        if self.is_shared() {
            let (values, _) = append_values(fence, batch);
            transaction.execute_raw(self.statement(APPEND_POSTGRES, values)).await?;
            return Ok(());
        }
        let rows = recorded(batch);
        let count = rows.len();
        let values = rows.into_iter().map(|(key, row)| -> Vec<Value> {
            vec![
                key.subscription.0.into(),
                key.event.0.into(),
                row.number.into(),
                row.result.into(),
                row.http_status.into(),
                row.start_time.into(),
                row.duration_us.into(),
                row.error.into(),
                row.response_body.into(),
                row.trace_id.into(),
            ]
        });
        let tail = "ON CONFLICT DO NOTHING";
        self.insert_rows(transaction, ATTEMPT_COLUMNS, 10, tail, values, count).await?;
        Ok(())
    }

    /// Everything after a settlement's attempt row. Slower than the healthy path,
    /// one statement or two a delivery: these are the failures.
    async fn follow_up(
        &self,
        transaction: &DatabaseTransaction,
        fence: Fence,
        one: &Settlement,
    ) -> Result<(), StoreError> {
        let attempts = i16::try_from(one.attempts).unwrap_or(i16::MAX);
        let (subscription, event) = (one.delivery.subscription.0, one.delivery.event.0);
        let claim: Vec<Value> =
            vec![subscription.into(), event.into(), fence.incarnation.into(), one.claim.into()];
        let run = async |sql: &str, values: Vec<Value>| -> Result<bool, StoreError> {
            let result = transaction.execute_raw(self.statement(sql, values)).await?;
            Ok(0 < result.rows_affected())
        };
        let (state, reason) = match one.next {
            Next::RetryIn(wait) if one.in_due => {
                let mut values = claim;
                values.extend([micros(wait).into(), attempts.into()]);
                return run(PUT_BACK, values).await.map(drop);
            }
            Next::Release if one.in_due => return run(RELEASE, claim).await.map(drop),
            Next::RetryIn(_) | Next::Release => {
                let wait = if let Next::RetryIn(wait) = one.next { micros(wait) } else { 0 };
                let values =
                    [subscription.into(), event.into(), wait.into(), attempts.into(), false.into()];
                return run(PUT_IN_LINE, values.into()).await.map(drop);
            }
            Next::Succeeded => return run(END, claim).await.map(drop),
            Next::Dead(reason) => (DeliveryState::Dead, reason as i16),
            Next::Cancelled => (DeliveryState::Cancelled, 0),
        };
        if one.in_due && !run(END, claim).await? {
            return Ok(());
        }
        let values = [
            subscription.into(),
            event.into(),
            one.organization.as_str().into(),
            (state as i16).into(),
            reason.into(),
        ];
        run(GIVE_UP, values.into()).await.map(drop)
    }
}

/// Locks the events of deliveries that go in line for the first time, so that a
/// cancellation of one of them is either seen by this transaction or sees its rows.
async fn lock_events(
    store: &Store,
    transaction: &DatabaseTransaction,
    batch: &[Settlement],
) -> Result<(), StoreError> {
    let waits =
        |one: &&Settlement| !one.in_due && matches!(one.next, Next::RetryIn(_) | Next::Release);
    let mut events: Vec<i64> = batch.iter().filter(waits).map(|one| one.delivery.event.0).collect();
    if events.is_empty() {
        return Ok(());
    }
    events.sort_unstable();
    events.dedup();
    let sql = "SELECT key FROM event WHERE key = ANY($1) ORDER BY key FOR KEY SHARE";
    transaction.query_all_raw(store.statement(sql, vec![events.into()])).await?;
    Ok(())
}

fn recorded(batch: &[Settlement]) -> Vec<(DeliveryKey, AttemptRow)> {
    let row = |one: &Settlement| one.attempt.as_ref().map(|made| (one.delivery, attempt_row(made)));
    batch.iter().filter_map(row).collect()
}

fn append_values(fence: Fence, batch: &[Settlement]) -> (Vec<Value>, u64) {
    fn of<T>(rows: &[(DeliveryKey, AttemptRow)], column: impl Fn(&AttemptRow) -> T) -> Value
    where
        Vec<T>: Into<Value>,
    {
        rows.iter().map(|(_, row)| column(row)).collect::<Vec<T>>().into()
    }
    let rows = recorded(batch);
    let [subscriptions, events] = keys(rows.iter().map(|(key, _)| *key));
    let values = vec![
        number(fence),
        fence.incarnation.into(),
        subscriptions,
        events,
        of(&rows, |row| row.number),
        of(&rows, |row| row.result),
        of(&rows, |row| row.http_status),
        of(&rows, |row| row.start_time),
        of(&rows, |row| row.duration_us),
        of(&rows, |row| row.error.clone()),
        of(&rows, |row| row.response_body.clone()),
        of(&rows, |row| row.trace_id.clone()),
    ];
    (values, u64::try_from(rows.len()).unwrap_or(u64::MAX))
}

/// Deliveries as two arrays: subscriptions, events.
pub(super) fn keys(deliveries: impl Iterator<Item = DeliveryKey>) -> [Value; 2] {
    let (subscriptions, events): (Vec<i64>, Vec<i64>) =
        deliveries.map(|key| (key.subscription.0, key.event.0)).unzip();
    [subscriptions.into(), events.into()]
}
