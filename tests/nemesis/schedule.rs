//! The schedule of a run: who is there, what happens when, and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::join_all;

use crate::faults::{Cast, Fault, Lane, Scene};
use crate::figure::Figure;
use crate::options::{Options, Run};
use crate::publisher::Publishers;
use crate::target::{Mood, Plan, Purpose, Target};
use crate::world::World;

/// Load without faults, before the first.
const WARM_UP: Duration = Duration::from_secs(3);
/// Between two faults of the main lane, at most; the other lane takes thrice that.
const GAP_MILLIS: u64 = 2000;
/// Replicas are ready again so soon after a fault has gone.
const READY_WITHIN: Duration = Duration::from_secs(40);
/// Subscriptions that can hang at once.
const FLOODED: usize = 12;

/// What happened in a run.
pub(crate) struct Happened {
    pub(crate) faults: Vec<(Fault, Instant, Duration)>,
    pub(crate) figures: Vec<Figure>,
}

impl Happened {
    pub(crate) fn nothing() -> Happened {
        Happened { faults: Vec::new(), figures: Vec::new() }
    }
}

/// Retries that last longer than any fault, and come often enough for the quiet phase.
const WAITS: &[u64] = &[
    100, 200, 500, 1000, 1000, 2000, 2000, 2000, 2000, 2000, 3000, 3000, 3000, 3000, 3000, 3000,
    3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000,
];
/// Always the same wait, so that what comes early is seen.
const EVEN_WAITS: &[u64] = &[1000; 49];

/// Loads and disturbs the world until the time is up.
pub(crate) async fn perform(
    world: &Arc<World>,
    options: &Options,
    run: Run,
) -> Result<Happened, String> {
    let mut rng = Rng::with_seed(run.seed);
    let cast = Arc::new(cast(world, &mut rng).await.ok_or("the targets cannot be subscribed")?);
    let publishers = Publishers::start(world, run.seed, options.rate);
    tokio::time::sleep(WARM_UP).await;
    let end = Instant::now() + Duration::from_secs(run.seconds);
    let failed = Arc::new(AtomicBool::new(false));
    let lanes = [Lane::Main, Lane::Side].map(|lane| {
        let lane = LaneOf {
            world: Arc::clone(world),
            cast: Arc::clone(&cast),
            lane,
            choices: choices(options, run, lane),
            end,
            failed: Arc::clone(&failed),
        };
        lane.play(rng.fork())
    });
    let mut happened = Happened::nothing();
    for part in join_all(lanes).await {
        happened.faults.extend(part.faults);
        happened.figures.extend(part.figures);
    }
    publishers.stop().await;
    happened.faults.sort_by_key(|(_, at, _)| *at);
    Ok(happened)
}

/// The faults of a lane, with their weights.
fn choices(options: &Options, run: Run, lane: Lane) -> Vec<(Fault, u32)> {
    let possible = Fault::on(run.store).iter().copied();
    let wanted = |(fault, _): &(Fault, u32)| {
        fault.lane() == lane && options.fault.is_none_or(|only| only == *fault)
    };
    possible.filter(wanted).collect()
}

struct LaneOf {
    world: Arc<World>,
    cast: Arc<Cast>,
    lane: Lane,
    choices: Vec<(Fault, u32)>,
    end: Instant,
    /// Whether any lane has failed: then the others end as well.
    failed: Arc<AtomicBool>,
}

