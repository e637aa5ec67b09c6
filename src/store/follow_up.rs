//! What settlements change beside their attempt rows: the slower half, for everything
//! that was not settled by its first attempt.
//!
//! PostgreSQL takes each kind of change as one statement over arrays, whatever the
//! batch size. SQLite, in the same process, takes them one by one.

use std::collections::{BTreeMap, HashSet};

use sea_orm::{ConnectionTrait, QueryResult, Value};

use super::engine::{column, json};
use super::link::Transaction;
use super::settle::keys;
use super::{Fence, Next, Settlement, Store, StoreError};
use crate::domain::delivery::DeliveryState;
use crate::domain::id::{DeliveryKey, EventKey, SubscriptionKey};
use crate::domain::timestamp::micros;

/// Takes ended deliveries out of `due`, where the claim is still this one's.
const END_POSTGRES: &str = "
    DELETE FROM due USING unnest($1::int8[], $2::int8[], $3::int4[]) u (s, e, claim)
    WHERE due.subscription_key = u.s AND due.event_key = u.e AND due.claim = u.claim
      AND due.owner = $4";
/// The same for deliveries of one subscription with the same claim number, which what
/// drains from a backlog has in common.
const END_SQLITE: &str = "
    DELETE FROM due WHERE subscription_key = $1 AND claim = $2 AND owner = $3
      AND event_key IN (SELECT value FROM json_each($4))";
/// Which of them it were. Asked only where something hangs on it: each row of an answer
/// costs about as much as its deletion.
const ENDED: &str = " RETURNING due.subscription_key, due.event_key, due.claim";

/// Puts claimed deliveries back in line, where the claim is still this one's. One whose
/// next failure is final comes here only untried, and stays as it is.
const PUT_BACK_POSTGRES: &str = "
    UPDATE due SET owner = 0, due_at = {now} + u.wait, attempts = u.attempts, takeovers = 0
    FROM unnest($1::int8[], $2::int8[], $3::int4[], $5::int8[], $6::int2[])
        u (s, e, claim, wait, attempts)
    WHERE due.subscription_key = u.s AND due.event_key = u.e AND due.claim = u.claim
      AND due.owner = $4";
const PUT_BACK_SQLITE: &str = "
    UPDATE due SET owner = 0, due_at = {now} + $5, attempts = $6, takeovers = 0
    WHERE subscription_key = $1 AND event_key = $2 AND claim = $3 AND owner = $4";

/// Puts claimed deliveries back as they were; `{later}` may give them another time.
const RELEASE_POSTGRES: &str = "
    UPDATE due SET owner = 0{later} FROM unnest($1::int8[], $2::int8[], $3::int4[]) u (s, e, claim)
    WHERE due.subscription_key = u.s AND due.event_key = u.e AND due.claim = u.claim
      AND due.owner = $4";
const RELEASE_SQLITE: &str = "
    UPDATE due SET owner = 0{later} WHERE subscription_key = $1 AND claim = $2 AND owner = $3
      AND event_key IN (SELECT value FROM json_each($4))";

/// Puts deliveries in line that their commit had claimed. One that was cancelled
/// meanwhile stays so: the events' rows, locked before this, hold off a cancellation
/// until the end of the transaction. One that has gone further meanwhile (the batch is
/// sent again after a lost answer) stays where it is.
const PUT_IN_LINE_POSTGRES: &str = "
    INSERT INTO due (subscription_key, event_key, due_at, owner, claim, attempts, takeovers, last_chance)
    SELECT u.s, u.e, {now} + u.wait, 0, 0, u.attempts, 0, false
    FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int2[]) u (s, e, wait, attempts)
    WHERE NOT EXISTS (SELECT 1 FROM undelivered n WHERE n.subscription_key = u.s AND n.event_key = u.e)
      AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.subscription_key = u.s AND a.event_key = u.e
        AND a.number > u.attempts)
    ON CONFLICT DO NOTHING";
const PUT_IN_LINE_SQLITE: &str = "
    INSERT INTO due (subscription_key, event_key, due_at, owner, claim, attempts, takeovers, last_chance)
    SELECT $1, $2, {now} + $3, 0, 0, $4, 0, 0
    WHERE NOT EXISTS (SELECT 1 FROM undelivered n WHERE n.subscription_key = $1 AND n.event_key = $2)
      AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.subscription_key = $1 AND a.event_key = $2
        AND a.number > $4)
    ON CONFLICT DO NOTHING";

