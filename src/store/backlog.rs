//! How many deliveries of an organization are open.

use sea_orm::ConnectionTrait;

use super::engine::column;
use super::{Store, StoreError};
use crate::domain::id::OrganizationId;

/// One row of `due` for each delivery that its first attempt has not settled. What is in a
/// replica's memory instead is bounded there, and short-lived.
const OPEN: &str = "
    SELECT subscription.organization_id, CAST(sum(open.deliveries) AS bigint) AS deliveries
    FROM (
        SELECT subscription_key, count(*) AS deliveries FROM due GROUP BY subscription_key
    ) open JOIN subscription ON subscription.key = open.subscription_key
    GROUP BY subscription.organization_id
    HAVING CAST(sum(open.deliveries) AS bigint) >= $1";

/// No page of PostgreSQL holds more of them: 8192 bytes with a header of 24, and a row of
/// `due` takes at least 72 and a pointer of 4.
const ROWS_PER_PAGE_MAX: u64 = 107;
const PAGES: &str = "SELECT pg_relation_size('due') / 8192 AS pages";

/// An organization with many open deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenDeliveries {
    /// Whose.
    pub organization: OrganizationId,
    /// How many.
    pub count: u64,
}

impl Store {
    /// The organizations with at least so many open deliveries. On PostgreSQL nothing of
    /// `due` is read while it has no room for so many; else all of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn open_deliveries(&self, least: u64) -> Result<Vec<OpenDeliveries>, StoreError> {
        if self.is_shared() {
            let row = self.read().query_one_raw(self.statement(PAGES, vec![])).await?;
            let pages: i64 = row.map_or(Ok(0), |row| column(&row, "pages"))?;
            if u64::try_from(pages).unwrap_or(0) * ROWS_PER_PAGE_MAX < least {
                return Ok(Vec::new());
            }
        }
        let least = i64::try_from(least).unwrap_or(i64::MAX);
        let rows = self.read().query_all_raw(self.statement(OPEN, vec![least.into()])).await?;
        let one = |row| {
            let organization: String = column(row, "organization_id")?;
            let count: i64 = column(row, "deliveries")?;
            Ok(OpenDeliveries {
                organization: OrganizationId::stored(&organization),
                count: u64::try_from(count).unwrap_or(0),
            })
        };
        rows.iter().map(one).collect()
    }
}
