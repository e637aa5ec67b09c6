//! Taking over what a dead replica held.

use sea_orm::{ConnectionTrait, Value};

use super::engine::column;
use super::link::Transaction;
use super::replica::number;
use super::row::unpack;
use super::{Replica, Store, StoreError};
use crate::domain::id::{DeliveryKey, EventKey, SubscriptionKey};

/// Locks the dead replica's row, unless it has shown life since it was looked at.
/// On PostgreSQL FOR UPDATE SKIP LOCKED passes it over while a transaction holds it as its
/// fence, until the next look; all that come after the lock find no row.
const LOCK: &str =
    "SELECT low_key FROM replica WHERE number = $1 AND incarnation = $2 AND heartbeat_at = $3";

/// Events that the dead replica took in, from its watermark on.
const EVENTS: &str = "
    SELECT key, targets FROM event
    WHERE key >= $1 AND ((key >> 12) & 1023) = $2
    ORDER BY key LIMIT 1000";

/// Which of the deliveries have no trace yet: neither attempt nor due row nor end.
const UNTRACED_POSTGRES: &str = "
    SELECT u.s AS subscription_key, u.e AS event_key FROM unnest($1::int8[], $2::int8[]) u (s, e)
    WHERE NOT EXISTS (SELECT 1 FROM attempt a WHERE a.subscription_key = u.s AND a.event_key = u.e)
      AND NOT EXISTS (SELECT 1 FROM undelivered n WHERE n.subscription_key = u.s AND n.event_key = u.e)
      AND NOT EXISTS (SELECT 1 FROM due d WHERE d.subscription_key = u.s AND d.event_key = u.e)";
const UNTRACED_SQLITE: &str = "
    WITH u (s, e) AS ({pairs})
    SELECT u.s AS subscription_key, u.e AS event_key FROM u
    WHERE NOT EXISTS (SELECT 1 FROM attempt a WHERE a.subscription_key = u.s AND a.event_key = u.e)
      AND NOT EXISTS (SELECT 1 FROM undelivered n WHERE n.subscription_key = u.s AND n.event_key = u.e)
      AND NOT EXISTS (SELECT 1 FROM due d WHERE d.subscription_key = u.s AND d.event_key = u.e)";

/// Frees the claims that the dead replica held in `due`.
const FREE: &str = "
    UPDATE due SET owner = 0, takeovers = takeovers + 1, due_at = {now}
    WHERE owner = $1 AND owner <> 0";

impl Store {
    /// Puts everything that a dead replica held back in line, for anybody, and
    /// removes the replica. Tells how many deliveries that were; `None` when the
    /// replica lives after all, writes something just now, or another one was faster.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: nothing was changed; asking again is safe.
    pub async fn take_over(&self, dead: &Replica) -> Result<Option<u64>, StoreError> {
        let transaction = self.begin().await?;
        let lock =
            if self.is_shared() { format!("{LOCK} FOR UPDATE SKIP LOCKED") } else { LOCK.into() };
        let incarnation: Value = dead.fence.incarnation.into();
        let values =
            vec![number(dead.fence).into(), incarnation.clone(), dead.heartbeat_at.0.into()];
        let Some(row) = transaction.query_one_raw(self.statement(&lock, values)).await? else {
            return Ok(None);
        };
        let mut from: i64 = column(&row, "low_key")?;
        let mut found = 0;
        loop {
            let values = vec![from.into(), i64::from(dead.fence.replica).into()];
            let rows = transaction.query_all_raw(self.statement(EVENTS, values)).await?;
            let Some(last) = rows.last() else { break };
            from = column::<i64>(last, "key")? + 1;
            let mut deliveries = Vec::new();
            for row in &rows {
                let event = EventKey(column(row, "key")?);
                let targets: Vec<u8> = column(row, "targets")?;
                let of = |subscription| DeliveryKey { event, subscription };
                deliveries.extend(unpack(&targets).into_iter().map(of));
            }
            self.lock_events(&transaction, deliveries.iter().map(|key| key.event)).await?;
            found += self.insert_due(&transaction, &deliveries, 0, 1).await?;
        }
        let free = self.statement(FREE, vec![incarnation.clone()]);
        found += transaction.execute_raw(free).await?.rows_affected();
        let sql = "DELETE FROM replica WHERE number = $1 AND incarnation = $2";
        let values = vec![number(dead.fence).into(), incarnation];
        transaction.execute_raw(self.statement(sql, values)).await?;
        transaction.commit().await?;
        Ok(Some(found))
    }

    pub(super) async fn untraced(
        &self,
        transaction: &Transaction,
        deliveries: &[DeliveryKey],
    ) -> Result<Vec<DeliveryKey>, StoreError> {
        let statement = if self.is_shared() {
            let keys = super::settle::keys(deliveries.iter().copied());
            self.statement(UNTRACED_POSTGRES, keys.into())
        } else {
            let sql = UNTRACED_SQLITE.replace("{pairs}", &Store::pairs(deliveries.len()));
            let pair = |key: &DeliveryKey| [key.subscription.0.into(), key.event.0.into()];
            self.statement(&sql, deliveries.iter().flat_map(pair).collect())
        };
        let rows = transaction.query_all_raw(statement).await?;
        let delivery = |row| {
            let subscription = SubscriptionKey(column(&row, "subscription_key")?);
            Ok(DeliveryKey { event: EventKey(column(&row, "event_key")?), subscription })
        };
        rows.into_iter().map(delivery).collect()
    }
}
