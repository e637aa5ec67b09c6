//! The third hot write: what came of attempts.
//!
//! The healthy case, a first attempt that succeeded, is one appended row and
//! nothing else. Only what is not settled by its first attempt touches `due`.

use std::time::Duration;

use sea_orm::{ConnectionTrait, Value};

use super::commit::DUE_COLUMNS;
use super::data_key::SealingKeys;
use super::engine::ALONE_MAX;
use super::link::Transaction;
use super::replica::number;
use super::row::{AttemptRow, attempt_row};
use super::{EndpointNote, Fence, Store, StoreError};
use crate::domain::attempt::Attempt;
use crate::domain::delivery::DeadReason;
use crate::domain::failure_streak::Mark;
use crate::domain::id::{DeliveryKey, OrganizationId};

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
    /// What it says of its endpoint.
    pub note: EndpointNote,
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
        duration_us, error, response_body, response_key_id, response_version, trace_id, ours)
    SELECT u.* FROM me, unnest($3::int8[], $4::int8[], $5::int2[], $6::int2[], $7::int2[],
        $8::int8[], $9::int8[], $10::text[], $11::bytea[], $12::int4[], $13::int2[],
        $14::bytea[], $15::bool[]) u
    ON CONFLICT DO NOTHING";

const ATTEMPT_COLUMNS: &str = "INSERT INTO attempt (subscription_key, event_key, number, result,
    http_status, start_time, duration_us, error, response_body, response_key_id,
    response_version, trace_id, ours)";
/// What a small group on SQLite is inserted under: the fence, as in [`APPEND_POSTGRES`].
const APPEND_HELD_SQLITE: &str = "
    WHERE EXISTS (SELECT 1 FROM replica WHERE number = ? AND incarnation = ?)
    ON CONFLICT DO NOTHING";

