//! What both databases must do alike: one suite, run on SQLite and on PostgreSQL, and once
//! more with encryption, which nobody above the store may notice.

mod api_keys;
mod audit;
mod backlogs;
mod canary;
mod claims;
mod commits;
mod deliveries;
mod endings;
mod events;
mod failure_streaks;
mod full_disk;
mod lists;
mod opening;
mod operational_events;
mod organizations;
mod ownership;
#[path = "../../../tests/harness/postgres.rs"]
mod postgres;
mod purges;
mod reference;
mod requests;
mod row_security;
mod sealing;
mod secrets;
mod subscriptions;
mod tls;
mod traces;
mod world;

use std::future::Future;

use super::{Settings, Store, Target};
use crate::keyring::Keyring;

/// Two keys, the second of which is the primary.
const KEYS: &str = "
    old = b2xkIGtleSBvbGQga2V5IG9sZCBrZXkgb2xkIGtleTA=
    new = bmV3IGtleSBuZXcga2V5IG5ldyBrZXkgbmV3IGtleTA=
    primary = new";

/// Makes each case a test on either engine, and one with encryption: what differs there
/// between the engines is told by `sealing`.
macro_rules! on_both_engines {
    ($($case:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::super::on_sqlite(super::$case).await;
            })+
        }
        mod on_sqlite_sealed {
            $(#[tokio::test]
            async fn $case() {
                super::super::on_sqlite_with(super::super::keyring(), super::$case).await;
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

fn keyring() -> Keyring {
    Keyring::parse(KEYS).expect("the keys are right")
}

async fn on_sqlite<F: Future<Output = ()>>(case: impl FnOnce(Store) -> F) {
    on_sqlite_with(Keyring::default(), case).await;
}

async fn on_sqlite_with<F: Future<Output = ()>>(keyring: Keyring, case: impl FnOnce(Store) -> F) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let target = Target::Sqlite(directory.path().join("hookward.db"));
    run(Settings { target, connections_max: 1, keyring }, case).await;
}

async fn on_postgres<F: Future<Output = ()>>(name: &str, case: impl FnOnce(Store) -> F) {
    on_postgres_with(Keyring::default(), name, case).await;
}

async fn on_postgres_with<F: Future<Output = ()>>(
    keyring: Keyring,
    name: &str,
    case: impl FnOnce(Store) -> F,
) {
    if let Some(url) = postgres::database(name) {
        let target = Target::Postgres(url);
        run(Settings { target, connections_max: 8, keyring }, case).await;
    }
}

async fn run<F: Future<Output = ()>>(settings: Settings, case: impl FnOnce(Store) -> F) {
    Store::migrate(&settings).await.expect("migrates");
    let store = Store::open(&settings).await.expect("opens");
    case(store.clone()).await;
    store.close().await;
}