impl LaneOf {
    async fn play(self, mut rng: Rng) -> Happened {
        let mut happened = Happened::nothing();
        let mut deck = Vec::new();
        while Instant::now() < self.end && !self.failed.load(Ordering::SeqCst) {
            let longest = if self.lane == Lane::Main { GAP_MILLIS } else { 3 * GAP_MILLIS };
            tokio::time::sleep(Duration::from_millis(rng.u64(500..longest))).await;
            if deck.is_empty() {
                deck = shuffled(&self.choices, &mut rng);
            }
            let Some(fault) = deck.pop() else { break };
            let at = Instant::now();
            println!("    {:8} {}", clock(), fault.name());
            let main = self.lane == Lane::Main;
            let entry = main.then(|| self.world.ledger.book().trouble_begins());
            let mut scene = Scene {
                world: &self.world,
                rng: &mut rng,
                cast: &self.cast,
                fault,
                figures: Vec::new(),
                number: happened.faults.len(),
            };
            let played = scene.play().await;
            happened.figures.append(&mut scene.figures);
            happened.faults.push((fault, at, at.elapsed()));
            if let Err(error) = played {
                // What it began may still go on: the run ends, and is judged.
                self.failed.store(true, Ordering::SeqCst);
                self.world.ledger.broken(format!("{}: {error}", fault.name()));
                return happened;
            }
            if main {
                self.world.look_after().await;
                if !self.world.all_ready(READY_WITHIN).await {
                    let what = format!("{}: a replica does not get ready after it", fault.name());
                    self.world.ledger.broken(what);
                }
            }
            if let Some(entry) = entry {
                self.world.ledger.book().trouble_ends(entry);
            }
        }
        happened
    }
}

/// Every choice as often as its weight says, in any order: so that a run of some minutes
/// has all of them.
fn shuffled(choices: &[(Fault, u32)], rng: &mut Rng) -> Vec<Fault> {
    let most = choices.iter().map(|(_, weight)| *weight).max().unwrap_or_default();
    let mut deck = Vec::new();
    // The rare ones spread over the rounds of the frequent ones.
    for round in 0..most {
        let mut hand: Vec<Fault> = Vec::new();
        for (number, (fault, weight)) in choices.iter().enumerate() {
            let offset = u32::try_from(number).unwrap_or_default() % most;
            if (round + offset) * weight % most < *weight {
                hand.push(*fault);
            }
        }
        rng.shuffle(&mut hand);
        deck.extend(hand);
    }
    deck
}

fn clock() -> String {
    let now = time::OffsetDateTime::now_utc().time();
    format!("{:02}:{:02}:{:02}", now.hour(), now.minute(), now.second())
}

/// The targets of a run.
async fn cast(world: &World, rng: &mut Rng) -> Option<Cast> {
    let plan = |organization, profile, pattern| Plan {
        organization,
        profile,
        pattern,
        purpose: Purpose::Steady,
        usual: Mood::Well,
        secure: true,
        waits: WAITS,
        timeout: Duration::from_secs(5),
        in_flight: 64,
    };
    let slow = |plan, millis| Plan { usual: Mood::Slow(Duration::from_millis(millis)), ..plan };
    let troubled = |plan| Plan { purpose: Purpose::Troubled, waits: EVEN_WAITS, ..plan };
    let bad = |plan: Plan| Plan {
        secure: false,
        timeout: Duration::from_secs(1),
        in_flight: 16,
        ..troubled(plan)
    };
    let mut make = async |plan| -> Option<Arc<Target>> { world.subscribe(plan, rng).await };
    let all = make(plan(0, "azodha", "*")).await?;
    let visits = make(slow(plan(0, "standard", "visit.*"), 120)).await?;
    let failing = make(troubled(plan(0, "hapihub", "invoice.paid"))).await?;
    let forms = make(plan(1, "meetinglawyers", "*")).await?;
    let rotating = make(plan(1, "standard", "visit.*")).await?;
    let hostile = Plan { usual: Mood::Hostile, ..bad(plan(1, "telegramd", "odd.*")) };
    make(hostile).await?;
    let pausing = make(Plan { purpose: Purpose::Troubled, ..plan(2, "telegramd", "*") }).await?;
    let invoices = make(slow(plan(2, "azodha", "invoice.paid"), 300)).await?;
    let mut flooded = Vec::new();
    for _ in 0..FLOODED {
        flooded.push(make(bad(plan(3, "azodha", "flood.*"))).await?);
    }
    let backlogged = make(troubled(plan(4, "hapihub", "*"))).await?;
    make(bad(plan(5, "azodha", "*"))).await?;
    Some(Cast {
        slow: vec![all, visits, invoices],
        failing,
        pausing,
        rotating: vec![rotating, forms],
        flooded,
        backlogged,
        passing: Plan { purpose: Purpose::Passing, ..plan(2, "standard", "visit.*") },
    })
}
