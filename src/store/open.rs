//! Opening a database: connections, checks that its promises hold, migrations.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::ConnectOptions as _;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, EntityTrait,
};

use super::engine::column;
use super::entity::setting;
use super::file::File;
use super::file_lock::FileLock;
use super::link::Link;
use super::migrate::{migrate, pending};
use super::row_security::{self, RowSecurity};
use super::server::{Server, Side};
use super::vault::Vault;
use super::{Inner, Store, StoreError};
use crate::domain::id::IdCodec;
use crate::keyring::Keyring;

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, made if it is missing.
    Sqlite(PathBuf),
    /// A `postgres://` URL.
    Postgres(String),
}

impl Target {
    /// `sqlite:PATH`, `postgres://…` or `postgresql://…`.
    ///
    /// # Errors
    ///
    /// A sentence that says what is allowed; it does not repeat the URL, which may
    /// hold a password.
    pub fn parse(url: &str) -> Result<Target, String> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // What is wrong stays unsaid: it may be the password.
            let read = url.parse::<PgConnectOptions>();
            let read =
                read.map_err(|_| "the database URL cannot be read: encode what is special in it");
            return read.map(|_| Target::Postgres(url.to_owned())).map_err(str::to_owned);
        }
        let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        match path {
            Some(path) if !path.is_empty() && !path.contains('?') => {
                Ok(Target::Sqlite(path.into()))
            }
            _ => Err("the database URL is sqlite:PATH or postgres://…".into()),
        }
    }

    /// The URL without what opens the database: passwords can stand before the host, and in
    /// parameters.
    #[must_use]
    pub fn without_secrets(&self) -> String {
        let url = match self {
            Target::Sqlite(path) => return format!("sqlite:{}", path.display()),
            Target::Postgres(url) => url,
        };
        let hidden = "(hidden)";
        let Ok(options) = url.parse::<PgConnectOptions>() else { return hidden.to_owned() };
        // A password that is not encoded ends up in them.
        let plain = |text: &str| !text.contains(['@', ':', '/', '?']);
        let shown = |text: &str| if plain(text) { text.to_owned() } else { hidden.to_owned() };
        let (user, database) = (options.get_username(), options.get_database());
        let (user, database) = (shown(user), shown(database.unwrap_or_default()));
        format!("postgres://{user}@{}:{}/{database}", options.get_host(), options.get_port())
    }

    /// Host and port of the server; `None` for a file, and for a server that is reached
    /// through a socket in the file system.
    #[must_use]
    pub fn server(&self) -> Option<(String, u16)> {
        let Target::Postgres(url) = self else { return None };
        let options = url.parse::<PgConnectOptions>().ok()?;
        let socket = options.get_socket().is_some() || options.get_host().starts_with('/');
        (!socket).then(|| (options.get_host().to_owned(), options.get_port()))
    }
}

/// How to use the database.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which database.
    pub target: Target,
    /// Most connections, at least 2; PostgreSQL only. Half of them, but no more than
    /// six, are the engine's alone. Too few and calls wait for each other; too many and
    /// PostgreSQL's `max_connections` runs out.
    pub connections_max: u32,
    /// What stored values are encrypted under; empty: they are not.
    pub keyring: Keyring,
}

/// How long a call waits for a free connection before it gives up.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections that read from SQLite, for the engine and for calls of people.
const SQLITE_READERS: u32 = 2;
const SQLITE_CALLERS: u32 = 3;
/// How long another program's lock on the file is waited for. A caller can wait for twice
/// as long: first for its turn.
const SQLITE_LOCKED: Duration = Duration::from_millis(2500);
/// How long a statement waits for its turn on a connection: for one other that waits for a
/// lock, and not for several in a row, or a call would outlast its caller.
const SQLITE_TURN: Duration = Duration::from_millis(2750);

impl Store {
    /// Brings the database to this version, and tells how many migrations that took.
    /// Safe to run twice and from two places at once: the second waits, then finds
    /// nothing to do.
    ///
    /// # Errors
    ///
    /// [`StoreError::Setup`] when the database cannot be used at all.
    pub async fn migrate(settings: &Settings) -> Result<usize, StoreError> {
        let _lock = FileLock::take(&settings.target)?;
        let connection = connect_writer(settings).await?;
        let migrated = migrate(&connection).await;
        connection.close().await?;
        migrated
    }

