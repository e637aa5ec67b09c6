//! The faults: what each does, and what is measured at it. Numbers are those of
//! `docs/NEMESIS.md`.

mod callers;
mod clock;
mod database;
mod network;
mod process;
mod receivers;
mod sqlite;

use std::time::{Duration, Instant};

use clap::ValueEnum;
use fastrand::Rng;

use crate::figure::{Figure, Value};
use crate::options::Store;
use crate::target::{Plan, Target};
use crate::world::World;

/// `--fault`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    /// F1: SIGKILL of a replica with requests under way
    Kill,
    /// F2: SIGKILL of all replicas, and their restart
    KillAll,
    /// F3: SIGSTOP of a replica for longer than its lease
    Freeze,
    /// F4: a replica is cut off from PostgreSQL
    Cut,
    /// F5: PostgreSQL crashes and starts again
    DatabaseCrash,
    /// F6: PostgreSQL fails over to its standby
    Failover,
    /// F6: the address leads to a read-only server for a while
    ReadOnly,
    /// F7: connections to PostgreSQL become half-open
    HalfOpen,
    /// F7: the link to PostgreSQL is slow
    SlowLink,
    /// F8: PostgreSQL has no connections left
    Exhausted,
    /// F9: a long transaction holds an old snapshot
    Snapshot,
    /// F10: PostgreSQL ends connections, at random
    Terminate,
    /// F10: tables are locked
    Locks,
    /// F11: the disk is full for a while
    DiskFull,
    /// F13: another process holds SQLite's write lock
    WriteLock,
    /// F14: the files are copied while the server runs, and the copy is opened
    Copy,
    /// F14: is the log synced between commit and OK?
    Synced,
    /// F15: a replica's clock is wrong
    Clock,
    /// F16: PostgreSQL's clock is set back four minutes, and forward again
    DatabaseClock,
    /// F17: an organization's receivers hang
    Flood,
    /// F19: a receiver fails for a while
    Failing,
    /// F20: names do not resolve, or to forbidden addresses
    Names,
    /// F23: a receiver was down while events piled up
    Backlog,
    /// F24: events from which no request can be made
    Poison,
    /// F26: SIGTERM and restart of each replica in turn
    Roll,
    /// F27: SIGTERM while PostgreSQL is away, and a second one
    StopWithoutDatabase,
    /// F29: many callers publish one event at once
    Repeat,
    /// F30: subscriptions are paused, deleted, rotated
    Churn,
    /// F32: two migrators at once, one of them killed
    Migrators,
}

/// Whether other faults may go on beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// One at a time.
    Main,
    /// Also beside one of the others: costs nobody else anything.
    Side,
}

/// What a fault works on.
pub(crate) struct Scene<'a> {
    pub(crate) world: &'a World,
    pub(crate) rng: &'a mut Rng,
    pub(crate) cast: &'a Cast,
    pub(crate) fault: Fault,
    pub(crate) figures: Vec<Figure>,
    /// How many faults of the run came before.
    pub(crate) number: usize,
}

/// Targets that some faults play with.
pub(crate) struct Cast {
    pub(crate) slow: Vec<std::sync::Arc<Target>>,
    pub(crate) failing: std::sync::Arc<Target>,
    pub(crate) pausing: std::sync::Arc<Target>,
    pub(crate) rotating: Vec<std::sync::Arc<Target>>,
    pub(crate) flooded: Vec<std::sync::Arc<Target>>,
    pub(crate) backlogged: std::sync::Arc<Target>,
    pub(crate) passing: Plan,
}

/// The faults of a database that come at random, and how often.
const ON_POSTGRES: [(Fault, u32); 25] = [
    (Fault::Kill, 6),
    (Fault::KillAll, 2),
    (Fault::Freeze, 2),
    (Fault::Cut, 2),
    (Fault::DatabaseCrash, 3),
    (Fault::Failover, 2),
    (Fault::ReadOnly, 1),
    (Fault::HalfOpen, 2),
    (Fault::SlowLink, 1),
    (Fault::Exhausted, 1),
    (Fault::Snapshot, 1),
    (Fault::Terminate, 3),
    (Fault::Locks, 2),
    (Fault::Clock, 1),
    (Fault::DatabaseClock, 1),
    (Fault::Names, 2),
    (Fault::Roll, 3),
    (Fault::StopWithoutDatabase, 1),
    (Fault::Migrators, 1),
    (Fault::Flood, 2),
    (Fault::Failing, 2),
    (Fault::Backlog, 2),
    (Fault::Poison, 2),
    (Fault::Repeat, 3),
    (Fault::Churn, 4),
];
const ON_SQLITE: [(Fault, u32); 13] = [
    (Fault::KillAll, 4),
    (Fault::Freeze, 1),
    (Fault::DiskFull, 2),
    (Fault::WriteLock, 2),
    (Fault::Copy, 2),
    (Fault::Synced, 1),
    (Fault::Names, 1),
    (Fault::Roll, 3),
    (Fault::Flood, 1),
    (Fault::Failing, 2),
    (Fault::Poison, 1),
    (Fault::Repeat, 2),
    (Fault::Churn, 2),
];

