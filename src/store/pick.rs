//! Which due rows a claim takes, and taking them.

use sea_orm::{ConnectionTrait, QueryResult};

use super::engine::column;
use super::replica::number;
use super::{Fence, Store, StoreError};
use crate::domain::id::{DeliveryKey, EventKey, SubscriptionKey};

/// Most rows of one subscription that a claim takes.
pub const CLAIM_ROWS: u32 = 1024;

/// Claims up to `$4[i]` due rows of each subscription `$3[i]`.
///
/// - `me` is the fence.
/// - `LATERAL … LIMIT` makes it fair: each subscription's rows come off its own range of
///   `due_waiting`, so a long backlog of one costs the others nothing.
/// - The inner `LIMIT` says the same again as a number ([`CLAIM_ROWS`]): of one that it does
///   not know, PostgreSQL believes that a tenth of the backlog is wanted, and sorts it all.
/// - `SKIP LOCKED`: replicas that ask at once get different rows, and nobody waits.
/// - The rows are found again by their place (`ctid`), which nobody can change while they
///   are locked. By their key, PostgreSQL would read the whole backlog to join it.
/// - `claim + 1` is the fence within one incarnation.
const CLAIM_POSTGRES: &str = "
    WITH me AS MATERIALIZED (
        SELECT 1 FROM replica WHERE number = $1 AND incarnation = $2 FOR KEY SHARE
    ),
    picked AS MATERIALIZED (
        SELECT d.place
        FROM me, unnest($3::int8[], $4::int8[]) wanted (subscription, rows)
        CROSS JOIN LATERAL (
            SELECT place FROM (
                SELECT ctid AS place FROM due
                WHERE owner = 0 AND subscription_key = wanted.subscription AND due_at <= {now}
                ORDER BY due_at LIMIT {most}
                FOR UPDATE SKIP LOCKED
            ) oldest LIMIT wanted.rows
        ) d
    )
    UPDATE due SET owner = $2, claim = due.claim + 1
    WHERE due.ctid = ANY (ARRAY(SELECT place FROM picked))
    RETURNING due.subscription_key, due.event_key, due.claim, due.attempts, due.takeovers,
        due.last_chance, due.due_at";

/// Those of one subscription, as one JSON array of [`PickedJson`]: each row of an answer
/// would cost about as much as its change.
const PICK_SQLITE: &str = "
    SELECT json_group_array(json_array(event_key, claim + 1, attempts, takeovers, last_chance, due_at))
        AS picked
    FROM (
        SELECT event_key, claim, attempts, takeovers, last_chance, due_at FROM due
        WHERE owner = 0 AND subscription_key = $1 AND due_at <= {now}
        ORDER BY due_at LIMIT $2)";
/// Takes what was picked. SQLite has one writer, and between the two it is this transaction.
const TAKE_SQLITE: &str = "
    UPDATE due SET owner = $1, claim = claim + 1
    WHERE subscription_key = $2
      AND event_key IN (SELECT json_extract(value, '$[0]') FROM json_each($3))";

/// A row that was taken.
pub(super) struct Picked {
    pub(super) delivery: DeliveryKey,
    /// The claim's number.
    pub(super) number: i32,
    pub(super) attempts: u32,
    pub(super) takeovers: u32,
    pub(super) last_chance: bool,
    /// Microseconds.
    due_at: i64,
}

/// Event, claim's number, attempts, takeovers, last chance (0 or 1), due time.
type PickedJson = (i64, i32, u32, u32, u8, i64);

impl Store {
    /// Takes due rows, at most so many of each of the `wanted` subscriptions; oldest due
    /// first, since what is queued first is sent first.
    pub(super) async fn pick(
        &self,
        fence: Fence,
        wanted: &[(SubscriptionKey, u32)],
    ) -> Result<Vec<Picked>, StoreError> {
        let mut picked = if self.is_shared() {
            self.pick_postgres(fence, wanted).await?
        } else {
            self.pick_sqlite(fence, wanted).await?
        };
        picked.sort_unstable_by_key(|one| (one.due_at, one.delivery.event));
        Ok(picked)
    }

    async fn pick_postgres(
        &self,
        fence: Fence,
        wanted: &[(SubscriptionKey, u32)],
    ) -> Result<Vec<Picked>, StoreError> {
        let subscriptions: Vec<i64> = wanted.iter().map(|(key, _)| key.0).collect();
        let rows: Vec<i64> = wanted.iter().map(|(_, rows)| i64::from(*rows)).collect();
        let values =
            vec![number(fence).into(), fence.incarnation.into(), subscriptions.into(), rows.into()];
        let sql = CLAIM_POSTGRES.replace("{most}", &CLAIM_ROWS.to_string());
        let rows = self.write().query_all_raw(self.statement(&sql, values)).await?;
        rows.iter().map(read).collect()
    }

    async fn pick_sqlite(
        &self,
        fence: Fence,
        wanted: &[(SubscriptionKey, u32)],
    ) -> Result<Vec<Picked>, StoreError> {
        let transaction = self.begin().await?;
        self.hold(&transaction, fence).await?;
        let mut picked = Vec::new();
        for &(subscription, limit) in wanted {
            let pick = self.statement(PICK_SQLITE, vec![subscription.0.into(), limit.into()]);
            let row = transaction.query_one_raw(pick).await?;
            let json: String = column(&row.ok_or(StoreError::Corrupt("picked"))?, "picked")?;
            let rows: Vec<PickedJson> =
                serde_json::from_str(&json).map_err(|_| StoreError::Corrupt("picked"))?;
            if rows.is_empty() {
                continue;
            }
            let values = vec![fence.incarnation.into(), subscription.0.into(), json.into()];
            transaction.execute_raw(self.statement(TAKE_SQLITE, values)).await?;
            picked.extend(rows.into_iter().map(|row| from_json(subscription, row)));
        }
        transaction.commit().await?;
        Ok(picked)
    }
}

fn from_json(subscription: SubscriptionKey, row: PickedJson) -> Picked {
    let (event, number, attempts, takeovers, last_chance, due_at) = row;
    Picked {
        delivery: DeliveryKey { event: EventKey(event), subscription },
        number,
        attempts,
        takeovers,
        last_chance: last_chance != 0,
        due_at,
    }
}

fn read(row: &QueryResult) -> Result<Picked, StoreError> {
    let subscription = SubscriptionKey(column(row, "subscription_key")?);
    let event = EventKey(column(row, "event_key")?);
    Ok(Picked {
        delivery: DeliveryKey { event, subscription },
        number: column(row, "claim")?,
        attempts: small(row, "attempts")?,
        takeovers: small(row, "takeovers")?,
        last_chance: column(row, "last_chance")?,
        due_at: column(row, "due_at")?,
    })
}

/// A count in an int2.
fn small(row: &QueryResult, name: &'static str) -> Result<u32, StoreError> {
    let number: i16 = column(row, name)?;
    u32::try_from(number).map_err(|_| StoreError::Corrupt(name))
}