    /// Opens a database. A SQLite file is brought to this version first;
    /// PostgreSQL must have been by [`Store::migrate`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Setup`] when another process holds the file, when the schema
    /// is older than this version, when the server would answer OK before a
    /// commit is on disk, or when a key is missing that values are encrypted under.
    pub async fn open(settings: &Settings) -> Result<Store, StoreError> {
        let lock = FileLock::take(&settings.target)?;
        let store = Store::open_holding(settings, lock).await?;
        if let Err(error) = store.check_keys().await {
            store.close().await;
            return Err(error);
        }
        Ok(store)
    }

    /// Whether a database that was migrated keeps organizations apart by itself.
    ///
    /// # Errors
    ///
    /// [`StoreError::Setup`] when it would keep the service from its own rows.
    pub async fn look_at_row_security(settings: &Settings) -> Result<RowSecurity, StoreError> {
        let Target::Postgres(url) = &settings.target else { return Ok(RowSecurity::Unavailable) };
        let connection = connect_postgres(url).await?;
        let looked = row_security::look(&connection).await;
        connection.close().await?;
        Ok(RowSecurity::from(&looked?))
    }

    /// Opens a database for a short visit, also beside the server that uses its SQLite
    /// file: SQLite lets several processes in, one after the other. Keys are not missed
    /// before they are needed.
    ///
    /// # Errors
    ///
    /// As [`Store::open`], but for the file that another process holds.
    pub async fn visit(settings: &Settings) -> Result<Store, StoreError> {
        // Held while it is free, so that no server starts on a half-made schema.
        let lock = FileLock::take(&settings.target).ok().flatten();
        Store::open_holding(settings, lock).await
    }

    async fn open_holding(
        settings: &Settings,
        lock: Option<FileLock>,
    ) -> Result<Store, StoreError> {
        let (row_security, read, write, callers) = match &settings.target {
            Target::Sqlite(path) => {
                let write = File::open(sqlite_options(path, 1, false)).await?;
                if lock.is_some() {
                    migrate(write.connection()).await?;
                } else if pending(write.connection()).await? != 0 {
                    let why = "the server that uses the file is older than this version";
                    return Err(StoreError::Setup(why.into()));
                }
                let read = File::open(sqlite_options(path, SQLITE_READERS, true)).await?;
                let callers = File::open(sqlite_options(path, SQLITE_CALLERS, true)).await?;
                let [read, write, callers] = [read, write, callers].map(Link::Sqlite);
                (RowSecurity::Unavailable, read, write, callers)
            }
            Target::Postgres(url) => {
                let check = connect_postgres(url).await?;
                check_postgres(&check).await?;
                let looked = row_security::look(&check).await?;
                check.close().await?;
                let row_security = RowSecurity::from(&looked);
                let (options, connections) = (read_postgres_url(url)?, settings.connections_max);
                let server = Arc::new(Server::new(options, connections, looked.ok()));
                let callers = Link::Postgres(Arc::clone(&server), Side::Callers);
                let link = Link::Postgres(server, Side::Engine);
                (row_security, link.clone(), link, callers)
            }
        };
        let ids = IdCodec::new(seed(&write, "id_seed").await?);
        let page_key = seed(&write, "page_key").await?;
        let vault = Vault::new(settings.keyring.clone());
        let engine = write.get_database_backend();
        let inner = Inner { engine, ids, page_key, row_security, vault, _lock: lock };
        Ok(Store { inner: Arc::new(inner), read, write, callers })
    }

    /// Lets go of every connection and of the file.
    pub async fn close(&self) {
        self.callers.close().await;
        self.read.close().await;
        self.write.close().await;
    }
}

async fn connect_writer(settings: &Settings) -> Result<DatabaseConnection, StoreError> {
    match &settings.target {
        Target::Sqlite(path) => Ok(Database::connect(sqlite_options(path, 1, false)).await?),
        Target::Postgres(url) => connect_postgres(url).await,
    }
}

