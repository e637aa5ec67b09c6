//! SQLite alone: what a full disk does to the connection that writes.

use bytes::Bytes;
use sea_orm::ConnectionTrait;

use super::world::{Draft, World};
use crate::domain::event::Payload;
use crate::domain::id::EventKey;
use crate::store::{Committed, NewEventRow, Store, StoreError};

/// More than the free pages of a small file can hold.
const LARGE: usize = 1 << 20;

/// A full disk ends the statement or the whole transaction, depending on the statement. In
/// this order the two once left the driver in a transaction that it took for a savepoint:
/// later commits were answered and never stored.
#[tokio::test]
async fn what_is_answered_after_a_full_disk_is_stored() {
    super::on_sqlite(async |store: Store| {
        let world = World::new(store).await;
        // Sixteen rows go in as one statement, the seventeenth as another.
        let in_a_statement_of_its_own = batch(&world, 16);
        let in_a_statement_of_many = batch(&world, 0);
        for rows in [in_a_statement_of_its_own, in_a_statement_of_many] {
            pragma(&world, "PRAGMA max_page_count = 1").await;
            let refused = world.commit(&rows).await;
            assert!(matches!(refused, Err(StoreError::StorageFull)), "{refused:?}");
            pragma(&world, "PRAGMA max_page_count = 4294967294").await;
            for row in &rows {
                assert!(!is_stored(&world, row).await, "all or nothing");
            }
        }
        for rows in [batch(&world, 0), vec![world.row(&Draft::to(&[]))]] {
            assert_eq!(world.commit(&rows).await.expect("there is space"), Committed::Stored);
            for row in &rows {
                assert!(is_stored(&world, row).await, "another connection sees it");
            }
        }
    })
    .await;
}

/// Seventeen rows, one of them large.
fn batch(world: &World, large: usize) -> Vec<NewEventRow> {
    let payload = |place| if place == large { LARGE } else { 1 };
    let row = |place| {
        let payload = Payload::Raw(Bytes::from(vec![b'x'; payload(place)]));
        world.row(&Draft { payload, ..Draft::to(&[]) })
    };
    (0..17).map(row).collect()
}

async fn pragma(world: &World, sql: &str) {
    world.store.write().execute_unprepared(sql).await.expect("a pragma");
}

/// By a connection that reads: it sees what is committed.
async fn is_stored(world: &World, row: &NewEventRow) -> bool {
    let EventKey(key) = row.event.summary.key;
    let sql = "SELECT key FROM event WHERE key = $1";
    let statement = world.store.statement(sql, vec![key.into()]);
    world.store.read().query_one_raw(statement).await.expect("reads").is_some()
}
