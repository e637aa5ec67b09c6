//! Lists of deliveries, newest first: by event key, then by subscription key.
//!
//! No table holds deliveries, so a list walks candidates: pairs that may be
//! deliveries of the organization, from the sources that know fewest too many for
//! its filter. Each chunk of candidates is put together and filtered, until the
//! page is full or enough has been looked at.

use sea_orm::{ConnectionTrait, QueryResult, Value};

use super::engine::column;
use super::link::Transaction;
use super::{EventFilter, Store, StoreError, row};
use crate::domain::delivery::{Delivery, DeliveryState};
use crate::domain::id::{AccountId, DeliveryKey, EventKey, OrganizationId, SubscriptionKey};
use crate::domain::pattern::EventPattern;
use crate::domain::timestamp::Timestamp;

/// Most candidates that one page looks at before it comes back short.
const SCAN_MAX: usize = 10_000;
/// Candidates at a time.
const CHUNK: usize = 250;
/// How far back deliveries may be under way for the first time, where a replica
/// has not said so yet: in events.
const TAIL_EVENTS: i64 = 20_000;

/// Which deliveries; each part that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// To this subscription.
    pub subscription: Option<SubscriptionKey>,
    /// Of events about this account.
    pub account: Option<AccountId>,
    /// Of this event.
    pub event: Option<EventKey>,
    /// Of events whose type matches.
    pub pattern: Option<EventPattern>,
    /// In one of these states; empty: in any.
    pub states: Vec<DeliveryState>,
    /// Of events taken in at this time or later.
    pub from: Option<Timestamp>,
    /// Of events taken in before this time.
    pub to: Option<Timestamp>,
}

impl DeliveryFilter {
    fn of_event(&self) -> EventFilter {
        EventFilter {
            account: self.account.clone(),
            pattern: self.pattern.clone(),
            from: self.from,
            to: self.to,
        }
    }

    fn only(&self, states: &[DeliveryState]) -> bool {
        !self.states.is_empty() && self.states.iter().all(|state| states.contains(state))
    }
}

/// Some deliveries, newest first.
#[derive(Debug)]
pub struct DeliveryPage {
    /// At most as many as asked for; fewer where the walk stopped early.
    pub deliveries: Vec<Delivery>,
    /// Where to go on; `None` when there is nothing more. Not always a delivery's.
    pub next: Option<DeliveryKey>,
}

/// Where candidates come from. Several together cover a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The targets of the filter's event.
    Event,
    /// The targets of the organization's events from this key on.
    Events(EventKey),
    /// Those ended without success.
    Undelivered,
    /// Those waiting, or claimed after they waited.
    Due,
    /// Those of the filter's subscription with an attempt.
    Attempts,
}

/// What a list looks for, and in which stretch of keys.
struct Walk<'a> {
    transaction: &'a Transaction,
    organization: &'a OrganizationId,
    filter: &'a DeliveryFilter,
    floor: EventKey,
}

/// Candidates, descending.
struct Chunk {
    pairs: Vec<DeliveryKey>,
    /// Everything from here on has been looked at; `None`: everything has.
    below: Option<DeliveryKey>,
    /// Rows that were looked at.
    rows: usize,
}

const UNDELIVERED: &str = "
    SELECT subscription_key, event_key FROM undelivered
    WHERE organization_id = $1 AND event_key >= $2 AND event_key <= $3
      AND (event_key < $3 OR subscription_key < $4)
    ORDER BY event_key DESC, subscription_key DESC LIMIT $5";

/// The newest of each subscription by primary key, then the newest of all: the
/// whole backlog is neither read nor sorted.
const DUE_POSTGRES: &str = "
    SELECT d.subscription_key, d.event_key FROM subscription s
    CROSS JOIN LATERAL (
        SELECT subscription_key, event_key FROM due
        WHERE subscription_key = s.key AND event_key >= $2 AND event_key <= $3
          AND (event_key < $3 OR s.key < $4)
        ORDER BY event_key DESC LIMIT $5) d
    WHERE s.organization_id = $1
    ORDER BY d.event_key DESC, d.subscription_key DESC LIMIT $5";
