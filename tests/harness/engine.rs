//! Which database a story runs on.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::postgres::{self, Cluster};

/// A database of its own for one story; processes that share a clone share it.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    url: String,
    /// Working directory of the servers; holds the SQLite file.
    folder: Arc<TempDir>,
}

/// Tells the databases of one test process apart.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Engine {
    /// A file that does not exist yet.
    pub(crate) fn sqlite() -> Engine {
        let folder = TempDir::new().expect("a temporary folder");
        let url = format!("sqlite:{}", folder.path().join("hookward.db").display());
        Engine { url, folder: Arc::new(folder) }
    }

    /// A migrated database without data; `None` where PostgreSQL is not to be tested
    /// (`HOOKWARD_TEST_POSTGRES`).
    pub(crate) fn postgres() -> Option<Engine> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Some(Engine::migrated(postgres::database(&format!("it_{number}"))?))
    }

    /// A database without data on a cluster of the test's own.
    pub(crate) fn postgres_on(cluster: &Cluster) -> Engine {
        cluster.sql("postgres", "CREATE DATABASE hookward");
        Engine::migrated(cluster.url("hookward"))
    }

    fn migrated(url: String) -> Engine {
        let folder = Arc::new(TempDir::new().expect("a temporary folder"));
        let mut migrate = Command::new(env!("CARGO_BIN_EXE_hookward"));
        let migrate = migrate.args(["migrate", "--database-url", &url]).output();
        let migrate = migrate.expect("the binary was built with the tests");
        assert!(migrate.status.success(), "{migrate:?}");
        Engine { url, folder }
    }

    /// The same database, reached at another port of this machine.
    pub(crate) fn at_port(&self, port: u16) -> Engine {
        let (start, rest) = self.url.rsplit_once(':').expect("a URL with a port");
        let (_, database) = rest.split_once('/').expect("a URL with a database");
        Engine { url: format!("{start}:{port}/{database}"), folder: Arc::clone(&self.folder) }
    }

    /// A copy, made as `docs/OPERATIONS.md` says while servers use this one.
    pub(crate) fn backup(&self) -> Engine {
        let folder = Arc::new(TempDir::new().expect("a temporary folder"));
        let copy = folder.path().join("copy.db");
        let url = if self.url.starts_with("sqlite") {
            let to = copy.display().to_string();
            super::caller::hookward(self, &["backup", "--to", &to]);
            format!("sqlite:{to}")
        } else {
            postgres::copy(&self.url, folder.path())
        };
        Engine { url, folder }
    }

    /// Where PostgreSQL listens.
    pub(crate) fn port(&self) -> u16 {
        let (_, rest) = self.url.rsplit_once(':').expect("a URL with a port");
        let (port, _) = rest.split_once('/').expect("a URL with a database");
        port.parse().expect("a port")
    }

    /// For `--database-url`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Runs each story on SQLite and on PostgreSQL: `async fn story(engine: Engine)`.
macro_rules! on_both_engines {
    ($($story:ident),+ $(,)?) => {$(
        mod $story {
            use crate::harness::engine::Engine;

            #[tokio::test(flavor = "multi_thread")]
            async fn on_sqlite() {
                super::$story(Engine::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_postgresql() {
                let Some(engine) = Engine::postgres() else { return };
                super::$story(engine).await;
            }
        }
    )+};
}
pub(crate) use on_both_engines;
