//! Endpoints that fail: a row from a failure to the next success, and none for the others.
//!
//! The healthy case writes nothing here. A success ends a streak in the transaction that
//! records it, where the replica that settles it knows of the streak; the others learn of
//! it within a moment ([`HEAD_START`]). What is written here is written with the
//! settlement that it follows from, so that nothing counts twice when that is sent again.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use sea_orm::{ConnectionTrait, QueryResult, Value};

use super::engine::column;
use super::follow_up::delivery;
use super::link::Transaction;
use super::operational_event::Notice;
use super::settle::keys as pair_arrays;
use super::{Next, Settlement, Store, StoreError};
use crate::domain::attempt::AttemptResult;
use crate::domain::failure_streak::{FailureStreak, Mark, Stage};
use crate::domain::id::{DeliveryKey, OrganizationId, SubscriptionKey};
use crate::domain::operational_event::{Audience, OperationalEvent};
use crate::domain::timestamp::{Timestamp, micros};

/// The time of a streak counts from so long after its first failure: whatever success
/// another replica does not connect with it, since it had not heard of it yet, lies before
/// that.
pub const HEAD_START: Duration = Duration::from_secs(5);

/// How far the sending clock has gone since it was set: as far as the database's, but no
/// more than half a minute. Where nobody sets it, nobody sends.
const SENT: &str = "CASE
    WHEN {now} < looked_at THEN 0
    WHEN {now} - looked_at > 30000000 THEN 30000000
    ELSE {now} - looked_at END";

const STREAK: &str = "subscription_key, version, begin_time, began_at, failed_at, exhausted, told";

/// Adds to streaks, or begins them. Failures of an earlier version of the subscription are
/// forgotten with the first of a later one, and count no more after it.
const ADD: &str = "
    INSERT INTO failure_streak (subscription_key, version, begin_time, began_at, failed_at,
        exhausted, told)
    {rows}
    ON CONFLICT (subscription_key) DO UPDATE SET
        version = excluded.version,
        begin_time = CASE WHEN failure_streak.version < excluded.version
            THEN excluded.begin_time ELSE failure_streak.begin_time END,
        began_at = CASE WHEN failure_streak.version < excluded.version
            THEN excluded.began_at ELSE failure_streak.began_at END,
        failed_at = CASE WHEN failure_streak.version < excluded.version OR excluded.exhausted > 0
            THEN excluded.failed_at ELSE failure_streak.failed_at END,
        exhausted = CASE WHEN failure_streak.version < excluded.version
            THEN excluded.exhausted ELSE failure_streak.exhausted + excluded.exhausted END,
        told = CASE WHEN failure_streak.version < excluded.version
            THEN 0 ELSE failure_streak.told END
    WHERE failure_streak.version <= excluded.version";
/// Ascending, as every transaction that changes several.
const ROWS_POSTGRES: &str = "
    SELECT u.s, u.version, {now}, {sending} + $4, {sending}, u.exhausted, 0
    FROM unnest($1::int8[], $2::int8[], $3::int4[]) u (s, version, exhausted) ORDER BY u.s";
const ROW_SQLITE: &str = "VALUES ($1, $2, {now}, {sending} + $4, {sending}, $3, 0)";

/// Which of the deliveries have an attempt that failed by our own fault: they are no
/// volume. OFFSET 0 keeps the planner from joining the whole table.
const OURS_POSTGRES: &str = "
    SELECT found.* FROM unnest($1::int8[], $2::int8[]) wanted (s, e)
    CROSS JOIN LATERAL (
        SELECT subscription_key, event_key FROM attempt
        WHERE subscription_key = wanted.s AND event_key = wanted.e AND (ours OR result IN ({unsent}))
        OFFSET 0) found";
const OURS_SQLITE: &str = "
    WITH wanted (s, e) AS ({pairs})
    SELECT subscription_key, event_key FROM wanted CROSS JOIN attempt
    WHERE subscription_key = s AND event_key = e AND (ours OR result IN ({unsent}))";