pub(super) fn sqlite_options(path: &Path, connections: u32, read_only: bool) -> ConnectOptions {
    let path = path.to_owned();
    let mut options = ConnectOptions::new("sqlite::memory:");
    options
        .max_connections(connections)
        .min_connections(connections)
        .acquire_timeout(SQLITE_TURN)
        .test_before_acquire(false)
        .sqlx_logging(false)
        .map_sqlx_sqlite_opts(move |sqlite| {
            sqlite
                .in_memory(false)
                .shared_cache(false)
                .filename(&path)
                .create_if_missing(!read_only)
                .read_only(read_only)
                .journal_mode(SqliteJournalMode::Wal)
                // An OK means on disk: NORMAL can lose commits at a power cut.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(SQLITE_LOCKED)
                .foreign_keys(false)
                // What is purged is overwritten. FAST would leave it on the pages that a
                // large payload frees: decision 0022.
                .pragma("secure_delete", "ON")
                // More would cost a scan of the page cache at every commit.
                .pragma("cache_size", "-16384")
                .pragma("wal_autocheckpoint", "4000")
                .pragma("journal_size_limit", "67108864")
                .pragma("temp_store", "MEMORY")
        });
    options
}

/// Connections for migrations and checks, outside of the [`Server`]'s.
async fn connect_postgres(url: &str) -> Result<DatabaseConnection, StoreError> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(2)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .sqlx_logging(false)
        .map_sqlx_postgres_opts(with_limits);
    Ok(Database::connect(options).await?)
}

fn read_postgres_url(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = url.parse::<PgConnectOptions>();
    let options = options.map_err(|_| StoreError::Setup("the database URL is not one".into()))?;
    Ok(with_limits(options).disable_statement_logging())
}

/// The server's own limits. Those at this end are in [`super::server`].
fn with_limits(postgres: PgConnectOptions) -> PgConnectOptions {
    postgres.application_name("hookward").options([
        ("statement_timeout", "10s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "5s"),
        // The server notices within about ten seconds that this process is gone without
        // a word, and lets go of the locks that it held.
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "10s"),
        ("jit", "off"),
        // Every statement here finds its rows by an index. A plan that was made and kept
        // while a table was empty must not read all of it when it is full.
        ("enable_seqscan", "off"),
        // Values may be patient data: they stay out of the server's log.
        ("log_parameter_max_length_on_error", "0"),
    ])
}

/// Refuses a PostgreSQL that would break promises: too old a version or schema,
/// or commits that answer before they are on disk.
async fn check_postgres(connection: &DatabaseConnection) -> Result<(), StoreError> {
    let sql = "SELECT current_setting('server_version_num')::int4 AS version,
                      current_setting('synchronous_commit') AS synchronous,
                      current_setting('fsync') AS fsync";
    let statement = sea_orm::Statement::from_string(DbBackend::Postgres, sql);
    let row = connection.query_one_raw(statement).await?.ok_or(StoreError::Corrupt("settings"))?;
    let refuse = |why: &str| Err(StoreError::Setup(why.to_owned()));
    if column::<i32>(&row, "version")? < 150_000 {
        return refuse("PostgreSQL 15 or newer is needed");
    }
    if ["off", "local"].contains(&column::<String>(&row, "synchronous")?.as_str()) {
        return refuse("synchronous_commit must be on: an OK means that the event is durable");
    }
    if column::<String>(&row, "fsync")? == "off" {
        return refuse("fsync must be on: an OK means that the event is durable");
    }
    if pending(connection).await? != 0 {
        return refuse("the database is older than this version: run `hookward migrate` first");
    }
    Ok(())
}

/// The first `N` of the 32 random bytes that were made with the database.
async fn seed<const N: usize>(
    connection: &impl ConnectionTrait,
    name: &'static str,
) -> Result<[u8; N], StoreError> {
    let row = setting::Entity::find_by_id(name).one(connection).await?;
    let value = row.ok_or(StoreError::Corrupt(name))?.value;
    value.first_chunk().copied().ok_or(StoreError::Corrupt(name))
}
