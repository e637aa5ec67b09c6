//! What both databases must do alike: one suite, run on SQLite and on PostgreSQL.

mod claims;
mod commits;
mod deliveries;
mod endings;
mod events;
mod full_disk;
mod lists;
mod opening;
#[path = "../../../tests/harness/postgres.rs"]
mod postgres;
mod reference;
mod requests;
mod secrets;
mod subscriptions;
mod tls;
mod traces;
mod world;

use std::future::Future;

use super::{Settings, Store, Target};

/// Makes each case a test on either engine.
macro_rules! on_both_engines {
    ($($case:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::super::on_sqlite(super::$case).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $case() {
                super::super::on_postgres(stringify!($case), super::$case).await;
            })+
        }
    };
}
use on_both_engines;

async fn on_sqlite<F: Future<Output = ()>>(case: impl FnOnce(Store) -> F) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let target = Target::Sqlite(directory.path().join("hookward.db"));
    run(Settings { target, connections_max: 1 }, case).await;
}

async fn on_postgres<F: Future<Output = ()>>(name: &str, case: impl FnOnce(Store) -> F) {
    if let Some(url) = postgres::database(name) {
        run(Settings { target: Target::Postgres(url), connections_max: 8 }, case).await;
    }
}

async fn run<F: Future<Output = ()>>(settings: Settings, case: impl FnOnce(Store) -> F) {
    Store::migrate(&settings).await.expect("migrates");
    let store = Store::open(&settings).await.expect("opens");
    case(store.clone()).await;
    store.close().await;
}