/// Ends deliveries without success. One that was cancelled stays cancelled. One that is
/// in line, or has gone further, was cancelled and tried again by a person meanwhile: it
/// is the retry's.
const GIVE_UP_POSTGRES: &str = "
    INSERT INTO undelivered (subscription_key, event_key, organization_id, state, reason, end_time)
    SELECT u.s, u.e, u.organization, u.state, u.reason, {now}
    FROM unnest($1::int8[], $2::int8[], $3::text[], $4::int2[], $5::int2[], $6::int2[])
        u (s, e, organization, state, reason, attempts)
    WHERE NOT EXISTS (SELECT 1 FROM due d WHERE d.subscription_key = u.s AND d.event_key = u.e)
      AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.subscription_key = u.s AND a.event_key = u.e
        AND a.number > u.attempts)
    ON CONFLICT DO NOTHING";
const GIVE_UP_SQLITE: &str = "
    INSERT INTO undelivered (subscription_key, event_key, organization_id, state, reason, end_time)
    SELECT $1, $2, $3, $4, $5, {now}
    WHERE NOT EXISTS (SELECT 1 FROM due d WHERE d.subscription_key = $1 AND d.event_key = $2)
      AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.subscription_key = $1 AND a.event_key = $2
        AND a.number > $6)
    ON CONFLICT DO NOTHING";

/// Which of them it were, in the same way.
const GIVEN_UP: &str = " RETURNING subscription_key, event_key";

/// Locks the events of deliveries without a due row, so that a cancellation or a retry
/// of one of them is either seen by this transaction or sees its rows.
/// Ascending, as every transaction that locks several.
const LOCK_EVENTS: &str = "SELECT key FROM event WHERE key = ANY($1) ORDER BY key FOR KEY SHARE";

impl Store {
    /// Writes what follows from a batch whose attempts are appended.
    pub(super) async fn follow_up(
        &self,
        transaction: &Transaction,
        fence: Fence,
        batch: &[Settlement],
    ) -> Result<(), StoreError> {
        let of = |wanted: fn(&Settlement) -> bool| -> Vec<&Settlement> {
            batch.iter().filter(|one| wanted(one)).collect()
        };
        let rowless = of(|one| !one.in_due && one.next != Next::Succeeded);
        // Before any due row, as CancelDelivery does: else the two could wait for each
        // other.
        self.lock_events(transaction, rowless.iter().map(|one| one.delivery.event)).await?;
        let succeeded = of(|one| one.in_due && one.next == Next::Succeeded);
        self.end(transaction, fence, &succeeded, "").await?;
        let ended = of(|one| one.in_due && is_lost(one.next));
        let ended = deliveries(self.end(transaction, fence, &ended, ENDED).await?)?;
        let back = of(|one| one.in_due && matches!(one.next, Next::RetryIn(_)));
        self.put_back(transaction, fence, &back).await?;
        let released = of(|one| one.in_due && one.next == Next::Release);
        self.release(transaction, fence, held(&released)).await?;
        let lost = |one: &&Settlement| {
            is_lost(one.next) && (!one.in_due || ended.contains(&(one.delivery, one.claim)))
        };
        let lost: Vec<&Settlement> = batch.iter().filter(lost).collect();
        let given_up = self.give_up(transaction, &lost).await?;
        // After the ends: what has ended in this batch does not go in line.
        let new = of(|one| !one.in_due && matches!(one.next, Next::RetryIn(_) | Next::Release));
        self.put_in_line(transaction, &new).await?;
        self.note_endpoints(transaction, batch, &given_up).await
    }

    /// Holds off cancellations of deliveries of these events until the transaction ends.
    pub(super) async fn lock_events(
        &self,
        transaction: &Transaction,
        events: impl Iterator<Item = EventKey>,
    ) -> Result<(), StoreError> {
        let mut events: Vec<i64> = events.map(|event| event.0).collect();
        if self.is_shared() && !events.is_empty() {
            events.sort_unstable();
            events.dedup();
            let lock = self.statement(LOCK_EVENTS, vec![events.into()]);
            transaction.query_all_raw(lock).await?;
        }
        Ok(())
    }

