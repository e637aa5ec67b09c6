//! Somebody who holds tables of a PostgreSQL database locked.

use std::process::{Child, Stdio};

use super::eventually::eventually;
use super::postgres::Cluster;

/// Locks `tables`, separated by commas, against everybody, for so many seconds or until its
/// connection ends; returns once all are locked. The child is the holder.
pub(crate) async fn lock(cluster: &Cluster, tables: &str, seconds: u32) -> Child {
    let sql =
        format!("BEGIN; LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({seconds})");
    let mut holder = cluster.psql("hookward", &sql);
    let holder = holder.stdout(Stdio::null()).spawn().expect("psql is there");
    let last = tables.rsplit(',').next().unwrap_or(tables).trim();
    let held = format!(
        "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'
         AND relation = '{last}'::regclass AND granted"
    );
    eventually("the locks", async || (cluster.sql("hookward", &held).trim() == "1").then_some(()))
        .await;
    holder
}
