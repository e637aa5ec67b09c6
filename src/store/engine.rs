//! Saying one thing in two dialects: placeholders, clocks and many-row inserts.

use sea_orm::{ConnectionTrait, QueryResult, Statement, Value, sqlx};

use super::link::{Purpose, Reading, Transaction};
use super::{Store, StoreError};
use crate::domain::id::OrganizationId;

/// A statement of the hot path, on its way to PostgreSQL: its values are written into
/// the connection's buffer as they are bound, without a copy of their own.
pub(super) type PostgresQuery<'q> =
    sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// The database's clock, in microseconds. PostgreSQL's `clock_timestamp()` goes on
/// inside a transaction; `now()` would stand still.
const NOW_POSTGRES: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::int8";
const NOW_SQLITE: &str = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)";

/// Sizes of SQLite's statements over many rows: every number up to 255 is a sum of a few,
/// so few statements are prepared and few are sent.
const ROWS: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

/// Most rows that SQLite takes in one statement of its own. Every statement there is a
/// trip to the connection's thread and back, so a small group is one trip and not five;
/// each size up to this is prepared once.
pub(super) const ALONE_MAX: usize = 16;

impl Store {
    /// `sql` for this engine; `{now}` becomes the database's clock. Both engines
    /// read `$1` as the first value.
    pub(super) fn statement(&self, sql: &str, values: Vec<Value>) -> Statement {
        let now = if self.is_shared() { NOW_POSTGRES } else { NOW_SQLITE };
        Statement::from_sql_and_values(self.inner.engine, sql.replace("{now}", now), values)
    }

    /// Runs a statement of the hot path as its own transaction, and tells how many rows
    /// it wrote.
    pub(super) async fn execute_postgres(
        &self,
        query: PostgresQuery<'_>,
    ) -> Result<u64, StoreError> {
        Ok(self.write().execute_postgres(query).await?)
    }

    /// A transaction of the engine's own, for writing.
    pub(super) async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(self.write().begin(Purpose::Writing, None).await?)
    }

    /// A transaction for writing what is one organization's.
    pub(super) async fn begin_for(
        &self,
        organization: &OrganizationId,
    ) -> Result<Transaction, StoreError> {
        Ok(self.write().begin(Purpose::Writing, Some(organization)).await?)
    }

    /// The way of one organization's look-ups.
    pub(super) async fn reading(
        &self,
        organization: &OrganizationId,
    ) -> Result<Reading<'_>, StoreError> {
        Ok(self.read().reading(organization).await?)
    }

    /// Reads of one organization that belong together: all from one state of the database.
    pub(super) async fn snapshot(
        &self,
        organization: &OrganizationId,
    ) -> Result<Transaction, StoreError> {
        Ok(self.read().begin(Purpose::Snapshot, Some(organization)).await?)
    }

    /// Inserts `rows` of `columns` values each. `head` ends before VALUES, `tail`
    /// follows it. For SQLite; PostgreSQL takes arrays.
    pub(super) async fn insert_rows(
        &self,
        transaction: &Transaction,
        head: &str,
        columns: usize,
        tail: &str,
        mut values: impl Iterator<Item = Vec<Value>>,
        mut rows: usize,
    ) -> Result<u64, StoreError> {
        let mut inserted = 0;
        while let Some(size) = ROWS.into_iter().find(|size| *size <= rows) {
            rows -= size;
            let sql = format!("{head} {} {tail}", placeholders(size, columns));
            let chunk: Vec<Value> = values.by_ref().take(size).flatten().collect();
            let result = transaction.execute_raw(self.statement(&sql, chunk)).await?;
            inserted += result.rows_affected();
        }
        Ok(inserted)
    }
}

impl Store {
    /// Inserts at most [`ALONE_MAX`] rows, all of the same length, in one statement that
    /// is its own transaction, and tells how many were inserted: all, or none when the
    /// condition does not hold. `condition` begins with WHERE and takes `more`. For SQLite.
    pub(super) async fn insert_alone(
        &self,
        head: &str,
        rows: Vec<Vec<Value>>,
        condition: &str,
        more: Vec<Value>,
    ) -> Result<u64, StoreError> {
        let Some(columns) = rows.first().map(Vec::len) else { return Ok(0) };
        let sql =
            format!("{head} SELECT * FROM ({}) {condition}", placeholders(rows.len(), columns));
        let values = rows.into_iter().flatten().chain(more).collect();
        Ok(self.write().execute_raw(self.statement(&sql, values)).await?.rows_affected())
    }
}

impl Store {
    /// What stands in `IN ({})` for any number of keys, behind `before` other values, and
    /// the values for it. One text serves many numbers, so that few statements are parsed,
    /// planned and kept: SQLite takes the keys as one JSON array; on PostgreSQL the last one
    /// is repeated up to a power of two, since partitions are left out of the search only
    /// for keys that are values of their own.
    pub(super) fn among(
        &self,
        before: usize,
        keys: impl IntoIterator<Item = i64>,
    ) -> (String, Vec<Value>) {
        let mut keys: Vec<i64> = keys.into_iter().collect();
        if keys.is_empty() {
            return ("NULL".to_owned(), Vec::new());
        }
        if !self.is_shared() {
            let list = format!("SELECT value FROM json_each(${})", before + 1);
            return (list, vec![json(&keys).into()]);
        }
        if let Some(&last) = keys.last() {
            keys.resize(keys.len().next_power_of_two(), last);
        }
        (Store::list_from(before, keys.len()), keys.into_iter().map(Value::from).collect())
    }

    /// `$1, $2, …` behind `before` other values.
    pub(super) fn list_from(before: usize, count: usize) -> String {
        let one = |number| format!("${number}");
        (before + 1..=before + count).map(one).collect::<Vec<_>>().join(", ")
    }

    /// `VALUES ($1, $2), …`
    pub(super) fn pairs(count: usize) -> String {
        let pair = |number: usize| format!("({})", Store::list_from(2 * number, 2));
        format!("VALUES {}", (0..count).map(pair).collect::<Vec<_>>().join(", "))
    }
}

/// Numbers as a JSON array, which SQLite takes apart with `json_each`.
pub(super) fn json(numbers: &[i64]) -> String {
    serde_json::to_string(numbers).expect("numbers are JSON")
}

/// `VALUES (?, ?), (?, ?)` for `rows` of `columns`.
fn placeholders(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    format!("VALUES {}", vec![row; rows].join(","))
}

/// One row's column, or [`StoreError::Corrupt`].
pub(super) fn column<T: sea_orm::TryGetable>(
    row: &QueryResult,
    name: &'static str,
) -> Result<T, StoreError> {
    row.try_get("", name).map_err(|_| StoreError::Corrupt(name))
}