    /// Runs one of the statements over `$4` for every claim; its answers.
    async fn each_sqlite(
        &self,
        transaction: &Transaction,
        fence: Fence,
        claims: impl Iterator<Item = (DeliveryKey, i32)>,
        sql: &str,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let mut alike: BTreeMap<(SubscriptionKey, i32), Vec<i64>> = BTreeMap::new();
        for (delivery, claim) in claims {
            alike.entry((delivery.subscription, claim)).or_default().push(delivery.event.0);
        }
        let mut rows = Vec::new();
        for ((subscription, claim), events) in alike {
            let values = vec![
                subscription.0.into(),
                claim.into(),
                fence.incarnation.into(),
                json(&events).into(),
            ];
            rows.extend(transaction.query_all_raw(self.statement(sql, values)).await?);
        }
        Ok(rows)
    }

    /// Takes them out of `due`, where they are still this replica's; with [`ENDED`] for
    /// `telling`, the answer is which of them were.
    async fn end(
        &self,
        transaction: &Transaction,
        fence: Fence,
        batch: &[&Settlement],
        telling: &str,
    ) -> Result<Vec<QueryResult>, StoreError> {
        if self.is_shared() && !batch.is_empty() {
            let sql = format!("{END_POSTGRES}{telling}");
            let ends = self.statement(&sql, claims(fence, held(batch)));
            return Ok(transaction.query_all_raw(ends).await?);
        }
        let sql = format!("{END_SQLITE}{telling}");
        self.each_sqlite(transaction, fence, held(batch), &sql).await
    }

    async fn put_back(
        &self,
        transaction: &Transaction,
        fence: Fence,
        batch: &[&Settlement],
    ) -> Result<(), StoreError> {
        if self.is_shared() && !batch.is_empty() {
            let mut values = claims(fence, held(batch));
            values.extend([waits(batch), counts(batch)]);
            transaction.execute_raw(self.statement(PUT_BACK_POSTGRES, values)).await?;
            return Ok(());
        }
        for one in batch {
            let mut values = claim(fence, one);
            values.extend([wait(one).into(), count(one).into()]);
            transaction.execute_raw(self.statement(PUT_BACK_SQLITE, values)).await?;
        }
        Ok(())
    }

    /// Puts claimed deliveries back as they were, where the claim is still this one's.
    pub(super) async fn release(
        &self,
        transaction: &Transaction,
        fence: Fence,
        batch: impl ExactSizeIterator<Item = (DeliveryKey, i32)>,
    ) -> Result<(), StoreError> {
        self.give_back(transaction, fence, batch, "").await
    }

    /// The same; `later` may set another due time.
    pub(super) async fn give_back(
        &self,
        transaction: &Transaction,
        fence: Fence,
        batch: impl ExactSizeIterator<Item = (DeliveryKey, i32)>,
        later: &str,
    ) -> Result<(), StoreError> {
        if batch.len() == 0 {
            return Ok(());
        }
        if self.is_shared() {
            let sql = RELEASE_POSTGRES.replace("{later}", later);
            transaction.execute_raw(self.statement(&sql, claims(fence, batch))).await?;
            return Ok(());
        }
        let sql = RELEASE_SQLITE.replace("{later}", later);
        self.each_sqlite(transaction, fence, batch, &sql).await.map(drop)
    }

    async fn put_in_line(
        &self,
        transaction: &Transaction,
        batch: &[&Settlement],
    ) -> Result<(), StoreError> {
        if self.is_shared() && !batch.is_empty() {
            let [subscriptions, events] = keys(batch.iter().map(|one| one.delivery));
            let values = vec![subscriptions, events, waits(batch), counts(batch)];
            transaction.execute_raw(self.statement(PUT_IN_LINE_POSTGRES, values)).await?;
            return Ok(());
        }
        for one in batch {
            let (subscription, event) = (one.delivery.subscription.0, one.delivery.event.0);
            let values = [subscription.into(), event.into(), wait(one).into(), count(one).into()];
            let statement = self.statement(PUT_IN_LINE_SQLITE, values.into());
            transaction.execute_raw(statement).await?;
        }
        Ok(())
    }

