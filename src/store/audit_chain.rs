//! Chains of audit entries as a whole: followed from one end to the other, and made shorter
//! at their old end.

use sea_orm::{ConnectionTrait, QueryResult};

use super::audit::{AuditHead, hash, head, read};
use super::engine::column;
use super::link::{Purpose, Transaction};
use super::{Store, StoreError};
use crate::domain::audit::{Chain, ChainPoint, Misfit};
use crate::domain::timestamp::Timestamp;

/// What following a chain has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedChain {
    /// As it is stored; `None`: it is gone.
    pub head: Option<AuditHead>,
    /// Entries that fit.
    pub entries: u64,
    /// The first that does not fit: its number, when it was written if it is there, and why.
    pub misfit: Option<(i64, Option<Timestamp>, Misfit)>,
}

/// Entries read at a time.
const PAGE: usize = 1000;
/// Most entries purged in one transaction.
const PURGED_AT_ONCE: usize = 10_000;

const CHAINS: &str = "
    SELECT organization_id FROM audit_head
    UNION SELECT DISTINCT organization_id FROM audit_entry ORDER BY organization_id";
const OLDEST_CHAIN: &str = "
    SELECT organization_id FROM audit_head WHERE 0 < oldest_time AND oldest_time < $1
    ORDER BY oldest_time LIMIT 1";
/// The anchor comes before the delete: what lies beyond it cannot be deleted.
const ANCHOR: &str = "
    UPDATE audit_head SET purged_sequence = $2, purged_hash = $3, purged_time = $4,
        oldest_time = $5
    WHERE organization_id = $1";
const PURGE: &str = "DELETE FROM audit_entry WHERE organization_id = $1 AND sequence <= $2";

impl Store {
    /// Every chain that there is anything of.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn audit_chains(&self) -> Result<Vec<Chain>, StoreError> {
        let rows = self.read().query_all_raw(self.statement(CHAINS, vec![])).await?;
        rows.iter()
            .map(|row| Ok(Chain::stored(&column::<String>(row, "organization_id")?)))
            .collect()
    }

    /// Follows a chain from what is left of its beginning to its head, in one state of the
    /// database, and compares it with what others have noted of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn follow_audit_chain(
        &self,
        chain: &Chain,
        noted: &[ChainPoint],
    ) -> Result<FollowedChain, StoreError> {
        let snapshot = self.read().begin(Purpose::Snapshot, None).await?;
        let head = self.audit_head(&snapshot, chain).await?;
        let mut followed = FollowedChain { head, entries: 0, misfit: None };
        let mut last = followed.head.as_ref().map_or(ChainPoint::START, |head| head.purged);
        followed.misfit = contradiction(last, noted).map(|misfit| (last.sequence, None, misfit));
        while followed.misfit.is_none() {
            let rows = self.audit_page(&snapshot, chain, last.sequence, PAGE).await?;
            for row in &rows {
                let entry = read(row)?;
                let next = last.follow(&entry);
                let next = next.and_then(|next| contradiction(next, noted).map_or(Ok(next), Err));
                match next {
                    Ok(next) => last = next,
                    Err(misfit) => {
                        followed.misfit = Some((entry.sequence, Some(entry.time), misfit));
                        return Ok(followed);
                    }
                }
                followed.entries += 1;
            }
            if rows.len() < PAGE {
                break;
            }
        }
        let end = match &followed.head {
            // There never was anything, as far as anybody knows.
            None if followed.entries == 0 && noted.is_empty() => None,
            None => Some(Misfit::NoHead),
            Some(head) if head.point != last => Some(Misfit::End),
            Some(_) if noted.iter().any(|noted| last.sequence < noted.sequence) => {
                Some(Misfit::Noted)
            }
            Some(_) => None,
        };
        let end = end.map(|misfit| (last.sequence + 1, None, misfit));
        followed.misfit = followed.misfit.or(end);
        Ok(followed)
    }

    /// Deletes the oldest entries of one chain, of those that were written before `before`:
    /// at most so many, and at most 10,000; how many. Where the rest begins is kept, so that
    /// it can still be followed. 0: there are none in any chain.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn purge_audit(&self, before: Timestamp, rows_max: usize) -> Result<u64, StoreError> {
        let oldest = self.statement(OLDEST_CHAIN, vec![before.0.into()]);
        let Some(row) = self.write().query_one_raw(oldest).await? else { return Ok(0) };
        let chain = Chain::stored(&column::<String>(&row, "organization_id")?);
        let transaction = self.begin().await?;
        let head = self.lock_audit_head(&transaction, &chain).await?;
        let (start, rows_max) = (head.purged.sequence, rows_max.min(PURGED_AT_ONCE));
        let rows = self.audit_page(&transaction, &chain, start, rows_max + 1).await?;
        let time = |row: &QueryResult| column::<i64>(row, "time").map(Timestamp);
        let mut old = 0;
        while old < rows.len().min(rows_max) && time(&rows[old])? < before {
            old += 1;
        }
        let rest = rows.get(old).map(time).transpose()?.unwrap_or_default();
        let (last, last_time) = match old.checked_sub(1).map(|last| &rows[last]) {
            None => (head.purged, head.purged_time),
            Some(row) => {
                let point =
                    ChainPoint { sequence: column(row, "sequence")?, hash: hash(row, "hash")? };
                (point, time(row)?)
            }
        };
        let key = chain.key();
        let values = vec![
            key.into(),
            last.sequence.into(),
            last.hash.to_vec().into(),
            last_time.0.into(),
            rest.0.into(),
        ];
        transaction.execute_raw(self.statement(ANCHOR, values)).await?;
        let purge = self.statement(PURGE, vec![key.into(), last.sequence.into()]);
        let purged = transaction.execute_raw(purge).await?.rows_affected();
        transaction.commit().await?;
        Ok(purged)
    }

    async fn audit_head(
        &self,
        connection: &impl ConnectionTrait,
        chain: &Chain,
    ) -> Result<Option<AuditHead>, StoreError> {
        let sql = "SELECT * FROM audit_head WHERE organization_id = $1";
        let found = self.statement(sql, vec![chain.key().into()]);
        connection.query_one_raw(found).await?.as_ref().map(head).transpose()
    }

    async fn lock_audit_head(
        &self,
        transaction: &Transaction,
        chain: &Chain,
    ) -> Result<AuditHead, StoreError> {
        let lock = if self.is_shared() { "FOR UPDATE" } else { "" };
        let sql = format!("SELECT * FROM audit_head WHERE organization_id = $1 {lock}");
        let found = self.statement(&sql, vec![chain.key().into()]);
        let found = transaction.query_one_raw(found).await?;
        head(&found.ok_or(StoreError::Corrupt("audit_head"))?)
    }

    /// A chain's entries after this number, oldest first.
    async fn audit_page(
        &self,
        connection: &impl ConnectionTrait,
        chain: &Chain,
        after: i64,
        limit: usize,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let sql = format!(
            "SELECT * FROM audit_entry WHERE organization_id = $1 AND sequence > $2
             ORDER BY sequence LIMIT {limit}"
        );
        let values = vec![chain.key().into(), after.into()];
        Ok(connection.query_all_raw(self.statement(&sql, values)).await?)
    }
}

/// Whether somebody has noted another hash for this entry.
fn contradiction(point: ChainPoint, noted: &[ChainPoint]) -> Option<Misfit> {
    let other = |noted: &&ChainPoint| noted.sequence == point.sequence && noted.hash != point.hash;
    noted.iter().find(other).map(|_| Misfit::Noted)
}
