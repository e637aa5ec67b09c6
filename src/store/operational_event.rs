//! What the service itself has to tell, from the change that it follows from to its
//! publication.
//!
//! It is noted in the transaction of that change, so that it is told of exactly what
//! happened, and published like any other event afterwards (`janitor`). Its key makes its
//! event's id, so that publishing it twice stores one event.

use std::time::Duration;

use sea_orm::{ConnectionTrait, QueryResult, Value};

use super::engine::column;
use super::link::Transaction;
use super::row;
use super::{Store, StoreError};
use crate::domain::id::{AccountId, OrganizationId};
use crate::domain::operational_event::{Audience, OperationalEvent};
use crate::domain::timestamp::{Timestamp, micros};

/// Takes the oldest that nobody has taken. `SKIP LOCKED`: replicas that ask at once get
/// different ones. Whoever dies with what it took is not waited for.
const TAKE: &str = "
    UPDATE operational_event SET taken_until = {now} + $1 WHERE key IN (
        SELECT key FROM operational_event WHERE taken_until <= {now} ORDER BY key LIMIT $2 {lock})
    RETURNING key, organization_id, account_id, event_type, payload, occur_time";
/// Drops what nobody is left to be told of: the last subscription of its organization is
/// deleted, perhaps with the organization, of which nothing is to be stored any more.
const DROP: &str = "
    DELETE FROM operational_event WHERE NOT EXISTS (
        SELECT 1 FROM subscription
        WHERE subscription.organization_id = operational_event.organization_id AND NOT deleted)";
/// Whether it is worth a write: almost never.
const LOOK: &str = "SELECT key FROM operational_event WHERE taken_until <= {now} LIMIT 1";

/// An operational event and whose it is.
#[derive(Debug)]
pub(super) struct Notice {
    organization: OrganizationId,
    account: Option<AccountId>,
    event: OperationalEvent,
}

/// An operational event that is not published yet.
#[derive(Clone, Debug)]
pub struct UnpublishedEvent {
    /// Its key; no key of an event.
    pub key: i64,
    /// Whose.
    pub organization: OrganizationId,
    /// Account of the subscription that it is about.
    pub account: Option<AccountId>,
    /// Its type.
    pub event_type: String,
    /// What it carries, as JSON.
    pub payload: String,
    /// When it happened.
    pub occur_time: Timestamp,
}

impl Notice {
    pub(super) fn new(
        organization: &OrganizationId,
        audience: &Audience,
        event: OperationalEvent,
    ) -> Notice {
        let account = audience.account.clone();
        Notice { organization: organization.clone(), account, event }
    }

    fn values(&self) -> [Value; 4] {
        [
            self.organization.as_str().into(),
            row::account(self.account.as_ref()).into(),
            self.event.kind.as_str().into(),
            self.event.payload.as_str().into(),
        ]
    }
}

impl Store {
    /// Notes what there is to tell, in the transaction of what it follows from.
    pub(super) async fn tell(
        &self,
        transaction: &Transaction,
        notices: &[Notice],
    ) -> Result<(), StoreError> {
        let head = "INSERT INTO operational_event (organization_id, account_id, event_type,
            payload, occur_time)";
        for chunk in notices.chunks(128) {
            let row = |at: usize| format!("({}, {{now}})", Store::list_from(4 * at, 4));
            let rows = (0..chunk.len()).map(row).collect::<Vec<_>>().join(", ");
            let values = chunk.iter().flat_map(Notice::values).collect();
            let insert = self.statement(&format!("{head} VALUES {rows}"), values);
            transaction.execute_raw(insert).await?;
        }
        Ok(())
    }

    /// Takes up to `limit` operational events, the oldest first as far as nobody else has
    /// taken them: nobody else gets them during `lease`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: some may be taken; they are there again after `lease`.
    pub async fn take_operational_events(
        &self,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<UnpublishedEvent>, StoreError> {
        if self.read().query_one_raw(self.statement(LOOK, vec![])).await?.is_none() {
            return Ok(Vec::new());
        }
        self.write().execute_raw(self.statement(DROP, vec![])).await?;
        let lock = if self.is_shared() { "FOR UPDATE SKIP LOCKED" } else { "" };
        let values = vec![micros(lease).into(), i64::from(limit).into()];
        let take = self.statement(&TAKE.replace("{lock}", lock), values);
        let mut taken = Vec::new();
        for row in self.write().query_all_raw(take).await? {
            taken.push(unpublished(&row)?);
        }
        taken.sort_unstable_by_key(|one| one.key);
        Ok(taken)
    }

    /// Forgets operational events: they are published.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: they are taken again, and publishing them again is safe.
    pub async fn operational_events_published(&self, keys: &[i64]) -> Result<(), StoreError> {
        let (list, values) = self.among(0, keys.iter().copied());
        let sql = format!("DELETE FROM operational_event WHERE key IN ({list})");
        self.write().execute_raw(self.statement(&sql, values)).await?;
        Ok(())
    }
}

fn unpublished(row: &QueryResult) -> Result<UnpublishedEvent, StoreError> {
    let account: String = column(row, "account_id")?;
    Ok(UnpublishedEvent {
        key: column(row, "key")?,
        organization: OrganizationId::stored(&column::<String>(row, "organization_id")?),
        account: row::optional_account(&account),
        event_type: column(row, "event_type")?,
        payload: column(row, "payload")?,
        occur_time: Timestamp(column(row, "occur_time")?),
    })
}