/// The same without LATERAL. In SQLite, CROSS JOIN fixes the order of the loops.
const DUE_SQLITE: &str = "
    SELECT d.subscription_key, d.event_key FROM subscription s
    CROSS JOIN due d ON d.subscription_key = s.key AND d.event_key IN (
        SELECT event_key FROM due
        WHERE subscription_key = s.key AND event_key >= $2 AND event_key <= $3
          AND (event_key < $3 OR s.key < $4)
        ORDER BY event_key DESC LIMIT $5)
    WHERE s.organization_id = $1
    ORDER BY d.event_key DESC, d.subscription_key DESC LIMIT $5";

/// Below this key every event of every live replica is settled or has due rows.
const LOW_KEY: &str = "SELECT min(low_key) AS low, count(*) AS live FROM replica";
const TAIL: &str = "SELECT key FROM event ORDER BY key DESC LIMIT 1 OFFSET $1";

impl Store {
    /// An organization's deliveries, newest first. Looks at about 10,000 candidates
    /// at most; a page may be short, even empty, with more to come.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn deliveries(
        &self,
        organization: &OrganizationId,
        filter: &DeliveryFilter,
        before: Option<DeliveryKey>,
        limit: usize,
    ) -> Result<DeliveryPage, StoreError> {
        let snapshot = self.snapshot(organization).await?;
        if let Some(subscription) = filter.subscription
            && !self.has_had(&snapshot, organization, subscription).await?
        {
            return Ok(DeliveryPage { deliveries: Vec::new(), next: None });
        }
        let of_event = filter.of_event();
        let walk = Walk { transaction: &snapshot, organization, filter, floor: of_event.floor() };
        let sources = self.sources(&walk).await?;
        let ceiling = DeliveryKey { event: of_event.ceiling(), subscription: LAST };
        let mut below = before.map_or(ceiling, |before| before.min(ceiling));
        let mut page = DeliveryPage { deliveries: Vec::new(), next: None };
        let mut scanned = 0;
        loop {
            let chunk = self.candidates(&walk, &sources, below).await?;
            scanned += chunk.rows.max(chunk.pairs.len()).max(1);
            for delivery in self.views(&snapshot, organization, &chunk.pairs).await? {
                if !wanted(filter, &of_event, &delivery) {
                    continue;
                }
                if limit <= page.deliveries.len() {
                    page.next = page.deliveries.last().map(key_of);
                    return Ok(page);
                }
                page.deliveries.push(delivery);
            }
            let Some(next) = chunk.below else { return Ok(page) };
            below = next;
            if SCAN_MAX <= scanned {
                page.next = Some(below);
                return Ok(page);
            }
        }
    }

    /// Whether the subscription is, or was, one of the organization's. The walk does not
    /// look, and would tell by its pages how much another's subscription has.
    async fn has_had(
        &self,
        transaction: &Transaction,
        organization: &OrganizationId,
        subscription: SubscriptionKey,
    ) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM subscription WHERE key = $1 AND organization_id = $2";
        let values = vec![subscription.0.into(), organization.as_str().into()];
        Ok(transaction.query_one_raw(self.statement(sql, values)).await?.is_some())
    }

    /// Sources that together know every delivery that the filter can let through.
    async fn sources(&self, walk: &Walk<'_>) -> Result<Vec<Source>, StoreError> {
        let filter = walk.filter;
        if filter.event.is_some() {
            return Ok(vec![Source::Event]);
        }
        if filter.only(&[DeliveryState::Dead, DeliveryState::Cancelled]) {
            return Ok(vec![Source::Undelivered]);
        }
        if filter.only(&[DeliveryState::Pending]) {
            return Ok(vec![Source::Due]);
        }
        if filter.only(&[DeliveryState::Pending, DeliveryState::InFlight]) {
            return Ok(vec![Source::Due, Source::Events(self.tail(walk).await?)]);
        }
        if filter.subscription.is_some() {
            let tail = Source::Events(self.tail(walk).await?);
            return Ok(vec![Source::Attempts, Source::Due, Source::Undelivered, tail]);
        }
        Ok(vec![Source::Events(walk.floor)])
    }

    /// Deliveries of events from this key on may be under way for the first time,
    /// which no row of theirs tells.
    async fn tail(&self, walk: &Walk<'_>) -> Result<EventKey, StoreError> {
        let found = walk.transaction.query_one_raw(self.statement(LOW_KEY, vec![])).await?;
        let found = found.ok_or(StoreError::Corrupt("replica"))?;
        let low = match column::<Option<i64>>(&found, "low")? {
            // Nobody is there: take-overs have given everything its due row.
            None => i64::MAX,
            Some(0) => {
                let tail = self.statement(TAIL, vec![TAIL_EVENTS.into()]);
                let found = walk.transaction.query_one_raw(tail).await?;
                found.map_or(Ok(i64::MIN), |found| column(&found, "key"))?
            }
            Some(low) => low,
        };
        Ok(walk.floor.max(EventKey(low)))
    }

    /// The next candidates below a pair. Sources that come to different ends are cut
    /// at the one that came least far.
    async fn candidates(
        &self,
        walk: &Walk<'_>,
        sources: &[Source],
        below: DeliveryKey,
    ) -> Result<Chunk, StoreError> {
        let mut pairs = Vec::new();
        let (mut cut, mut rows) = (None, 0);
        for source in sources {
            let part = self.part(walk, *source, below).await?;
            cut = cut.max(part.below);
            rows = rows.max(part.rows);
            pairs.extend(part.pairs);
        }
        pairs.retain(|pair| cut.is_none_or(|cut| cut <= *pair));
        pairs.sort_unstable();
        pairs.dedup();
        pairs.reverse();
        Ok(Chunk { pairs, below: cut, rows })
    }

    async fn part(
        &self,
        walk: &Walk<'_>,
        source: Source,
        below: DeliveryKey,
    ) -> Result<Chunk, StoreError> {
        let table = match (source, walk.filter.subscription) {
            (Source::Event, _) => return self.event_part(walk, below).await,
            (Source::Events(floor), _) => return self.events_part(walk, floor, below).await,
            (Source::Undelivered, None) => return self.pairs_part(walk, UNDELIVERED, below).await,
            (Source::Due, None) if self.is_shared() => {
                return self.pairs_part(walk, DUE_POSTGRES, below).await;
            }
            (Source::Due, None) => return self.pairs_part(walk, DUE_SQLITE, below).await,
            (Source::Undelivered, Some(key)) => ("undelivered", key),
            (Source::Due, Some(key)) => ("due", key),
            (Source::Attempts, Some(key)) => ("attempt", key),
            (Source::Attempts, None) => {
                return Ok(Chunk { pairs: Vec::new(), below: None, rows: 0 });
            }
        };
        let (table, key) = table;
        let sql = format!(
            "SELECT DISTINCT subscription_key, event_key FROM {table}
             WHERE subscription_key = $1 AND event_key >= $2 AND event_key <= $3
               AND (event_key < $3 OR subscription_key < $4)
             ORDER BY event_key DESC LIMIT $5"
        );
        self.read_pairs(walk, &sql, key.0.into(), below).await
    }

    /// From a statement over all of the organization.
    async fn pairs_part(
        &self,
        walk: &Walk<'_>,
        sql: &str,
        below: DeliveryKey,
    ) -> Result<Chunk, StoreError> {
        self.read_pairs(walk, sql, walk.organization.as_str().into(), below).await
    }

    async fn read_pairs(
        &self,
        walk: &Walk<'_>,
        sql: &str,
        first: Value,
        below: DeliveryKey,
    ) -> Result<Chunk, StoreError> {
        let values = vec![
            first,
            walk.floor.0.into(),
            below.event.0.into(),
            below.subscription.0.into(),
            LIMIT.into(),
        ];
        let rows = walk.transaction.query_all_raw(self.statement(sql, values)).await?;
        let pairs = rows.iter().map(read_pair).collect::<Result<Vec<_>, _>>()?;
        let last = pairs.last().copied();
        Ok(Chunk { below: last.filter(|_| CHUNK <= rows.len()), pairs, rows: rows.len() })
    }

    /// The targets of the filter's event.
    async fn event_part(&self, walk: &Walk<'_>, below: DeliveryKey) -> Result<Chunk, StoreError> {
        let Some(event) = walk.filter.event else {
            return Ok(Chunk { pairs: Vec::new(), below: None, rows: 0 });
        };
        let targets = match self.targets(walk.transaction, walk.organization, event).await {
            Err(StoreError::NotFound) => Vec::new(),
            targets => targets?,
        };
        Ok(expand(walk.filter, vec![(event, targets)], below, None))
    }

    /// The targets of the organization's events.
    async fn events_part(
        &self,
        walk: &Walk<'_>,
        floor: EventKey,
        below: DeliveryKey,
    ) -> Result<Chunk, StoreError> {
        let holds = match walk.filter.subscription {
            // May hit across two keys; `expand` looks again.
            Some(_) if self.is_shared() => "AND position($4 IN targets) > 0",
            Some(_) => "AND instr(targets, $4) > 0",
            None => "",
        };
        let sql = format!(
            "SELECT key, targets FROM event
             WHERE organization_id = $1 AND key >= $2 AND key <= $3 {holds}
             ORDER BY key DESC LIMIT {CHUNK}"
        );
        let mut values =
            vec![walk.organization.as_str().into(), floor.0.into(), below.event.0.into()];
        if let Some(key) = walk.filter.subscription {
            values.push(key.0.to_be_bytes().to_vec().into());
        }
        let rows = walk.transaction.query_all_raw(self.statement(&sql, values)).await?;
        let mut events = Vec::with_capacity(rows.len());
        for found in &rows {
            let targets = row::unpack(&column::<Vec<u8>>(found, "targets")?);
            events.push((EventKey(column(found, "key")?), targets));
        }
        let last = events.last().filter(|_| CHUNK <= rows.len()).map(|(event, _)| *event);
        Ok(expand(walk.filter, events, below, last))
    }
}