    /// Ends them, and tells which of them had not ended before, where something hangs on it.
    async fn give_up(
        &self,
        transaction: &Transaction,
        batch: &[&Settlement],
    ) -> Result<HashSet<DeliveryKey>, StoreError> {
        let mut ended = HashSet::new();
        if self.is_shared() && !batch.is_empty() {
            let [subscriptions, events] = keys(batch.iter().map(|one| one.delivery));
            let organization = |one: &&Settlement| one.organization.as_str().to_owned();
            let organizations: Vec<String> = batch.iter().map(organization).collect();
            let (states, reasons): (Vec<i16>, Vec<i16>) =
                batch.iter().map(|one| end_of(one)).unzip();
            let values = vec![
                subscriptions,
                events,
                organizations.into(),
                states.into(),
                reasons.into(),
                counts(batch),
            ];
            let asks = batch.iter().any(|one| one.note.asks_for_the_end());
            let sql = format!("{GIVE_UP_POSTGRES}{}", if asks { GIVEN_UP } else { "" });
            for row in transaction.query_all_raw(self.statement(&sql, values)).await? {
                ended.insert(delivery(&row)?);
            }
            return Ok(ended);
        }
        for one in batch {
            let (state, reason) = end_of(one);
            let values = [
                one.delivery.subscription.0.into(),
                one.delivery.event.0.into(),
                one.organization.as_str().into(),
                state.into(),
                reason.into(),
                count(one).into(),
            ];
            let statement = self.statement(GIVE_UP_SQLITE, values.into());
            if transaction.execute_raw(statement).await?.rows_affected() != 0 {
                ended.insert(one.delivery);
            }
        }
        Ok(ended)
    }
}

/// Whether it is an end without success.
fn is_lost(next: Next) -> bool {
    matches!(next, Next::Dead(_) | Next::Cancelled)
}

fn deliveries(rows: Vec<QueryResult>) -> Result<HashSet<(DeliveryKey, i32)>, StoreError> {
    let claim = |row| Ok((delivery(&row)?, column(&row, "claim")?));
    rows.into_iter().map(claim).collect()
}

/// The delivery that a row names.
pub(super) fn delivery(row: &QueryResult) -> Result<DeliveryKey, StoreError> {
    let subscription = SubscriptionKey(column(row, "subscription_key")?);
    Ok(DeliveryKey { event: EventKey(column(row, "event_key")?), subscription })
}

/// The numbers of `undelivered.state` and `.reason`.
fn end_of(one: &Settlement) -> (i16, i16) {
    match one.next {
        Next::Dead(reason) => (DeliveryState::Dead as i16, reason as i16),
        Next::Cancelled | Next::Succeeded | Next::RetryIn(_) | Next::Release => {
            (DeliveryState::Cancelled as i16, count(one))
        }
    }
}

/// Microseconds until it is due; a release is due at once.
fn wait(one: &Settlement) -> i64 {
    if let Next::RetryIn(wait) = one.next { micros(wait) } else { 0 }
}

fn count(one: &Settlement) -> i16 {
    i16::try_from(one.attempts).unwrap_or(i16::MAX)
}

fn waits(batch: &[&Settlement]) -> Value {
    batch.iter().map(|one| wait(one)).collect::<Vec<i64>>().into()
}

fn counts(batch: &[&Settlement]) -> Value {
    batch.iter().map(|one| count(one)).collect::<Vec<i16>>().into()
}

/// `$1` to `$4`: subscription, event, claim, owner.
fn claim(fence: Fence, one: &Settlement) -> Vec<Value> {
    let (subscription, event) = (one.delivery.subscription.0, one.delivery.event.0);
    vec![subscription.into(), event.into(), one.claim.into(), fence.incarnation.into()]
}

/// The same of many, as arrays.
fn claims(fence: Fence, batch: impl Iterator<Item = (DeliveryKey, i32)>) -> Vec<Value> {
    let (deliveries, numbers): (Vec<DeliveryKey>, Vec<i32>) = batch.unzip();
    let [subscriptions, events] = keys(deliveries.into_iter());
    vec![subscriptions, events, numbers.into(), fence.incarnation.into()]
}

/// The claims that are settled.
fn held(batch: &[&Settlement]) -> impl ExactSizeIterator<Item = (DeliveryKey, i32)> {
    batch.iter().map(|one| (one.delivery, one.claim))
}
