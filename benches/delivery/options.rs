//! The command line, and what every scenario has in common.

use clap::Parser;
use clap::ValueEnum;

/// Connections to the receiver, with and without the service between.
pub(crate) const CONNECTIONS: u32 = 64;

/// Measures deliveries per second, latency and CPU against the bare limit.
#[derive(Clone, Debug, Parser)]
#[command(name = "delivery")]
pub(crate) struct Options {
    /// The database behind the service.
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) store: StoreChoice,
    /// What to measure.
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) scenario: Scenario,
    /// Length of one measurement of the throughput.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Length of one measurement at the steady rate.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) steady_seconds: f64,
    /// Measurements of each kind; the table has their medians.
    #[arg(long, default_value_t = 3)]
    pub(crate) repeat: u32,
    /// Size of a payload.
    #[arg(long, default_value_t = 1024)]
    pub(crate) payload_bytes: usize,
    /// Events of a batched call.
    #[arg(long, default_value_t = 100)]
    pub(crate) batch: u32,
    /// Batched calls under way at once.
    #[arg(long, default_value_t = 8)]
    pub(crate) calls: u32,
    /// Callers of the unary scenario.
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    pub(crate) clients: Vec<u32>,
    /// Connections of the load generator to the service.
    #[arg(long, default_value_t = 4)]
    pub(crate) grpc_connections: u32,
    /// Events a second of the steady scenario.
    #[arg(long, default_value_t = 200)]
    pub(crate) rate: u32,
    /// Settled deliveries in the database of the history scenario.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) history: u64,
    /// Give every event an id of the publisher's own.
    #[arg(long)]
    pub(crate) own_ids: bool,
    /// Measure a plain command of another build instead of this one's.
    #[arg(long)]
    pub(crate) server: Option<std::path::PathBuf>,
    /// Keep the service's log and database, and say where they are.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Given by `cargo bench`; without it nothing is measured.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
    /// What this process is; the benchmark starts itself in each role.
    #[arg(long, value_enum, hide = true)]
    pub(crate) role: Option<Role>,
    /// Address of the service, for the load generator.
    #[arg(long, hide = true)]
    pub(crate) service: Option<String>,
}

/// `--store`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreChoice {
    /// A SQLite file in a temporary folder.
    Sqlite,
    /// A PostgreSQL cluster of its own.
    Postgres,
    /// One after the other.
    Both,
}

/// `--scenario`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// The client alone.
    Bare,
    /// Batches, as fast as they are taken.
    Batched,
    /// One event a call, as fast as they are taken.
    Unary,
    /// One event a call at a fixed rate.
    Steady,
    /// Batches into an empty database and into one with a history.
    History,
    /// Each of them.
    All,
}

/// A child process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Receives.
    Receiver,
    /// Publishes.
    Load,
    /// Posts without a service.
    Bare,
}

impl Scenario {
    /// Whether `part` is asked for.
    pub(crate) fn holds(self, part: Scenario) -> bool {
        self == part || self == Scenario::All
    }
}

impl Role {
    /// As on the command line and in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Receiver => "receiver",
            Role::Load => "load",
            Role::Bare => "bare",
        }
    }
}
