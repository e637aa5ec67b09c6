//! The delivery benchmark: `cargo bench --bench delivery`, as described in
//! `docs/PERFORMANCE.md`.
//!
//! Everything is real: the service is the command of this build, publishing goes over
//! gRPC, deliveries over HTTP, the databases are durable. Service, load generator and
//! receiver are processes of their own, so that the CPU time of each can be told.

mod bare;
mod cpu;
mod database;
mod histogram;
mod load;
mod machine;
mod measure;
mod options;
mod payload;
#[path = "../../tests/harness/postgres.rs"]
mod postgres;
mod protocol;
mod receiver;
mod report;
mod scenario;
mod service;
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
use crate::scenario::Results;

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

/// Takes orders in a role, on one thread.
fn play(role: Role, options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match role {
        Role::Receiver => runtime.block_on(receiver::run()),
        Role::Bare => runtime.block_on(bare::run()),
        Role::Load => {
            let service = options.service.clone().unwrap_or_default();
            runtime.block_on(load::run(service, options.grpc_connections))
        }
    }
}

/// Measures what is asked for and prints it. `false`: deliveries were lost.
fn measure(options: Options) -> anyhow::Result<bool> {
    if options.repeat == 0 || options.payload_bytes < payload::BYTES_MIN {
        bail!("--repeat is 1 or more, --payload-bytes {} or more", payload::BYTES_MIN);
    }
    let mut results = Results::default();
    let (store, scenario) = (options.store, options.scenario);
    let mut bench = Bench::new(options)?;
    if scenario == Scenario::Bare {
        scenario::bare(&mut bench, &mut results)?;
    } else {
        let stores: &[Store] = match store {
            StoreChoice::Sqlite => &[Store::Sqlite],
            StoreChoice::Postgres => &[Store::Postgres],
            StoreChoice::Both => &[Store::Sqlite, Store::Postgres],
        };
        for store in stores {
            if !scenario::on_store(&mut bench, *store, &mut results)? {
                eprintln!("!!! {} IS NOT INSTALLED AND NOT MEASURED !!!", store.name());
            }
        }
    }
    report::print(&results, &machine::describe(results.postgres.as_deref()));
    if 0 < results.lost {
        println!("\n{} accepted deliveries never arrived", results.lost);
    }
    Ok(results.lost == 0)
}
