//! The databases behind the service: a file, or a cluster of the benchmark's own.

use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use anyhow::bail;

use crate::cpu::Watched;
use crate::postgres;
use crate::sqlite;

/// One of the two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Store {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// An empty database.
pub(crate) struct Database {
    /// As the service takes it.
    pub(crate) url: String,
    /// The server's processes, where there is a server.
    pub(crate) server: Option<Watched>,
}

/// What is set beside the launcher's `fsync = on` and `synchronous_commit = on`:
/// what a machine of this size would be given, and room for a checkpoint to be a
/// matter of minutes. Nothing that trades a promise for speed.
const SETTINGS: [(&str, &str); 5] = [
    ("shared_buffers", "2GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "15min"),
    ("wal_compression", "lz4"),
    ("max_connections", "100"),
];

impl Store {
    /// As in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Store::Sqlite => "SQLite",
            Store::Postgres => "PostgreSQL",
        }
    }

    /// A fresh database; `None`: PostgreSQL is not installed.
    pub(crate) fn database(self, folder: &Path) -> anyhow::Result<Option<Database>> {
        match self {
            Store::Sqlite => {
                let url = format!("sqlite:{}", folder.join("hookward.db").display());
                Ok(Some(Database { url, server: None }))
            }
            Store::Postgres => match postgres::database("bench") {
                Some(url) => {
                    let pid = configure(&url)?;
                    let server = Some(Watched { name: "postgres", pid, family: true });
                    Ok(Some(Database { url, server }))
                }
                None => Ok(None),
            },
        }
    }
}

impl Database {
    /// Writes out what is dirty, in the database and in the kernel, so that no
    /// measurement pays for the one before it.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        if self.server.is_some() {
            sql(&self.url, "CHECKPOINT")?;
        }
        let written = Command::new("sync").status().context("cannot run sync")?;
        anyhow::ensure!(written.success(), "sync failed");
        Ok(())
    }

    /// Runs statements, as fast as they go: what they store is not durable before
    /// [`Database::settle`]. No service may run.
    pub(crate) fn build(&self, script: &str) -> anyhow::Result<()> {
        if self.server.is_some() {
            return feed(&self.url, &format!("SET synchronous_commit = off; {script}"));
        }
        let fast = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;";
        sqlite::run(&self.url, &format!("{fast} {script} PRAGMA journal_mode = WAL;"))
    }

    /// Does now what PostgreSQL would do by itself in the minutes to come.
    pub(crate) fn tidy(&self) -> anyhow::Result<()> {
        if self.server.is_some() {
            sql(&self.url, "VACUUM (ANALYZE)")?;
        }
        self.settle()
    }

    /// The one number that a query answers, as text.
    pub(crate) fn number(&self, query: &str) -> anyhow::Result<u64> {
        let answer = self.ask(query)?;
        let answer = answer.first().context("no rows")?;
        answer.parse().with_context(|| format!("{query}: {answer}"))
    }

    /// A table's columns, in order.
    pub(crate) fn columns(&self, table: &str) -> anyhow::Result<Vec<String>> {
        self.ask(&if self.server.is_some() {
            format!(
                "SELECT column_name FROM information_schema.columns
                 WHERE table_schema = 'public' AND table_name = '{table}' ORDER BY ordinal_position"
            )
        } else {
            format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid")
        })
    }

    fn ask(&self, query: &str) -> anyhow::Result<Vec<String>> {
        if self.server.is_some() {
            return Ok(sql(&self.url, query)?.lines().map(str::to_owned).collect());
        }
        sqlite::ask(&self.url, query)
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> anyhow::Result<u64> {
        if self.server.is_some() {
            return Ok(sql(&self.url, "SELECT pg_database_size(current_database())")?.parse()?);
        }
        let path = self.url.strip_prefix("sqlite:").context("one or the other")?;
        Ok(std::fs::metadata(path)?.len())
    }
}

impl Drop for Database {
    /// What is left of a large database would keep the server busy with vacuuming.
    fn drop(&mut self) {
        if self.server.is_some()
            && let Some((server, name)) = self.url.rsplit_once('/')
        {
            let dropped = format!("DROP DATABASE {name} WITH (FORCE)");
            // The cluster goes away at the end in any case.
            let _ = sql(&format!("{server}/postgres"), &dropped);
        }
    }
}

/// Version of the PostgreSQL that serves this URL.
pub(crate) fn version(url: &str) -> anyhow::Result<String> {
    sql(url, "SHOW server_version")
}

/// Puts [`SETTINGS`] into force, once; the number of the cluster's first process.
fn configure(url: &str) -> anyhow::Result<u32> {
    if sql(url, "SHOW shared_buffers")? != SETTINGS[0].1 {
        for (name, value) in SETTINGS {
            sql(url, &format!("ALTER SYSTEM SET {name} = '{value}'"))?;
        }
        let programs = std::fs::read_link(format!("/proc/{}/exe", first_process(url)?))?;
        restart(&programs.with_file_name("pg_ctl"), &sql(url, "SHOW data_directory")?)?;
    }
    first_process(url)
}

fn first_process(url: &str) -> anyhow::Result<u32> {
    let file = sql(url, "SELECT pg_read_file('postmaster.pid')")?;
    file.lines().next().unwrap_or_default().parse().context("its first line is a number")
}

/// With the options it was started with.
fn restart(pg_ctl: &PathBuf, data: &str) -> anyhow::Result<()> {
    let id = Command::new("id").arg("-u").output()?;
    let mut command = if id.stdout.trim_ascii() == b"0" {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(pg_ctl);
        command
    } else {
        Command::new(pg_ctl)
    };
    command.args(["restart", "-w", "-s", "-m", "fast", "-D", data, "-l"]);
    command.arg(format!("{data}/../log")).current_dir("/");
    // Not a pipe: the server would keep it open.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if !status.success() {
        bail!("PostgreSQL does not start again with the benchmark's settings");
    }
    Ok(())
}

/// Runs a script of any length.
fn feed(url: &str, script: &str) -> anyhow::Result<()> {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", url]);
    psql.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = psql.spawn().context("psql is needed")?;
    let mut pipe = child.stdin.take().context("a pipe was asked for")?;
    pipe.write_all(script.as_bytes())?;
    drop(pipe);
    anyhow::ensure!(child.wait()?.success(), "psql failed");
    Ok(())
}

/// What one statement answers, without the last line's end.
pub(crate) fn sql(url: &str, statement: &str) -> anyhow::Result<String> {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-A", "-t", "-q", "-c", statement, url]).stdin(Stdio::null());
    let output = psql.output().context("psql is needed")?;
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
