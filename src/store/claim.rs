//! The second hot write, for what was not settled by its first attempt: taking
//! due deliveries into this replica's memory.
//!
//! A claim asks for the subscriptions that it has permits for, so the rows of a
//! paused, dead or full one are never looked at, however many they are.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use sea_orm::{ConnectionTrait, Value};

use super::engine::column;
use super::link::Transaction;
use super::pick::Picked;
use super::{Fence, Store, StoreError};
use crate::domain::delivery::{DeadReason, DeliveryState};
use crate::domain::event::Event;
use crate::domain::id::{DeliveryKey, EventKey, SubscriptionKey};
use crate::domain::subscription::SubscriptionState;
use crate::domain::timestamp::Timestamp;

/// The right to attempt a delivery, for as long as its fence holds.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What to send.
    pub event: Arc<Event>,
    /// To whom.
    pub subscription: SubscriptionKey,
    /// Whose claim it is.
    pub fence: Fence,
    /// Its number; 0 for one that was claimed by its commit.
    pub number: i32,
    /// Attempts recorded so far.
    pub attempts: u32,
    /// Owners that died with it.
    pub takeovers: u32,
    /// Whether the next failure is final.
    pub last_chance: bool,
    /// Since when this process has it.
    pub since: Instant,
}

impl Claim {
    /// Which delivery.
    #[must_use]
    pub fn delivery(&self) -> DeliveryKey {
        DeliveryKey { event: self.event.summary.key, subscription: self.subscription }
    }
}

/// A subscription that has deliveries nobody has claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Whose.
    pub subscription: SubscriptionKey,
    /// When the first of them is due, by the database's clock.
    pub due_at: Timestamp,
    /// By the database's clock.
    pub now: Timestamp,
}

/// When a delivery comes due again whose event cannot be decrypted: in five minutes.
const LATER: &str = ", due_at = {now} + 300000000";

/// The subscriptions with unclaimed rows, each with its first due time: one step of
/// the index `due_waiting` a subscription, whatever the number of rows.
const WAITING: &str = "
    WITH RECURSIVE waiting (subscription) AS (
        SELECT min(subscription_key) FROM due WHERE owner = 0
        UNION ALL
        SELECT (SELECT min(d.subscription_key) FROM due d
                WHERE d.owner = 0 AND d.subscription_key > waiting.subscription)
        FROM waiting WHERE waiting.subscription IS NOT NULL
    )
    SELECT subscription, {now} AS now,
        (SELECT min(d.due_at) FROM due d
         WHERE d.owner = 0 AND d.subscription_key = waiting.subscription) AS due_at
    FROM waiting WHERE subscription IS NOT NULL";

