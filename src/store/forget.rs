//! Forgetting events that are over: the row, its deliveries, attempts and ends, its id.

use sea_orm::{ConnectionTrait, Value};

use super::link::Transaction;
use super::standing::Stored;
use super::{Store, StoreError};
use crate::domain::id::DeliveryKey;
use crate::domain::retention::Stage;

const FORGET_ATTEMPTS_POSTGRES: &str = "
    DELETE FROM attempt USING unnest($1::int8[], $2::int8[]) u (s, e)
    WHERE attempt.subscription_key = u.s AND attempt.event_key = u.e
      AND attempt.event_key >= $3 AND attempt.event_key <= $4";
const FORGET_ATTEMPTS_SQLITE: &str = "
    DELETE FROM attempt
    WHERE subscription_key IN (SELECT value FROM json_each($1)) AND event_key = $2";
const FORGET_ENDS_POSTGRES: &str = "
    DELETE FROM undelivered USING unnest($1::int8[], $2::int8[]) u (s, e)
    WHERE undelivered.subscription_key = u.s AND undelivered.event_key = u.e
      AND undelivered.event_key >= $3 AND undelivered.event_key <= $4";
const FORGET_ENDS_SQLITE: &str = "
    DELETE FROM undelivered
    WHERE subscription_key IN (SELECT value FROM json_each($1)) AND event_key = $2";
/// An id that was used again meanwhile is another event's.
const FORGET_ID: &str =
    "DELETE FROM event_key WHERE organization_id = $1 AND event_id = $2 AND event_key = $3";
const FORGET_IDS_POSTGRES: &str = "
    DELETE FROM event_key USING unnest($1::text[], $2::text[], $3::int8[]) u (o, i, k)
    WHERE event_key.organization_id = u.o AND event_key.event_id = u.i
      AND event_key.event_key = u.k";

impl Store {
    /// Takes everything away that is known of these events, which have ended.
    pub(super) async fn forget(
        &self,
        transaction: &Transaction,
        over: &[&Stored],
    ) -> Result<u64, StoreError> {
        let deliveries: Vec<DeliveryKey> =
            over.iter().flat_map(|event| event.deliveries()).collect();
        for (postgres, sqlite) in [
            (FORGET_ATTEMPTS_POSTGRES, FORGET_ATTEMPTS_SQLITE),
            (FORGET_ENDS_POSTGRES, FORGET_ENDS_SQLITE),
        ] {
            self.over_deliveries(transaction, &deliveries, postgres, sqlite).await?;
        }
        self.forget_ids(transaction, over).await?;
        let keys = || over.iter().map(|event| event.key.0);
        self.forget_visits(transaction, &Stage::ALL, keys()).await?;
        let (list, values) = self.among(0, keys());
        let sql = format!("DELETE FROM event WHERE key IN ({list})");
        Ok(transaction.execute_raw(self.statement(&sql, values)).await?.rows_affected())
    }

    /// Ids that publishers chose may be used again.
    async fn forget_ids(
        &self,
        transaction: &Transaction,
        over: &[&Stored],
    ) -> Result<(), StoreError> {
        let named: Vec<_> = over.iter().filter(|event| !event.event_id.is_empty()).collect();
        if self.is_shared() {
            let organizations = named.iter().map(|event| event.organization.as_str().to_owned());
            let organizations: Vec<String> = organizations.collect();
            let ids: Vec<String> = named.iter().map(|event| event.event_id.clone()).collect();
            let keys: Vec<i64> = named.iter().map(|event| event.key.0).collect();
            let values = vec![organizations.into(), ids.into(), keys.into()];
            transaction.execute_raw(self.statement(FORGET_IDS_POSTGRES, values)).await?;
            return Ok(());
        }
        for event in named {
            let values = vec![
                event.organization.as_str().into(),
                event.event_id.as_str().into(),
                event.key.0.into(),
            ];
            transaction.execute_raw(self.statement(FORGET_ID, values)).await?;
        }
        Ok(())
    }

    pub(super) async fn forget_visits(
        &self,
        transaction: &Transaction,
        stages: &[Stage],
        keys: impl IntoIterator<Item = i64>,
    ) -> Result<(), StoreError> {
        let keys: Vec<i64> = keys.into_iter().collect();
        for stage in stages {
            let (list, values) = self.among(1, keys.iter().copied());
            let sql =
                format!("DELETE FROM retention_visit WHERE stage = $1 AND event_key IN ({list})");
            let mut all = vec![Value::from(*stage as i16)];
            all.extend(values);
            transaction.execute_raw(self.statement(&sql, all)).await?;
        }
        Ok(())
    }
}