/// Comes after every subscription.
const LAST: SubscriptionKey = SubscriptionKey(i64::MAX);
/// Comes before every subscription.
const FIRST: SubscriptionKey = SubscriptionKey(i64::MIN);
/// [`CHUNK`] as a database takes it.
const LIMIT: i64 = 250;

/// Pairs of events and their targets, up to a chunk. `last`: the event where the
/// look-up stopped, if it did not come to the end.
fn expand(
    filter: &DeliveryFilter,
    events: Vec<(EventKey, Vec<SubscriptionKey>)>,
    below: DeliveryKey,
    last: Option<EventKey>,
) -> Chunk {
    let rows = events.len();
    let mut pairs: Vec<DeliveryKey> = Vec::new();
    for (event, mut targets) in events {
        targets.sort_unstable();
        for subscription in targets.into_iter().rev() {
            let pair = DeliveryKey { event, subscription };
            if below <= pair || filter.subscription.is_some_and(|only| only != subscription) {
                continue;
            }
            if CHUNK <= pairs.len() {
                return Chunk { below: pairs.last().copied(), pairs, rows };
            }
            pairs.push(pair);
        }
    }
    let below = last.map(|event| DeliveryKey { event, subscription: FIRST });
    Chunk { pairs, below, rows }
}

fn wanted(filter: &DeliveryFilter, of_event: &EventFilter, delivery: &Delivery) -> bool {
    (filter.states.is_empty() || filter.states.contains(&delivery.state))
        && filter.subscription.is_none_or(|key| key == delivery.subscription)
        && filter.event.is_none_or(|key| key == delivery.event.key)
        && of_event.holds(&delivery.event)
}

fn key_of(delivery: &Delivery) -> DeliveryKey {
    DeliveryKey { event: delivery.event.key, subscription: delivery.subscription }
}

fn read_pair(found: &QueryResult) -> Result<DeliveryKey, StoreError> {
    Ok(DeliveryKey {
        event: EventKey(column(found, "event_key")?),
        subscription: SubscriptionKey(column(found, "subscription_key")?),
    })
}
