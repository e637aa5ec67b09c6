//! Opening a database: one that a later version has migrated, and who reads it.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, Database, DbBackend, QueryResult, Statement, TransactionTrait};
use sea_orm_migration::MigratorTrait;

use super::postgres;
use super::world::{World, acme};
use crate::keyring::Keyring;
use crate::store::migrations::Migrations;
use crate::store::{Settings, Store, Target};

/// A later version has migrated the database, and this one is started again beside it, or
/// after it was rolled back.
async fn a_database_of_a_later_version_is_served(target: Target) {
    let settings = Settings { target, connections_max: 4, keyring: Keyring::default() };
    Store::migrate(&settings).await.expect("migrates");
    let store = Store::open(&settings).await.expect("opens");
    let later = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_later', 0)";
    store.write().execute_unprepared(later).await.expect("inserts");
    store.close().await;
    drop(store);

    assert_eq!(Store::migrate(&settings).await.expect("finds nothing to do"), 0);
    let store = Store::open(&settings).await.expect("opens");
    World::new(store.clone()).await;
    store.close().await;
}

#[tokio::test]
async fn a_database_of_a_later_version_is_served_on_sqlite() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("hookward.db");
    a_database_of_a_later_version_is_served(Target::Sqlite(file)).await;
}

#[tokio::test]
async fn a_database_of_a_later_version_is_served_on_postgres() {
    if let Some(url) = postgres::database("later") {
        a_database_of_a_later_version_is_served(Target::Postgres(url)).await;
    }
}

/// Somebody reads for long what a migration has to change.
#[tokio::test]
async fn nobody_waits_long_behind_a_migration_that_waits_on_postgres() {
    let Some(url) = postgres::database("patient_migration") else { return };
    let others = Database::connect(&url).await.expect("connects");
    // The tenth changes `attempt`.
    Migrations::up(&others, Some(9)).await.expect("migrates");
    let reader = others.begin().await.expect("begins");
    reader.execute_unprepared("SELECT 1 FROM attempt").await.expect("reads");
    let target = Target::Postgres(url);
    let settings = Settings { target, connections_max: 4, keyring: Keyring::default() };
    let work = async {
        let (begun, mut longest) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            let read = others.execute_unprepared("SELECT 1 FROM attempt");
            let read = tokio::time::timeout(Duration::from_secs(3), read).await;
            read.expect("nobody waits for long").expect("reads");
            longest = longest.max(asked.elapsed());
        }
        reader.rollback().await.expect("ends");
        longest
    };

    let ((longest, stood), migrated) =
        tokio::join!(async { (work.await, Instant::now()) }, async {
            (Store::migrate(&settings).await.expect("migrates"), Instant::now())
        },);

    assert_eq!(migrated.0, Migrations::migrations().len() - 9);
    assert!(stood < migrated.1, "it waited for the reader");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

/// Once a day, where the service does not own the tables.
#[tokio::test]
async fn a_migration_makes_the_next_partitions_and_drops_empty_ones_on_postgres() {
    let Some(url) = postgres::database("upkeep") else { return };
    let target = Target::Postgres(url.clone());
    let settings = Settings { target, connections_max: 4, keyring: Keyring::default() };
    Store::migrate(&settings).await.expect("migrates");
    let owner = Database::connect(&url).await.expect("connects");
    let partitions = async || -> Vec<String> {
        let sql = "SELECT inhrelid::regclass::text FROM pg_inherits
                   WHERE inhparent = 'event'::regclass ORDER BY 1";
        let rows = owner.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await;
        let name = |row: &QueryResult| row.try_get_by_index(0).expect("a name");
        rows.expect("reads").iter().map(name).collect()
    };
    let made = partitions().await;
    let days = made.iter().filter(|name| *name != "event_default");
    let last = days.max().expect("today and four more").clone();
    let day = 86_400_000_i64 << 22;
    let (two, three) = (2 * day, 3 * day);
    let aged = format!(
        "DROP TABLE {last}; UPDATE retention SET metadata_key = {};
         CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM ({day}) TO ({two});
         CREATE TABLE attempt_1 PARTITION OF attempt FOR VALUES FROM ({day}) TO ({two});
         CREATE TABLE event_2 PARTITION OF event FOR VALUES FROM ({two}) TO ({three})",
        three + 1,
    );
    owner.execute_unprepared(&aged).await.expect("it owns them");
    assert!(!partitions().await.contains(&last));

    assert_eq!(Store::migrate(&settings).await.expect("finds nothing to do"), 0);
    assert_eq!(partitions().await, made);
    let attempts = owner.execute_unprepared("SELECT FROM attempt_1").await;
    assert!(attempts.is_err(), "they went with their events");
}

/// However long callers' lists take, the engine reads.
#[tokio::test]
async fn callers_take_no_reader_of_the_engine_on_sqlite() {
    super::on_sqlite(async |store: Store| {
        let callers = store.for_callers();
        let mut held = Vec::new();
        while let Ok(Ok(snapshot)) =
            tokio::time::timeout(Duration::from_millis(200), callers.snapshot(&acme())).await
        {
            held.push(snapshot);
            assert!(held.len() < 10, "somewhere there is an end");
        }
        let version = tokio::time::timeout(Duration::from_secs(2), store.routing_version()).await;
        version.expect("without waiting for callers").expect("reads");
    })
    .await;
}

#[test]
fn a_target_tells_where_its_server_is() {
    let server = |url: &str| Target::parse(url).expect("a URL").server();
    assert_eq!(server("postgres://u:p@db.example:6432/name"), Some(("db.example".into(), 6432)));
    assert_eq!(server("postgresql://192.0.2.7/name"), Some(("192.0.2.7".into(), 5432)));
    assert_eq!(server("postgres:///name?host=/run/postgresql"), None);
    assert_eq!(server("sqlite:hookward.db"), None);
}
