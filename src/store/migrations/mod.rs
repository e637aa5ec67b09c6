//! The schema, as plain SQL for each engine, forward only.
//!
//! A migration only widens (expand, later contract), so that the release before
//! keeps working beside this one. Never edit one that was released; add the next.

use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use sea_orm_migration::async_trait;
use sea_orm_migration::{MigrationName, MigrationTrait, MigratorTrait, SchemaManager};

/// Every migration, in order.
pub(super) struct Migrations;

impl MigratorTrait for Migrations {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(M0001),
            Box::new(M0002),
            Box::new(M0003),
            Box::new(M0004),
            Box::new(M0005),
            Box::new(M0006),
            Box::new(M0007),
            Box::new(M0008),
            Box::new(M0009),
            Box::new(M0010),
            Box::new(M0011),
            Box::new(M0012),
        ]
    }
}

/// The outcome log and what stands around it.
struct M0001;

impl MigrationName for M0001 {
    fn name(&self) -> &'static str {
        "m0001_outcome_log"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0001 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0001.sql"),
            _ => include_str!("sqlite_0001.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// The end of commits that were not answered.
struct M0002;

impl MigrationName for M0002 {
    fn name(&self) -> &'static str {
        "m0002_commit_floor"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0002 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0002.sql"),
            _ => include_str!("sqlite_0002.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// Who may call.
struct M0003;

impl MigrationName for M0003 {
    fn name(&self) -> &'static str {
        "m0003_api_key"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0003 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0003.sql"),
            _ => include_str!("sqlite_0003.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// Certificates towards receivers.
struct M0004;

impl MigrationName for M0004 {
    fn name(&self) -> &'static str {
        "m0004_subscription_tls"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0004 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0004.sql"),
            _ => include_str!("sqlite_0004.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// Encryption of what is stored.
struct M0005;

impl MigrationName for M0005 {
    fn name(&self) -> &'static str {
        "m0005_encryption"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0005 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0005.sql"),
            _ => include_str!("sqlite_0005.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// How little is sent, and how long it is kept.
struct M0006;

impl MigrationName for M0006 {
    fn name(&self) -> &'static str {
        "m0006_least_data"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0006 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0006.sql"),
            _ => include_str!("sqlite_0006.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// The audit log, and who published an event.
struct M0007;

impl MigrationName for M0007 {
    fn name(&self) -> &'static str {
        "m0007_audit"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0007 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0007.sql"),
            _ => include_str!("sqlite_0007.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// Endpoints that keep failing, and what there is to tell.
struct M0008;

impl MigrationName for M0008 {
    fn name(&self) -> &'static str {
        "m0008_failure_streak"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0008 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0008.sql"),
            _ => include_str!("sqlite_0008.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// Endpoints that must consent before the first event.
struct M0009;

impl MigrationName for M0009 {
    fn name(&self) -> &'static str {
        "m0009_ownership"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0009 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0009.sql"),
            _ => include_str!("sqlite_0009.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// Whose fault it is that an attempt failed.
struct M0010;

impl MigrationName for M0010 {
    fn name(&self) -> &'static str {
        "m0010_fault"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0010 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0010.sql"),
            _ => include_str!("sqlite_0010.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// Receivers that are told nothing of traces.
struct M0011;

impl MigrationName for M0011 {
    fn name(&self) -> &'static str {
        "m0011_omit_trace_context"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0011 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => include_str!("postgres_0011.sql"),
            _ => include_str!("sqlite_0011.sql"),
        };
        connection.execute_unprepared(sql).await.map(drop)
    }
}

/// What deleted subscriptions were trusted with, and is not needed any more.
struct M0012;

impl MigrationName for M0012 {
    fn name(&self) -> &'static str {
        "m0012_deleted_subscriptions"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for M0012 {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(include_str!("both_0012.sql")).await.map(drop)
    }
}
