//! The audit log: an entry is written in the transaction of the change that it tells of, or
//! the change does not happen.
//!
//! A chain's head is one row. Whoever appends locks it as the last thing in his transaction,
//! so that entries follow each other, nobody waits for another organization's, and no two
//! wait for each other. Nothing of this is on the way of events: their rows carry who
//! published them.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, QueryResult, Value};

use super::engine::column;
use super::link::Transaction;
use super::{Store, StoreError};
use crate::domain::audit::{AuditEntry, Chain, ChainPoint, NewAuditEntry};
use crate::domain::timestamp::Timestamp;

/// Which entries of a chain; each part that is set must hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditFilter {
    /// Written at this time or later.
    pub from: Option<Timestamp>,
    /// Written before this time.
    pub to: Option<Timestamp>,
}

/// A place in a list of entries, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPlace {
    /// When the entry was written.
    pub time: Timestamp,
    /// Its number.
    pub sequence: i64,
}

/// How far a chain has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// Which chain.
    pub chain: Chain,
    /// Its last entry.
    pub point: ChainPoint,
    /// When that was written.
    pub update_time: Timestamp,
    /// The last entry that was purged.
    pub purged: ChainPoint,
    /// When that had been written; 0 when none was purged.
    pub purged_time: Timestamp,
}

/// Takes the next `$2` places of a chain, makes it if there is none, and holds its row
/// until the transaction ends. The hash and the time are those of the entry before.
const TAKE: &str = "
    INSERT INTO audit_head (organization_id, sequence, hash, update_time, oldest_time,
        purged_sequence, purged_hash, purged_time)
    VALUES ($1, $2, $3, 0, 0, 0, $3, 0)
    ON CONFLICT (organization_id) DO UPDATE SET sequence = audit_head.sequence + $2
    RETURNING sequence, hash, update_time, {now} AS now";
const INSERT: &str = "
    INSERT INTO audit_entry (organization_id, sequence, time, principal, credential_id, peer,
        method, object_ids, changed_fields, code, reason, request_id, payload_read, calls,
        previous_hash, hash)
    VALUES";
const COLUMNS: usize = 16;
/// Entries in one statement. Few sizes, so that few statements are prepared.
const ROWS: [usize; 4] = [64, 16, 4, 1];
const MOVE: &str = "
    UPDATE audit_head SET hash = $2, update_time = $3,
        oldest_time = CASE oldest_time WHEN 0 THEN $3 ELSE oldest_time END
    WHERE organization_id = $1";
const HEADS: &str = "
    SELECT * FROM audit_head WHERE (update_time, organization_id) > ($1, $2)
    ORDER BY update_time, organization_id LIMIT $3";

impl Store {
    /// Writes the entry of a change, in its transaction.
    pub(super) async fn audit(
        &self,
        transaction: &Transaction,
        entry: &NewAuditEntry,
    ) -> Result<(), StoreError> {
        self.append_to_chain(transaction, &entry.chain, &[entry]).await
    }

    /// Writes the entry of a call that changed nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn audit_alone(&self, entry: &NewAuditEntry) -> Result<(), StoreError> {
        let transaction = match &entry.chain {
            Chain::Organization(organization) => self.begin_for(organization).await?,
            Chain::Deployment => self.begin().await?,
        };
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Writes entries of calls that changed nothing: all or none, in one transaction.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]; [`StoreError::Rejected`] when one holds a value that the
    /// database does not take.
    pub async fn audit_all(&self, entries: &[NewAuditEntry]) -> Result<(), StoreError> {
        // In the order of the chains, so that no two of these wait for each other.
        let mut chains: BTreeMap<&Chain, Vec<&NewAuditEntry>> = BTreeMap::new();
        for entry in entries {
            chains.entry(&entry.chain).or_default().push(entry);
        }
        let transaction = self.begin().await?;
        for (chain, entries) in chains {
            self.append_to_chain(&transaction, chain, &entries).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Appends entries to their chain. At least one, all of that chain.
    async fn append_to_chain(
        &self,
        transaction: &Transaction,
        chain: &Chain,
        entries: &[&NewAuditEntry],
    ) -> Result<(), StoreError> {
        let count = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        let values = vec![chain.key().into(), count.into(), ChainPoint::START.hash.to_vec().into()];
        let taken = transaction.query_one_raw(self.statement(TAKE, values)).await?;
        let taken = taken.ok_or(StoreError::Corrupt("audit_head"))?;
        let sequence = column::<i64>(&taken, "sequence")?.saturating_sub(count);
        let mut last = ChainPoint { sequence, hash: hash(&taken, "hash")? };
        // A clock that was set back must not put an entry before the one before it.
        let time = column::<i64>(&taken, "now")?.max(column(&taken, "update_time")?);
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries {
            let linked = AuditEntry::after(&last, (*entry).clone(), Timestamp(time));
            last = linked.point();
            rows.push(row(linked));
        }
        while let Some(size) = ROWS.into_iter().find(|size| *size <= rows.len()) {
            let values = rows.drain(..size).flatten().collect();
            let sql = format!("{INSERT} {}", tuples(size));
            transaction.execute_raw(self.statement(&sql, values)).await?;
        }
        let values = vec![chain.key().into(), last.hash.to_vec().into(), time.into()];
        transaction.execute_raw(self.statement(MOVE, values)).await?;
        Ok(())
    }

    /// A chain's entries, newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn audit_entries(
        &self,
        chain: &Chain,
        filter: AuditFilter,
        before: Option<AuditPlace>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let end = AuditPlace { time: Timestamp(i64::MAX), sequence: i64::MAX };
        let before = before.unwrap_or(end);
        let sql = format!(
            "SELECT * FROM audit_entry
             WHERE organization_id = $1 AND time >= $2 AND time < $3 AND (time, sequence) < ($4, $5)
             ORDER BY time DESC, sequence DESC LIMIT {limit}"
        );
        let values = vec![
            chain.key().into(),
            filter.from.map_or(i64::MIN, |from| from.0).into(),
            filter.to.map_or(i64::MAX, |to| to.0).into(),
            before.time.0.into(),
            before.sequence.into(),
        ];
        let statement = self.statement(&sql, values);
        let rows = match chain {
            Chain::Organization(organization) => {
                self.reading(organization).await?.query_all_raw(statement).await?
            }
            Chain::Deployment => self.read().query_all_raw(statement).await?,
        };
        rows.iter().map(read).collect()
    }

    /// The heads of chains that have moved on, oldest change first: those after the one that
    /// moved last at this time, of this key.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn audit_heads(
        &self,
        after: (Timestamp, &str),
        limit: u32,
    ) -> Result<Vec<AuditHead>, StoreError> {
        let values = vec![after.0.0.into(), after.1.into(), i64::from(limit).into()];
        let rows = self.read().query_all_raw(self.statement(HEADS, values)).await?;
        rows.iter().map(head).collect()
    }
}

