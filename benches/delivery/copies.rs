//! Databases that have grown: rows that were really made, copied many times while the
//! service is stopped.
//!
//! A copy differs from its original in nothing but what makes it another one: keys
//! and times lie further back. Columns are read from the catalog, so that a copy is
//! whole whatever a table holds.

use std::fmt::Write as _;

use anyhow::ensure;

use crate::audience::NEIGHBOUR;
use crate::database::Database;

/// Subscriptions of each organization.
pub(crate) const SUBSCRIPTIONS_EACH: u64 = 10;
/// Tables that tell about deliveries, with the columns that are keys of events and
/// those that are times in microseconds.
const TABLES: [(&str, &str, &[&str]); 3] = [
    ("event", "key", &["occur_time", "publish_time"]),
    ("attempt", "event_key", &["start_time"]),
    ("due", "event_key", &["due_at"]),
];
/// Bits of an event's key below its milliseconds.
const MILLIS_SHIFT: u32 = 22;
/// Copied subscriptions are at least so much older than the real ones, in milliseconds:
/// no key is taken.
const APART_MS: u64 = 10_000_000;

/// Copies every event with its attempts and due rows until there are `wanted` events:
/// oldest first, as they would have come.
pub(crate) fn copy_deliveries(database: &Database, wanted: u64) -> anyhow::Result<()> {
    let seeds = database.number("SELECT CAST(count(*) AS text) FROM event")?;
    ensure!(0 < seeds, "there is nothing to copy");
    let (rounds, empty) = (wanted.div_ceil(seeds), empty(database));
    let span = format!(
        "SELECT CAST(max(key >> {MILLIS_SHIFT}) - min(key >> {MILLIS_SHIFT}) + 1 AS text) FROM event"
    );
    let span_ms = database.number(&span)?;
    let mut script = "BEGIN; ".to_owned();
    for (table, key, times) in TABLES {
        write!(
            script,
            "CREATE TEMP TABLE seed_{table} AS SELECT * FROM {table}; {empty} {table}; "
        )?;
        let columns = database.columns(table)?;
        for back in (0..rounds).rev() {
            let back_ms = back * span_ms;
            let copied = columns.iter().map(|name| {
                if name == key {
                    format!("{name} - {}", back_ms << MILLIS_SHIFT)
                } else if times.contains(&name.as_str()) {
                    format!("{name} - {}", back_ms * 1000)
                } else {
                    name.clone()
                }
            });
            let (columns, copied) = (columns.join(", "), copied.collect::<Vec<_>>().join(", "));
            writeln!(
                script,
                "INSERT INTO {table} ({columns}) SELECT {copied} FROM seed_{table} ORDER BY {key};"
            )?;
        }
    }
    script.push_str("COMMIT;");
    database.build(&script)?;
    let made = database.number("SELECT CAST(count(*) AS text) FROM event")?;
    ensure!(wanted <= made, "{made} events instead of {wanted}");
    database.tidy()
}

/// Copies the neighbour's one subscription, and its secret, until there are so many
/// organizations of ten.
pub(crate) fn copy_organizations(database: &Database, organizations: u64) -> anyhow::Result<()> {
    let count = organizations * SUBSCRIPTIONS_EACH;
    let series = format!(
        "WITH RECURSIVE series (n) AS (
             SELECT CAST(1 AS bigint) UNION ALL SELECT n + 1 FROM series WHERE n < {count})"
    );
    let back = format!("((n + {APART_MS}) << {MILLIS_SHIFT})");
    let owner = NEIGHBOUR.organization;
    let mut script = "BEGIN; ".to_owned();
    let original = format!("(SELECT key FROM subscription WHERE organization_id = '{owner}')");
    for (table, its_key) in [("signing_secret", "subscription_key"), ("subscription", "key")] {
        let columns = database.columns(table)?;
        let copied = columns.iter().map(|name| match name.as_str() {
            "key" | "subscription_key" => format!("{name} - {back}"),
            "organization_id" => format!("'org-' || ((n - 1) / {SUBSCRIPTIONS_EACH})"),
            _ => name.clone(),
        });
        let (columns, copied) = (columns.join(", "), copied.collect::<Vec<_>>().join(", "));
        writeln!(
            script,
            "{series} INSERT INTO {table} ({columns}) SELECT {copied} FROM series, {table}
             WHERE {its_key} = {original};"
        )?;
    }
    script.push_str("COMMIT;");
    database.build(&script)?;
    let made = database.number("SELECT CAST(count(*) AS text) FROM subscription")?;
    ensure!(count < made, "{made} subscriptions instead of {count} and the real ones");
    database.tidy()
}

/// SQLite's DELETE without a condition is as quick as TRUNCATE, which it has not.
fn empty(database: &Database) -> &'static str {
    if database.server.is_some() { "TRUNCATE" } else { "DELETE FROM" }
}
