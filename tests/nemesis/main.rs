//! The nemesis: real processes under a seeded schedule of faults, with a ledger of what was
//! promised and a checker of what was kept. `docs/NEMESIS.md` tells how to read it.
//!
//! ```sh
//! cargo test --test nemesis -- --seed 7 --seconds 120
//! ```

#[path = "../harness/admin.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod admin;
mod agreement;
mod api;
#[path = "../harness/authority.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod authority;
mod checker;
mod cluster;
mod command;
mod faults;
mod figure;
mod ledger;
mod machine;
mod measure;
#[path = "../harness/nameserver.rs"]
mod nameserver;
mod options;
mod payload;
mod publisher;
mod receiver;
mod relay;
mod replica;
mod report;
mod schedule;
mod target;
mod trick;
#[path = "../harness/wire.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod wire;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser as _;
use fastrand::Rng;

use crate::options::{Goals, Options, Run, Store};
use crate::report::Report;
use crate::world::World;

/// As in the service: thousands of small buffers a second.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Panics of anything that takes part: a receiver that saw what no request may be, say.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What a run comes to.
struct Outcome {
    kept: bool,
    faults: usize,
    acknowledged: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        usual(panic);
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (mut kept, mut faults, mut events) = (true, 0, 0);
    for run in options.runs() {
        match runtime.block_on(perform(&options, run)) {
            Ok(outcome) => {
                kept &= outcome.kept;
                faults += outcome.faults;
                events += outcome.acknowledged;
            }
            Err(error) => {
                println!("  seed {} on {}: NOT RUN: {error}", run.seed, run.store.name());
                kept = false;
            }
        }
    }
    if faults < options.faults_min || events < options.events_min {
        println!("{faults} faults and {events} events are fewer than wanted");
        kept = false;
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One run, from nothing to the report.
async fn perform(options: &Options, run: Run) -> Result<Outcome, String> {
    println!("\nnemesis: seed {} on {} for {} s", run.seed, run.store.name(), run.seconds);
    let folder = folder(run)?;
    let begun = Instant::now();
    let world = Arc::new(World::build(run.store, &folder).await?);
    let happened = schedule::perform(&world, options, run).await;
    // Whatever happened, what is in the ledger is judged.
    let (happened, error) = match happened {
        Ok(happened) => (happened, None),
        Err(error) => (schedule::Happened::nothing(), Some(error)),
    };
    if let Some(error) = error {
        world.ledger.broken(error);
    }
    world.heal().await;
    let finished = agreement::finished(&world).await;
    let listed = agreement::compare(&world, &mut Rng::with_seed(run.seed)).await;
    look_at_logs(&world);
    if run.store == Store::Sqlite {
        check_file(&world, &folder.join("disk/hookward.db")).await;
    }
    let findings = {
        let book = world.ledger.book();
        checker::check(&book, &world.targets, world.replicas.len())
    };
    // Now, while the service still answers.
    agreement::explain(&world, &findings.unexplained_of).await;
    let book = world.ledger.book();
    let summary = Report {
        run,
        begun,
        happened: &happened,
        findings: &findings,
        listed,
        finished,
        broken: &book.broken,
        left_out: &book.left_out,
        machine: &world.machine,
    }
    .print();
    println!("  logs: {}", folder.display());
    let kept = summary.kept && (summary.missed == 0 || options.goals == Goals::Tell);
    Ok(Outcome { kept, faults: happened.faults.len(), acknowledged: findings.acknowledged })
}

/// Where the logs of a run stay.
fn folder(run: Run) -> Result<PathBuf, String> {
    let name = format!("nemesis-{}-{}", run.store.name().to_lowercase(), run.seed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// No process may have panicked, neither the service's nor this one.
fn look_at_logs(world: &World) {
    for replica in &world.replicas {
        let log = replica.log();
        for line in log.lines().filter(|line| line.contains("panicked")).take(3) {
            world.ledger.broken(format!("replica {}: {line}", replica.slot));
        }
    }
    let panics = PANICS.swap(0, Ordering::SeqCst);
    if 0 < panics {
        world.ledger.broken(format!("{panics} panics of the nemesis itself: see above"));
    }
}

/// `PRAGMA integrity_check`, with the server gone.
async fn check_file(world: &World, file: &Path) {
    use sea_orm::{ConnectionTrait as _, Database, DbBackend, Statement};
    world.replicas[0].signal("TERM");
    if world.replicas[0].ends(std::time::Duration::from_secs(20)).await.is_none() {
        world.ledger.broken("the last SIGTERM does not end it");
    }
    let check = async {
        let connection = Database::connect(format!("sqlite:{}?mode=rw", file.display())).await?;
        let check = Statement::from_string(DbBackend::Sqlite, "PRAGMA integrity_check");
        let row = connection.query_one_raw(check).await?;
        let said: Option<String> = row.map(|row| row.try_get_by_index(0)).transpose()?;
        Ok::<_, sea_orm::DbErr>(said.unwrap_or_default())
    };
    match check.await {
        Ok(said) if said == "ok" => {}
        Ok(said) => world.ledger.broken(format!("the file is damaged: {said}")),
        Err(error) => world.ledger.broken(format!("the file cannot be read: {error}")),
    }
}