impl Fault {
    /// Those of a database, with their weights.
    pub(crate) fn on(store: Store) -> &'static [(Fault, u32)] {
        match store {
            Store::Postgres => &ON_POSTGRES,
            Store::Sqlite => &ON_SQLITE,
        }
    }

    pub(crate) fn lane(self) -> Lane {
        match self {
            Fault::Flood
            | Fault::Failing
            | Fault::Backlog
            | Fault::Poison
            | Fault::Repeat
            | Fault::Churn
            | Fault::Migrators => Lane::Side,
            Fault::Kill
            | Fault::KillAll
            | Fault::Freeze
            | Fault::Cut
            | Fault::DatabaseCrash
            | Fault::Failover
            | Fault::ReadOnly
            | Fault::HalfOpen
            | Fault::SlowLink
            | Fault::Exhausted
            | Fault::Snapshot
            | Fault::Terminate
            | Fault::Locks
            | Fault::DiskFull
            | Fault::WriteLock
            | Fault::Copy
            | Fault::Synced
            | Fault::Clock
            | Fault::DatabaseClock
            | Fault::Names
            | Fault::Roll
            | Fault::StopWithoutDatabase => Lane::Main,
        }
    }

    /// As in the table of the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Kill => "F1 kill",
            Fault::KillAll => "F2 kill all",
            Fault::Freeze => "F3 freeze",
            Fault::Cut => "F4 cut off",
            Fault::DatabaseCrash => "F5 database crash",
            Fault::Failover => "F6 failover",
            Fault::ReadOnly => "F6 read-only",
            Fault::HalfOpen => "F7 half-open",
            Fault::SlowLink => "F7 slow link",
            Fault::Exhausted => "F8 exhausted",
            Fault::Snapshot => "F9 old snapshot",
            Fault::Terminate => "F10 terminate",
            Fault::Locks => "F10 locks",
            Fault::DiskFull => "F11 disk full",
            Fault::WriteLock => "F13 write lock",
            Fault::Copy => "F14 copy",
            Fault::Synced => "F14 synced",
            Fault::Clock => "F15 clock",
            Fault::DatabaseClock => "F16 database clock",
            Fault::Flood => "F17 flood",
            Fault::Failing => "F19 failing",
            Fault::Names => "F20 names",
            Fault::Backlog => "F23 backlog",
            Fault::Poison => "F24 poison",
            Fault::Roll => "F26 roll",
            Fault::StopWithoutDatabase => "F27 stop",
            Fault::Repeat => "F29 repeat",
            Fault::Churn => "F30 churn",
            Fault::Migrators => "F32 migrators",
        }
    }
}

impl Scene<'_> {
    /// Does it. An error is one of the set-up, not of the service.
    pub(crate) async fn play(&mut self) -> Result<(), String> {
        match self.fault {
            Fault::Kill => self.kill().await,
            Fault::KillAll => self.kill_all().await,
            Fault::Freeze => self.freeze().await,
            Fault::Cut => self.cut().await,
            Fault::DatabaseCrash => self.database_crash().await,
            Fault::Failover => self.failover().await,
            Fault::ReadOnly => self.read_only().await,
            Fault::HalfOpen => self.half_open().await,
            Fault::SlowLink => self.slow_link().await,
            Fault::Exhausted => self.exhausted().await,
            Fault::Snapshot => self.snapshot().await,
            Fault::Terminate => self.terminate().await,
            Fault::Locks => self.locks().await,
            Fault::DiskFull => self.disk_full().await,
            Fault::WriteLock => self.write_lock().await,
            Fault::Copy => self.copy().await,
            Fault::Synced => self.synced().await,
            Fault::Clock => self.clock().await,
            Fault::DatabaseClock => self.database_clock().await,
            Fault::Flood => self.flood().await,
            Fault::Failing => self.failing().await,
            Fault::Names => self.names().await,
            Fault::Backlog => self.backlog().await,
            Fault::Poison => self.poison().await,
            Fault::Roll => self.roll().await,
            Fault::StopWithoutDatabase => self.stop_without_database().await,
            Fault::Repeat => self.repeat().await,
            Fault::Churn => self.churn().await,
            Fault::Migrators => self.migrators().await,
        }
    }

    /// Notes a time and the most that it may be, measured from `from` until now.
    fn time(&mut self, what: &'static str, measured: Duration, goal: Duration, from: Instant) {
        let value = Value::Time(measured, goal);
        let figure = Figure { fault: self.fault, what, value, from, to: Instant::now() };
        self.figures.push(figure);
    }

    /// The same for a count.
    fn count(&mut self, what: &'static str, measured: usize, goal: usize, from: Instant) {
        let value = Value::Count(measured, goal);
        let figure = Figure { fault: self.fault, what, value, from, to: Instant::now() };
        self.figures.push(figure);
    }

    fn any_slot(&mut self) -> usize {
        self.rng.usize(0..self.world.replicas.len())
    }

    /// Lets time pass while the fault lasts.
    async fn last(&mut self, millis: std::ops::Range<u64>) {
        pause(Duration::from_millis(self.rng.u64(millis))).await;
    }
}

/// Lets time pass.
async fn pause(span: Duration) {
    tokio::time::sleep(span).await;
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
