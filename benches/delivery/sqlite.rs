//! SQL on a SQLite file, by the library that the service brings along.

use sea_orm::ConnectOptions;
use sea_orm::ConnectionTrait as _;
use sea_orm::Database;
use sea_orm::DatabaseConnection;
use sea_orm::DbBackend;
use sea_orm::DbErr;
use sea_orm::Statement;

/// Runs statements on one connection.
pub(crate) fn run(url: &str, script: &str) -> anyhow::Result<()> {
    block_on(async {
        open(url).await?.execute_unprepared(script).await?;
        Ok(())
    })
}

/// The first column, which is text, of every row.
pub(crate) fn ask(url: &str, query: &str) -> anyhow::Result<Vec<String>> {
    block_on(async {
        let query = Statement::from_string(DbBackend::Sqlite, query);
        let rows = open(url).await?.query_all_raw(query).await?;
        rows.iter().map(|row| row.try_get_by_index(0)).collect()
    })
}

async fn open(url: &str) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    Database::connect(options).await
}

fn block_on<T>(work: impl Future<Output = Result<T, DbErr>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work)?)
}