/// `($1, …), …` for so many entries.
fn tuples(rows: usize) -> String {
    let tuple = |row: usize| format!("({})", Store::list_from(COLUMNS * row, COLUMNS));
    (0..rows).map(tuple).collect::<Vec<_>>().join(", ")
}

/// The values of one row, in the order of the insert's columns.
fn row(linked: AuditEntry) -> Vec<Value> {
    let list = |texts: &[String]| serde_json::to_string(texts).expect("strings are JSON");
    let AuditEntry { entry, sequence, time, previous_hash, hash } = linked;
    vec![
        entry.chain.key().into(),
        sequence.into(),
        time.0.into(),
        entry.principal.into(),
        entry.credential_id.into(),
        entry.peer.into(),
        entry.method.into(),
        list(&entry.object_ids).into(),
        list(&entry.changed_fields).into(),
        entry.code.into(),
        entry.reason.into(),
        entry.request_id.into(),
        entry.payload_read.into(),
        i64::from(entry.calls).into(),
        previous_hash.to_vec().into(),
        hash.to_vec().into(),
    ]
}

/// An entry as it is stored. What somebody has made unreadable becomes something that does
/// not fit the entry's hash: it is shown, and found by who follows the chain.
pub(super) fn read(row: &QueryResult) -> Result<AuditEntry, StoreError> {
    let list = |name| {
        let text: String = column(row, name)?;
        Ok::<_, StoreError>(serde_json::from_str(&text).unwrap_or_else(|_| vec![text]))
    };
    let entry = NewAuditEntry {
        chain: Chain::stored(&column::<String>(row, "organization_id")?),
        principal: column(row, "principal")?,
        credential_id: column(row, "credential_id")?,
        peer: column(row, "peer")?,
        method: column(row, "method")?,
        object_ids: list("object_ids")?,
        code: column(row, "code")?,
        reason: column(row, "reason")?,
        changed_fields: list("changed_fields")?,
        request_id: column(row, "request_id")?,
        payload_read: column(row, "payload_read")?,
        calls: u32::try_from(column::<i64>(row, "calls")?).unwrap_or_default(),
    };
    Ok(AuditEntry {
        entry,
        sequence: column(row, "sequence")?,
        time: Timestamp(column(row, "time")?),
        previous_hash: hash(row, "previous_hash")?,
        hash: hash(row, "hash")?,
    })
}

pub(super) fn head(row: &QueryResult) -> Result<AuditHead, StoreError> {
    Ok(AuditHead {
        chain: Chain::stored(&column::<String>(row, "organization_id")?),
        point: ChainPoint { sequence: column(row, "sequence")?, hash: hash(row, "hash")? },
        update_time: Timestamp(column(row, "update_time")?),
        purged: ChainPoint {
            sequence: column(row, "purged_sequence")?,
            hash: hash(row, "purged_hash")?,
        },
        purged_time: Timestamp(column(row, "purged_time")?),
    })
}

/// One of another length is no hash, and fits nothing.
pub(super) fn hash(row: &QueryResult, name: &'static str) -> Result<[u8; 32], StoreError> {
    Ok(column::<Vec<u8>>(row, name)?.try_into().unwrap_or([0xff; 32]))
}
