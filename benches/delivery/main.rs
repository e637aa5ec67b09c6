//! The delivery benchmark: `cargo bench --bench delivery`, as described in
//! `docs/PERFORMANCE.md`.
//!
//! Everything is real: the service is the command of this build, publishing goes over
//! gRPC, deliveries over HTTP, the databases are durable. Service, load generator and
//! receiver are processes of their own, so that the CPU time of each can be told.

mod audience;
mod bare;
mod caller;
mod certificate;
mod collector;
mod copies;
mod cpu;
mod database;
mod empty;
mod fitted;
mod fitting;
mod growth;
mod histogram;
mod hostile;
mod intake;
mod load;
mod machine;
mod measure;
mod memory;
mod metrics_reader;
mod options;
mod payload;
#[path = "../../tests/harness/postgres.rs"]
mod postgres;
mod protocol;
mod receiver;
mod replicas;
mod report;
mod results;
mod scenario;
mod service;
mod snapshot;
mod sqlite;
mod stage;
mod throughput;
mod tracker;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Parser as _;

use crate::database::Store;
use crate::measure::Bench;
use crate::options::Options;
use crate::options::Role;
use crate::options::Scenario;
use crate::options::StoreChoice;
use crate::results::Results;

/// As in the service, so that the bare limit is that of the same code.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.role {
        Some(role) => play(role, &options).map(|()| true),
        None if options.bench => measure(options),
        None => {
            println!("nothing is measured outside `cargo bench --bench delivery`");
            Ok(true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("delivery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits. The benchmark itself has no runtime that this could hold up.
#[expect(clippy::disallowed_methods, reason = "no runtime here, nothing to be told by")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Takes orders in a role: on one thread, but for what stands for the service.
fn play(role: Role, options: &Options) -> anyhow::Result<()> {
    if role == Role::Empty {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(empty::run());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match role {
            Role::Receiver => receiver::run().await,
            Role::Bare => bare::run().await,
            Role::Load => load::run(options).await,
            Role::Empty => empty::run().await,
            Role::Collector => collector::run().await,
        }
    })
}

/// Measures what is asked for and prints it. `false`: deliveries were lost, or
/// something could not be measured.
fn measure(options: Options) -> anyhow::Result<bool> {
    if options.repeat == 0 || options.payload_bytes < payload::BYTES_MIN {
        bail!("--repeat is 1 or more, --payload-bytes {} or more", payload::BYTES_MIN);
    }
    let mut results = Results::default();
    let stores: &[Store] = match options.store {
        StoreChoice::Sqlite => &[Store::Sqlite],
        StoreChoice::Postgres => &[Store::Postgres],
        StoreChoice::Both => &[Store::Sqlite, Store::Postgres],
    };
    let (bare, quick) = (options.scenario.contains(&Scenario::Bare), options.quick);
    let only_bare = options.scenario.iter().all(|scenario| *scenario == Scenario::Bare);
    let mut bench = Bench::new(options)?;
    if bare {
        throughput::bare(&mut bench, &mut results)?;
    }
    for store in stores.iter().filter(|_| !only_bare) {
        if !scenario::on_store(&mut bench, *store, &mut results)? {
            eprintln!("!!! {} IS NOT INSTALLED AND NOT MEASURED !!!", store.name());
        }
    }
    report::print(&results, &machine::describe(results.postgres.as_deref()), quick);
    if 0 < results.lost {
        println!("\n{} accepted deliveries never arrived", results.lost);
    }
    Ok(results.lost == 0 && results.failures.is_empty())
}
