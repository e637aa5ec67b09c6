//! The command line, and what every scenario has in common.

use clap::Parser;
use clap::ValueEnum;

use crate::measure::Extent;
use crate::protocol::Style;

/// Connections to the receiver, with and without the service between.
pub(crate) const CONNECTIONS: u32 = 64;

/// Measures deliveries per second, latency, CPU and memory, each beside its target.
#[derive(Clone, Debug, Parser)]
#[command(name = "delivery")]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Options {
    /// The database behind the service.
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) store: StoreChoice,
    /// What to measure; several are separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    pub(crate) scenario: Vec<Scenario>,
    /// One short measurement of each and little growth: shows that everything works.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Length of one measurement of the throughput.
    #[arg(long, default_value_t = 5.0, default_value_if("quick", "true", "2"))]
    pub(crate) seconds: f64,
    /// Length of one measurement at the steady rate.
    #[arg(long, default_value_t = 10.0, default_value_if("quick", "true", "4"))]
    pub(crate) steady_seconds: f64,
    /// How long the snapshot scenario holds its transaction open.
    #[arg(long, default_value_t = 30.0, default_value_if("quick", "true", "6"))]
    pub(crate) snapshot_seconds: f64,
    /// Measurements of each kind; the table has their medians.
    #[arg(long, default_value_t = 5, default_value_if("quick", "true", "1"))]
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
    #[arg(long, value_delimiter = ',', default_value = "256")]
    pub(crate) clients: Vec<u32>,
    /// Connections of the load generator to the service.
    #[arg(long, default_value_t = 4)]
    pub(crate) grpc_connections: u32,
    /// Events a second of the steady scenario.
    #[arg(long, default_value_t = 200)]
    pub(crate) rate: u32,
    /// Settled deliveries in the database of the history scenario.
    #[arg(long, default_value_t = 5_000_000, default_value_if("quick", "true", "200000"))]
    pub(crate) history: u64,
    /// Deliveries that wait for a dead receiver in the pending scenario.
    #[arg(long, default_value_t = 1_000_000, default_value_if("quick", "true", "100000"))]
    pub(crate) pending: u64,
    /// Organizations, of ten subscriptions each, of the organizations scenario.
    #[arg(long, default_value_t = 10_000, default_value_if("quick", "true", "1000"))]
    pub(crate) organizations: u64,
    /// Give every event an id of the publisher's own.
    #[arg(long)]
    pub(crate) own_ids: bool,
    /// Measure a plain command of another build instead of this one's.
    #[arg(long)]
    pub(crate) server: Option<std::path::PathBuf>,
    /// In the secured scenario, measure callers' credentials and encryption one by one too.
    #[arg(long)]
    pub(crate) parts: bool,
    /// Keep the service's log and database, and say where they are.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Given by `cargo bench`; without it nothing is measured.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
    /// What this process is; the benchmark starts itself in each role.
    #[arg(long, value_enum, hide = true)]
    pub(crate) role: Option<Role>,
    /// Addresses of the service, for the load generator.
    #[arg(long, hide = true, value_delimiter = ',')]
    pub(crate) service: Vec<String>,
    /// PEM file of the authority of the service's certificate, if it speaks TLS.
    #[arg(long, hide = true)]
    pub(crate) service_ca: Option<std::path::PathBuf>,
    /// What the load generator shows to the service, if it asks.
    #[arg(long, hide = true)]
    pub(crate) api_key: Option<String>,
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
    /// One event a call at a fixed rate.
    Steady,
    /// Batches, as fast as they are taken.
    Batched,
    /// One event a call, as fast as they are taken.
    Unary,
    /// Batches of events that go to ten subscriptions each.
    FanOut,
    /// Batches over HTTPS beside batches over HTTP.
    Https,
    /// Batches and one event a call with all security on, beside the same without.
    Secured,
    /// The same with traces and metrics, beside the same without.
    Observed,
    /// One event a call, beside a handler that does nothing.
    Intake,
    /// Batches while somebody holds a transaction open; PostgreSQL only.
    Snapshot,
    /// Batches to 1, 2 and 4 replicas on one database; PostgreSQL only.
    Replicas,
    /// Batches and the steady rate with many settled deliveries.
    History,
    /// The same with many pending ones; then hostile receivers as well.
    Pending,
    /// The same with many organizations and subscriptions.
    Organizations,
    /// Each of them, but for the client alone, which is measured beside the others.
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
    /// Answers without doing anything.
    Empty,
    /// Takes spans.
    Collector,
}

impl Options {
    /// Whether a scenario on a store is asked for.
    pub(crate) fn asks_for(&self, scenario: Scenario) -> bool {
        self.scenario.contains(&scenario) || self.scenario.contains(&Scenario::All)
    }

    /// Batches, as fast as they are taken.
    pub(crate) fn batches(&self) -> Style {
        Style::Closed { callers: self.calls, batch: self.batch }
    }

    /// One event a call, at the steady rate.
    pub(crate) fn steady(&self) -> Style {
        Style::Open { per_second: self.rate }
    }

    /// One measurement of the throughput.
    pub(crate) fn extent(&self) -> Extent {
        Extent::Seconds(self.seconds)
    }
}

impl Role {
    /// As on the command line and in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Receiver => "receiver",
            Role::Load => "load",
            Role::Bare => "bare",
            Role::Empty => "empty",
            Role::Collector => "collector",
        }
    }
}