impl Store {
    /// The subscriptions that have unclaimed deliveries.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn waiting(&self) -> Result<Vec<Waiting>, StoreError> {
        let rows = self.read().query_all_raw(self.statement(WAITING, vec![])).await?;
        let waiting = |row| {
            Ok(Waiting {
                subscription: SubscriptionKey(column(&row, "subscription")?),
                due_at: Timestamp(column(&row, "due_at")?),
                now: Timestamp(column(&row, "now")?),
            })
        };
        rows.into_iter().map(waiting).collect()
    }

    /// Claims due deliveries, at most so many of each subscription (never more than
    /// [`CLAIM_ROWS`](super::CLAIM_ROWS)), oldest due first,
    /// and loads payloads of at most `bytes_max` (one delivery, if it is larger). An
    /// empty list means that nothing is due. What cannot be decrypted is not claimed; it
    /// comes due again later.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: something may have been claimed; it comes to
    /// light when claims are compared with memory ([`Store::owned`]).
    pub async fn claim(
        &self,
        fence: Fence,
        wanted: &[(SubscriptionKey, u32)],
        bytes_max: u64,
    ) -> Result<Vec<Claim>, StoreError> {
        let picked = self.pick(fence, wanted).await?;
        let picked = self.within_bytes(fence, wanted, picked, bytes_max).await?;
        let mut keys: Vec<EventKey> = picked.iter().map(|one| one.delivery.event).collect();
        keys.sort_unstable();
        keys.dedup();
        let loaded = self.events_by_keys(&keys).await?;
        if !loaded.unreadable.is_empty() {
            let lost = picked.iter().filter(|one| loaded.unreadable.contains(&one.delivery.event));
            let lost: Vec<_> = lost.map(|one| (one.delivery, one.number)).collect();
            self.postpone(fence, &lost).await?;
        }
        let events: HashMap<EventKey, Arc<Event>> =
            loaded.events.into_iter().map(|event| (event.summary.key, Arc::new(event))).collect();
        // What was purged a moment ago is not sent, and has no due row any more.
        let there =
            |key: &EventKey| events.get(key).filter(|event| event.summary.purge_time.is_none());
        let since = Instant::now();
        let claim = |one: Picked| {
            there(&one.delivery.event).map(|event| Claim {
                event: Arc::clone(event),
                subscription: one.delivery.subscription,
                fence,
                number: one.number,
                attempts: one.attempts,
                takeovers: one.takeovers,
                last_chance: one.last_chance,
                since,
            })
        };
        Ok(picked.into_iter().filter_map(claim).collect())
    }

    /// Gives back what would load more than `bytes_max`, and keeps the rest. The `wanted`
    /// subscriptions take turns, so that large payloads of one leave room for another's.
    async fn within_bytes(
        &self,
        fence: Fence,
        wanted: &[(SubscriptionKey, u32)],
        picked: Vec<Picked>,
        bytes_max: u64,
    ) -> Result<Vec<Picked>, StoreError> {
        // What goes to many subscriptions is asked for once.
        let mut events: Vec<i64> = picked.iter().map(|one| one.delivery.event.0).collect();
        events.sort_unstable();
        events.dedup();
        let mut sizes: HashMap<i64, i64> = HashMap::with_capacity(events.len());
        for chunk in events.chunks(1000) {
            let (list, values) = self.among(0, chunk.iter().copied());
            let sql = format!(
                "SELECT key, payload_bytes + length(attributes) AS bytes FROM event
                 WHERE key IN ({list})"
            );
            for row in self.read().query_all_raw(self.statement(&sql, values)).await? {
                let bytes: i32 = column(&row, "bytes")?;
                sizes.insert(column(&row, "key")?, i64::from(bytes));
            }
        }
        let load = |one: &Picked| {
            let bytes = sizes.get(&one.delivery.event.0).copied().unwrap_or_default();
            (one.delivery.subscription, bytes)
        };
        let loads: Vec<_> = picked.iter().map(load).collect();
        let keep = in_turn(wanted, &loads, i64::try_from(bytes_max).unwrap_or(i64::MAX));
        let mut keep = keep.into_iter();
        let (kept, over): (Vec<Picked>, Vec<Picked>) =
            picked.into_iter().partition(|_| keep.next().unwrap_or_default());
        if !over.is_empty() {
            let over: Vec<_> = over.iter().map(|one| (one.delivery, one.number)).collect();
            self.disown(fence, &over).await?;
        }
        Ok(kept)
    }

    /// The deliveries that this replica has a claim on in `due`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn owned(&self, fence: Fence) -> Result<Vec<(DeliveryKey, i32)>, StoreError> {
        let sql =
            "SELECT subscription_key, event_key, claim FROM due WHERE owner = $1 AND owner <> 0";
        let owner = vec![fence.incarnation.into()];
        let rows = self.read().query_all_raw(self.statement(sql, owner)).await?;
        let read = |row| {
            let subscription = SubscriptionKey(column(&row, "subscription_key")?);
            let event = EventKey(column(&row, "event_key")?);
            Ok((DeliveryKey { event, subscription }, column(&row, "claim")?))
        };
        rows.into_iter().map(read).collect()
    }

    /// Gives back claims that this replica does not know of.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn disown(
        &self,
        fence: Fence,
        claims: &[(DeliveryKey, i32)],
    ) -> Result<(), StoreError> {
        let transaction = self.begin().await?;
        self.release(&transaction, fence, claims.iter().copied()).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Gives back claims that cannot be served now, to come due later.
    async fn postpone(
        &self,
        fence: Fence,
        claims: &[(DeliveryKey, i32)],
    ) -> Result<(), StoreError> {
        let transaction = self.begin().await?;
        self.give_back(&transaction, fence, claims.iter().copied(), LATER).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Ends up to `limit` waiting deliveries of a subscription that takes none any
    /// more. Tells how many there were: fewer than `limit` means that it is done. One
    /// that takes events keeps them; it is asked here and held so, since the caller may
    /// have heard of it a while ago.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn end_waiting(
        &self,
        subscription: SubscriptionKey,
        limit: u32,
    ) -> Result<usize, StoreError> {
        let transaction = self.begin().await?;
        let lock = if self.is_shared() { "FOR SHARE" } else { "" };
        let sql = format!(
            "SELECT organization_id, state, deleted FROM subscription WHERE key = $1 {lock}"
        );
        let owner = self.statement(&sql, vec![subscription.0.into()]);
        let Some(owner) = transaction.query_one_raw(owner).await? else { return Ok(0) };
        let state = SubscriptionState::stored(column(&owner, "state")?);
        let state = state.ok_or(StoreError::Corrupt("state"))?;
        let (state, dead_reason) = match (column::<bool>(&owner, "deleted")?, state) {
            (false, SubscriptionState::Active | SubscriptionState::Paused) => return Ok(0),
            (false, SubscriptionState::Disabled) => {
                (DeliveryState::Dead, Some(DeadReason::SubscriptionDisabled as i16))
            }
            (true, _) | (false, SubscriptionState::Inactive) => (DeliveryState::Cancelled, None),
        };
        let organization: String = column(&owner, "organization_id")?;
        let sql = "DELETE FROM due WHERE subscription_key = $1 AND event_key IN (
                SELECT event_key FROM due WHERE subscription_key = $1 AND owner = 0 LIMIT $2)
            AND owner = 0 RETURNING event_key, attempts";
        let values = vec![subscription.0.into(), i64::from(limit).into()];
        let rows = transaction.query_all_raw(self.statement(sql, values)).await?;
        let now = self.clock(&transaction).await?;
        let mut values: Vec<Vec<Value>> = Vec::with_capacity(rows.len());
        for row in &rows {
            let event: i64 = column(row, "event_key")?;
            let organization = organization.as_str();
            // Of a cancelled one, the number of the last attempt that may have been made.
            let reason: i16 = dead_reason.map_or_else(|| column(row, "attempts"), Ok)?;
            values.push(vec![
                subscription.0.into(),
                event.into(),
                organization.into(),
                (state as i16).into(),
                reason.into(),
                now.into(),
            ]);
        }
        let ended = values.len();
        self.insert_ended(&transaction, values).await?;
        transaction.commit().await?;
        Ok(ended)
    }

    /// The database's clock.
    pub(super) async fn clock(&self, transaction: &Transaction) -> Result<i64, StoreError> {
        let row = transaction.query_one_raw(self.statement("SELECT {now} AS now", vec![])).await?;
        column(&row.ok_or(StoreError::Corrupt("clock"))?, "now")
    }

    /// Rows of `undelivered`, in the order of its columns; the first end of each stands.
    pub(super) async fn insert_ended(
        &self,
        transaction: &Transaction,
        rows: Vec<Vec<Value>>,
    ) -> Result<(), StoreError> {
        let head = "INSERT INTO undelivered (subscription_key, event_key, organization_id, state,
            reason, end_time)";
        for chunk in rows.chunks(128) {
            let row = |at: usize| format!("({})", Store::list_from(6 * at, 6));
            let values = (0..chunk.len()).map(row).collect::<Vec<_>>().join(", ");
            let sql = format!("{head} VALUES {values} ON CONFLICT DO NOTHING");
            let values = chunk.iter().flatten().cloned().collect();
            transaction.execute_raw(self.statement(&sql, values)).await?;
        }
        Ok(())
    }
}

/// Which of the rows, given as whose each is and its bytes, fit into `left` bytes. Each
/// subscription in its turn takes its next row, until one does not fit any more; the very
/// first is taken however large it is.
fn in_turn(
    wanted: &[(SubscriptionKey, u32)],
    rows: &[(SubscriptionKey, i64)],
    mut left: i64,
) -> Vec<bool> {
    let mut lines: HashMap<SubscriptionKey, VecDeque<usize>> = HashMap::new();
    for (place, (subscription, _)) in rows.iter().enumerate() {
        lines.entry(*subscription).or_default().push_back(place);
    }
    let mut turns: VecDeque<SubscriptionKey> = wanted.iter().map(|(key, _)| *key).collect();
    let mut keep = vec![false; rows.len()];
    let mut any = false;
    while let Some(key) = turns.pop_front() {
        let Some(place) = lines.get_mut(&key).and_then(VecDeque::pop_front) else { continue };
        let bytes = rows[place].1;
        if any && left < bytes {
            continue;
        }
        (keep[place], any) = (true, true);
        left -= bytes;
        turns.push_back(key);
    }
    keep
}