impl Store {
    /// Records a batch of settlements, all or nothing. Sending the same batch again
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`]: nothing was recorded, another replica has these
    /// deliveries. [`StoreError::Unavailable`]: send the batch again.
    pub async fn settle(&self, fence: Fence, batch: &[Settlement]) -> Result<(), StoreError> {
        let healthy = |one: &Settlement| {
            one.next == Next::Succeeded && !one.in_due && one.note.mark == Mark::Nothing
        };
        let rows = self.recorded(batch).await?;
        if batch.iter().all(healthy) && (self.is_shared() || batch.len() <= ALONE_MAX) {
            return self.append_alone(fence, rows).await;
        }
        let transaction = self.begin().await?;
        self.hold(&transaction, fence).await?;
        self.append(&transaction, fence, rows).await?;
        self.follow_up(&transaction, fence, batch).await?;
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
        self.lock_events(&transaction, deliveries.iter().map(|key| key.event)).await?;
        self.insert_due(&transaction, deliveries, fence.incarnation, 0).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Adds due rows, due now, that `owner` has claimed (0: nobody), for those of the
    /// deliveries that have no trace yet: neither attempt nor due row nor end. Call it
    /// with their events locked: a person may be cancelling one.
    pub(super) async fn insert_due(
        &self,
        transaction: &Transaction,
        deliveries: &[DeliveryKey],
        owner: i64,
        takeovers: i16,
    ) -> Result<u64, StoreError> {
        let mut inserted = 0;
        for chunk in deliveries.chunks(2000) {
            let untraced = self.untraced(transaction, chunk).await?;
            inserted += self.insert_untraced(transaction, &untraced, owner, takeovers).await?;
        }
        Ok(inserted)
    }

    async fn insert_untraced(
        &self,
        transaction: &Transaction,
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

    /// The healthy case, in one statement that is its own transaction.
    async fn append_alone(
        &self,
        fence: Fence,
        rows: Vec<(DeliveryKey, AttemptRow)>,
    ) -> Result<(), StoreError> {
        let count = rows.len() as u64;
        let appended = if self.is_shared() {
            let statement = self.statement(APPEND_POSTGRES, append_values(fence, &rows));
            self.write().execute_raw(statement).await?.rows_affected()
        } else {
            let held = vec![number(fence).into(), fence.incarnation.into()];
            let rows = rows.into_iter().map(attempt_values).collect();
            self.insert_alone(ATTEMPT_COLUMNS, rows, APPEND_HELD_SQLITE, held).await?
        };
        // Fewer rows than attempts: some were there already, or the fence is gone.
        if appended < count && !self.is_registered(fence).await? {
            return Err(StoreError::Fenced);
        }
        Ok(())
    }

    async fn append(
        &self,
        transaction: &Transaction,
        fence: Fence,
        rows: Vec<(DeliveryKey, AttemptRow)>,
    ) -> Result<(), StoreError> {
        if self.is_shared() {
            let values = append_values(fence, &rows);
            transaction.execute_raw(self.statement(APPEND_POSTGRES, values)).await?;
            return Ok(());
        }
        let count = rows.len();
        let values = rows.into_iter().map(attempt_values);
        let tail = "ON CONFLICT DO NOTHING";
        self.insert_rows(transaction, ATTEMPT_COLUMNS, 13, tail, values, count).await?;
        Ok(())
    }

    /// The rows of the attempts, response bodies sealed. Where a data key does not open,
    /// the bodies are left out: an outcome must be recorded.
    async fn recorded(
        &self,
        batch: &[Settlement],
    ) -> Result<Vec<(DeliveryKey, AttemptRow)>, StoreError> {
        let has_body = |attempt: &Attempt| !attempt.response_body.is_empty();
        let with_body = batch.iter().filter(|one| one.attempt.as_ref().is_some_and(has_body));
        let (keys, locked) = match self.sealing_keys(with_body.map(|one| &one.organization)).await {
            Ok(keys) => (keys, false),
            Err(StoreError::Locked(why)) => {
                tracing::error!(%why, "response bodies are not kept");
                (SealingKeys::default(), true)
            }
            Err(error) => return Err(error),
        };
        let row = |one: &Settlement| {
            let made = one.attempt.as_ref()?;
            let key = keys.of(&one.organization);
            let mut row = attempt_row(made, one.delivery, &one.organization, key);
            if locked {
                row.response_body.clear();
            }
            Some((one.delivery, row))
        };
        Ok(batch.iter().filter_map(row).collect())
    }
}

/// One row, in the order of the insert's columns.
fn attempt_values((key, row): (DeliveryKey, AttemptRow)) -> Vec<Value> {
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
        row.response_key_id.into(),
        row.response_version.into(),
        row.trace_id.into(),
        row.ours.into(),
    ]
}

fn append_values(fence: Fence, rows: &[(DeliveryKey, AttemptRow)]) -> Vec<Value> {
    fn of<T>(rows: &[(DeliveryKey, AttemptRow)], column: impl Fn(&AttemptRow) -> T) -> Value
    where
        Vec<T>: Into<Value>,
    {
        rows.iter().map(|(_, row)| column(row)).collect::<Vec<T>>().into()
    }
    let [subscriptions, events] = keys(rows.iter().map(|(key, _)| *key));
    vec![
        number(fence).into(),
        fence.incarnation.into(),
        subscriptions,
        events,
        of(rows, |row| row.number),
        of(rows, |row| row.result),
        of(rows, |row| row.http_status),
        of(rows, |row| row.start_time),
        of(rows, |row| row.duration_us),
        of(rows, |row| row.error.clone()),
        of(rows, |row| row.response_body.clone()),
        of(rows, |row| row.response_key_id),
        of(rows, |row| row.response_version),
        of(rows, |row| row.trace_id.clone()),
        of(rows, |row| row.ours),
    ]
}

/// Deliveries as two arrays: subscriptions, events.
pub(super) fn keys(deliveries: impl Iterator<Item = DeliveryKey>) -> [Value; 2] {
    let (subscriptions, events): (Vec<i64>, Vec<i64>) =
        deliveries.map(|key| (key.subscription.0, key.event.0)).unzip();
    [subscriptions.into(), events.into()]
}
