//! SQLite alone: what a full disk does to the connection that writes.

use bytes::Bytes;
use sea_orm::ConnectionTrait;

use super::world::{Draft, World};
use crate::domain::event::Payload;
use crate::domain::id::EventKey;
use crate::store::{Commit, Committed, NewEventRow, Stale, Store, StoreError};

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

/// The transaction of whoever has the connection ends behind the driver's back while others
/// are in line for it, as when the disk is full at its end.
#[tokio::test]
async fn what_is_answered_to_those_who_were_in_line_is_stored() {
    super::on_sqlite(async |store: Store| {
        let world = World::new(store).await;
        let broken = world.store.begin().await.expect("begins");
        broken.execute_unprepared("ROLLBACK").await.expect("the driver does not know");
        let rows = batch(&world, 0);
        let routing_version = world.store.routing_version().await.expect("version");
        let commit = Commit {
            fence: world.fence,
            routing_version,
            stale: Stale::ByAnyChange,
            events: &rows,
        };
        // One that gives up, then one that stores; both are in line when it is too late.
        let gives_up = async { world.store.begin().await.map(drop) };
        let stores = world.store.commit(&commit);
        let fails = async {
            tokio::task::yield_now().await;
            broken.execute_unprepared("no statement").await.expect_err("it is none");
            drop(broken);
        };
        let (_, committed, ()) = tokio::join!(gives_up, stores, fails);
        if committed.is_ok_and(|committed| committed == Committed::Stored) {
            for row in &rows {
                assert!(is_stored(&world, row).await, "another connection sees it");
            }
        }
        let rows = batch(&world, 0);
        assert_eq!(world.commit(&rows).await.expect("another connection"), Committed::Stored);
        assert!(is_stored(&world, &rows[0]).await);
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
