//! Bringing a database to this version, beside servers that go on with their work.
//!
//! Whoever changes a table waits for those who use it, and everybody else waits behind that
//! one. So a migration waits for a lock for a moment only, lets the others go first, and
//! comes again.

use std::collections::HashSet;
use std::iter::repeat_n;
use std::time::Duration;

use sea_orm::{
    ActiveValue, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait, Statement,
    TransactionTrait,
};
use sea_orm_migration::MigratorTrait;

use super::StoreError;
use super::engine::column;
use super::entity::setting;
use super::error::is_lock_timeout;
use super::migrations::Migrations;
use super::{partition, row_security};

/// Advisory lock that one migrator holds; any number that nothing else uses.
pub(super) const MIGRATION_LOCK: i64 = 0x686f_6f6b_7761_7264;
/// How long another migrator is waited for.
const MIGRATOR_WAIT: &str = "60s";
/// How long a table's lock is waited for, and how often. For the longer wait an autovacuum
/// gives way.
const WAITS: [(&str, usize); 2] = [("200ms", 50), ("1500ms", 10)];
const PAUSE: Duration = Duration::from_millis(300);

/// Why one try came to nothing.
enum Failure {
    /// Somebody holds a table.
    Busy,
    Store(StoreError),
}

impl From<DbErr> for Failure {
    fn from(error: DbErr) -> Failure {
        if is_lock_timeout(&error) { Failure::Busy } else { Failure::Store(error.into()) }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

/// Applies what is missing, all or nothing; tells how many migrations that took.
pub(super) async fn migrate(connection: &DatabaseConnection) -> Result<usize, StoreError> {
    let migrated = patiently(
        async |wait| apply(connection, wait).await,
        |failure| matches!(failure, Failure::Busy),
    );
    let pending = migrated.await.map_err(|failure| match failure {
        Failure::Busy => StoreError::Unavailable(
            "somebody holds a table for long: see pg_stat_activity, and try again".into(),
        ),
        Failure::Store(error) => error,
    })?;
    for name in ["id_seed", "page_key"] {
        let mut value = [0_u8; 32];
        getrandom::fill(&mut value).map_err(|_| StoreError::Setup("no random numbers".into()))?;
        let row = setting::ActiveModel {
            name: ActiveValue::Set(name.into()),
            value: ActiveValue::Set(value.to_vec()),
        };
        let insert = setting::Entity::insert(row).on_conflict_do_nothing();
        insert.exec_without_returning(connection).await?;
    }
    row_security::set_up(connection).await?;
    // The schema is as it should be, whatever becomes of this.
    if let Err(error) = partition::drop_empty(connection).await {
        let error = StoreError::from(error);
        tracing::warn!(%error, "empty partitions stay for now");
    }
    Ok(pending)
}

/// Tries again for as long as a try finds a table held. Each is told for how long it may
/// wait for one.
pub(super) async fn patiently<T, E>(
    attempt: impl AsyncFn(&'static str) -> Result<T, E>,
    is_busy: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let waits = WAITS.iter().flat_map(|(wait, tries)| repeat_n(*wait, *tries));
    let mut waits = waits.peekable();
    loop {
        let wait = waits.next().unwrap_or(WAITS[1].0);
        match attempt(wait).await {
            Err(error) if is_busy(&error) && waits.peek().is_some() => {
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn apply(connection: &DatabaseConnection, wait: &str) -> Result<usize, Failure> {
    let transaction = connection.begin().await?;
    if transaction.get_database_backend() == DbBackend::Postgres {
        // Two migrators would trip over each other's half-made tables. What a statement may
        // take is for the hot path: an index over many rows takes as long as it takes.
        let lock = format!(
            "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{MIGRATOR_WAIT}';
            SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
        );
        transaction.execute_unprepared(&lock).await.map_err(|error| {
            let taken = is_lock_timeout(&error);
            let why = || StoreError::Unavailable("another migration is under way".into());
            Failure::Store(if taken { why() } else { error.into() })
        })?;
        transaction.execute_unprepared(&format!("SET LOCAL lock_timeout = '{wait}'")).await?;
    }
    let pending = pending(&transaction).await?;
    if pending != 0 {
        Migrations::up(&transaction, None).await?;
    }
    partition::make_ahead(&transaction, partition::AHEAD_OF_MIGRATION).await?;
    transaction.commit().await?;
    Ok(pending)
}

/// How many migrations of this version the database lacks. It may have later ones, of a
/// version after this one, which keep this one working.
pub(super) async fn pending(connection: &impl ConnectionTrait) -> Result<usize, StoreError> {
    let engine = connection.get_database_backend();
    let table = match engine {
        DbBackend::Postgres => "SELECT 1 WHERE to_regclass('seaql_migrations') IS NOT NULL",
        _ => "SELECT 1 FROM sqlite_master WHERE name = 'seaql_migrations'",
    };
    let query = |sql| connection.query_all_raw(Statement::from_string(engine, sql));
    let mut applied = HashSet::new();
    if !query(table).await?.is_empty() {
        for row in query("SELECT version FROM seaql_migrations").await? {
            applied.insert(column::<String>(&row, "version")?);
        }
    }
    let wanted = Migrations::migrations();
    Ok(wanted.iter().filter(|migration| !applied.contains(migration.name())).count())
}