/// What a settlement says of its endpoint; nothing, while all is well.
#[derive(Clone, Debug, Default)]
pub struct EndpointNote {
    /// What is to be added to its streak.
    pub mark: Mark,
    /// Version of the subscription that was called.
    pub version: i64,
    /// Whom to tell: of a dead delivery that it is dead, of a success that it ends a streak
    /// that they were warned of.
    pub audience: Option<Audience>,
}

impl EndpointNote {
    /// Whether something hangs on whether the delivery ends with this settlement, or has
    /// ended before.
    pub(super) fn asks_for_the_end(&self) -> bool {
        self.mark == Mark::Exhausted || self.audience.is_some()
    }
}

/// An endpoint that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailingEndpoint {
    /// Whose.
    pub subscription: SubscriptionKey,
    /// Version of the subscription that was called.
    pub version: i64,
    /// How it fails.
    pub streak: FailureStreak,
}

/// What a batch says of one endpoint.
struct Tally<'a> {
    version: i64,
    success: Option<&'a Settlement>,
    exhausted: Vec<DeliveryKey>,
}

impl Store {
    /// Every endpoint that fails: one a subscription at most.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn failing_endpoints(&self) -> Result<Vec<FailingEndpoint>, StoreError> {
        let sql = format!("SELECT {STREAK} FROM failure_streak");
        let rows = self.read().query_all_raw(self.statement(&sql, vec![])).await?;
        rows.iter().map(endpoint).collect()
    }

    /// Forgets streaks of subscriptions that were changed since, or deleted: each with the
    /// version that failed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn forget_streaks(
        &self,
        endpoints: &[(SubscriptionKey, i64)],
    ) -> Result<(), StoreError> {
        let sql = "DELETE FROM failure_streak WHERE subscription_key = $1 AND version = $2";
        for (subscription, version) in endpoints {
            let values = vec![subscription.0.into(), (*version).into()];
            self.write().execute_raw(self.statement(sql, values)).await?;
        }
        Ok(())
    }

    /// Says that this process sends.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn keep_sending_clock(&self) -> Result<(), StoreError> {
        let sql = format!("UPDATE sending_clock SET micros = micros + {SENT}, looked_at = {{now}}");
        self.write().execute_raw(self.statement(&sql, vec![])).await?;
        Ok(())
    }

    /// Notes that the owner of a failing endpoint is warned, and tells the `audience`.
    /// `false`: that was done before, or the streak is over.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn warn(
        &self,
        organization: &OrganizationId,
        failing: &FailingEndpoint,
        stage: Stage,
        audience: Option<&Audience>,
    ) -> Result<bool, StoreError> {
        let transaction = self.begin().await?;
        let sql = format!(
            "UPDATE failure_streak SET told = $3
             WHERE subscription_key = $1 AND version = $2 AND told < $3 RETURNING {STREAK}"
        );
        let percent = i16::from(stage.percent());
        let values = vec![failing.subscription.0.into(), failing.version.into(), percent.into()];
        let row = transaction.query_one_raw(self.statement(&sql, values)).await?;
        let Some(row) = row else { return Ok(false) };
        let streak = endpoint(&row)?.streak;
        if let Some(audience) = audience {
            let id = self.ids().subscription(failing.subscription);
            let event = OperationalEvent::failing(&id, &streak, stage);
            self.tell(&transaction, &[Notice::new(organization, audience, event)]).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Writes what a batch says of its endpoints. `ended`: those of its deliveries that
    /// ended with it.
    pub(super) async fn note_endpoints(
        &self,
        transaction: &Transaction,
        batch: &[Settlement],
        ended: &HashSet<DeliveryKey>,
    ) -> Result<(), StoreError> {
        let tallies = tallies(batch, ended);
        let mut notices = Vec::new();
        if !tallies.is_empty() {
            notices = self.end_by_success(transaction, &tallies).await?;
            self.add_failures(transaction, &tallies).await?;
        }
        notices.extend(batch.iter().filter_map(|one| self.death(one, ended)));
        self.tell(transaction, &notices).await
    }

    /// The streak of an endpoint, and nobody changes it until the transaction ends.
    pub(super) async fn lock_streak(
        &self,
        transaction: &Transaction,
        subscription: SubscriptionKey,
    ) -> Result<Option<FailingEndpoint>, StoreError> {
        Ok(self.lock_streaks(transaction, [subscription].into_iter()).await?.pop())
    }

    pub(super) async fn end_streaks(
        &self,
        transaction: &Transaction,
        subscriptions: &[SubscriptionKey],
    ) -> Result<(), StoreError> {
        if subscriptions.is_empty() {
            return Ok(());
        }
        let (list, values) = self.among(0, subscriptions.iter().map(|key| key.0));
        let sql = format!("DELETE FROM failure_streak WHERE subscription_key IN ({list})");
        transaction.execute_raw(self.statement(&sql, values)).await?;
        Ok(())
    }

    /// Ends the streaks that a success of the same version or a later one is the end of.
    async fn end_by_success(
        &self,
        transaction: &Transaction,
        tallies: &BTreeMap<SubscriptionKey, Tally<'_>>,
    ) -> Result<Vec<Notice>, StoreError> {
        let (mut over, mut notices) = (Vec::new(), Vec::new());
        for row in self.lock_streaks(transaction, tallies.keys().copied()).await? {
            let tally = tallies.get(&row.subscription).filter(|one| row.version <= one.version);
            let Some(success) = tally.and_then(|tally| tally.success) else { continue };
            over.push(row.subscription);
            let told = row.streak.told != 0;
            if let Some(audience) = success.note.audience.as_ref().filter(|_| told) {
                let id = self.ids().subscription(row.subscription);
                let event = OperationalEvent::recovered(&id, &row.streak);
                notices.push(Notice::new(&success.organization, audience, event));
            }
        }
        self.end_streaks(transaction, &over).await?;
        Ok(notices)
    }

    async fn add_failures(
        &self,
        transaction: &Transaction,
        tallies: &BTreeMap<SubscriptionKey, Tally<'_>>,
    ) -> Result<(), StoreError> {
        let failing = || tallies.iter().filter(|(_, tally)| tally.success.is_none());
        let exhausted = failing().flat_map(|(_, tally)| tally.exhausted.iter().copied()).collect();
        let ours = self.with_faults_of_ours(transaction, exhausted).await?;
        let rows = failing().map(|(key, tally)| {
            let count = tally.exhausted.iter().filter(|one| !ours.contains(*one)).count();
            (key.0, tally.version, i32::try_from(count).unwrap_or(i32::MAX))
        });
        let rows: Vec<(i64, i64, i32)> = rows.collect();
        if rows.is_empty() {
            return Ok(());
        }
        let sending = format!("(SELECT micros + {SENT} FROM sending_clock)");
        let sql = |rows: &str| ADD.replace("{rows}", rows).replace("{sending}", &sending);
        let head_start = micros(HEAD_START);
        if self.is_shared() {
            let of = |row: fn(&(i64, i64, i32)) -> i64| rows.iter().map(row).collect::<Vec<i64>>();
            let counts: Vec<i32> = rows.iter().map(|row| row.2).collect();
            let values = vec![
                of(|row| row.0).into(),
                of(|row| row.1).into(),
                counts.into(),
                head_start.into(),
            ];
            transaction.execute_raw(self.statement(&sql(ROWS_POSTGRES), values)).await?;
            return Ok(());
        }
        for (subscription, version, count) in rows {
            let values = vec![subscription.into(), version.into(), count.into(), head_start.into()];
            transaction.execute_raw(self.statement(&sql(ROW_SQLITE), values)).await?;
        }
        Ok(())
    }

    /// Those of the deliveries that have not failed by their receiver alone.
    async fn with_faults_of_ours(
        &self,
        transaction: &Transaction,
        deliveries: Vec<DeliveryKey>,
    ) -> Result<HashSet<DeliveryKey>, StoreError> {
        if deliveries.is_empty() {
            return Ok(HashSet::new());
        }
        // An address that our policy refuses is no fault of the receiver's, although nobody
        // here is at fault either.
        let results = [AttemptResult::BlockedAddress, AttemptResult::NotSent];
        let unsent = results.map(|result| (result as i16).to_string()).join(", ");
        let statement = if self.is_shared() {
            let sql = OURS_POSTGRES.replace("{unsent}", &unsent);
            self.statement(&sql, pair_arrays(deliveries.into_iter()).into())
        } else {
            let pairs = Store::pairs(deliveries.len());
            let sql = OURS_SQLITE.replace("{pairs}", &pairs).replace("{unsent}", &unsent);
            let pair = |key: DeliveryKey| [Value::from(key.subscription.0), key.event.0.into()];
            self.statement(&sql, deliveries.into_iter().flat_map(pair).collect())
        };
        let rows = transaction.query_all_raw(statement).await?;
        rows.iter().map(delivery).collect()
    }

    /// In the order of their keys, as every transaction that changes several.
    async fn lock_streaks(
        &self,
        transaction: &Transaction,
        subscriptions: impl Iterator<Item = SubscriptionKey>,
    ) -> Result<Vec<FailingEndpoint>, StoreError> {
        let (list, values) = self.among(0, subscriptions.map(|key| key.0));
        let lock = if self.is_shared() { "FOR UPDATE" } else { "" };
        let sql = format!(
            "SELECT {STREAK} FROM failure_streak WHERE subscription_key IN ({list})
             ORDER BY subscription_key {lock}"
        );
        let rows = transaction.query_all_raw(self.statement(&sql, values)).await?;
        rows.iter().map(endpoint).collect()
    }

    /// What there is to tell of a settlement: that its delivery is dead.
    fn death(&self, one: &Settlement, ended: &HashSet<DeliveryKey>) -> Option<Notice> {
        let Next::Dead(reason) = one.next else { return None };
        let audience = one.note.audience.as_ref().filter(|_| ended.contains(&one.delivery))?;
        let subscription = self.ids().subscription(one.delivery.subscription);
        let delivery = self.ids().delivery(one.delivery);
        let event = OperationalEvent::dead(&subscription, &delivery, reason, one.attempts);
        Some(Notice::new(&one.organization, audience, event))
    }
}

/// By subscription; what is said of an earlier version than another is left out.
fn tallies<'a>(
    batch: &'a [Settlement],
    ended: &HashSet<DeliveryKey>,
) -> BTreeMap<SubscriptionKey, Tally<'a>> {
    let mut tallies = BTreeMap::new();
    for one in batch.iter().filter(|one| one.note.mark != Mark::Nothing) {
        let version = one.note.version;
        let new = || Tally { version, success: None, exhausted: Vec::new() };
        let tally = tallies.entry(one.delivery.subscription).or_insert_with(new);
        if tally.version < version {
            *tally = new();
        }
        if version < tally.version {
            continue;
        }
        match one.note.mark {
            Mark::Success => tally.success = Some(one),
            Mark::Exhausted if ended.contains(&one.delivery) => tally.exhausted.push(one.delivery),
            Mark::Nothing | Mark::Failure | Mark::Exhausted => {}
        }
    }
    tallies
}

fn endpoint(row: &QueryResult) -> Result<FailingEndpoint, StoreError> {
    let [began_at, failed_at] = [column(row, "began_at")?, column(row, "failed_at")?];
    let streak = FailureStreak {
        begin_time: Timestamp(column(row, "begin_time")?),
        failing: Timestamp(failed_at).since(Timestamp(began_at)),
        exhausted: u32::try_from(column::<i32>(row, "exhausted")?).unwrap_or(0),
        told: u8::try_from(column::<i16>(row, "told")?).unwrap_or(u8::MAX),
    };
    let subscription = SubscriptionKey(column(row, "subscription_key")?);
    Ok(FailingEndpoint { subscription, version: column(row, "version")?, streak })
}
