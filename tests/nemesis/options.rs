//! The command line.

use std::ops::RangeInclusive;

use clap::{Parser, ValueEnum};

use crate::faults::Fault;

/// Runs real processes under a seeded schedule of faults and checks that nothing is lost.
#[derive(Clone, Debug, Parser)]
#[command(name = "nemesis")]
pub(crate) struct Options {
    /// Decides which faults come when, to whom, and what is published; random when left out.
    #[arg(long, conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// One run for each seed from A to B, both included.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    pub(crate) seeds: Option<RangeInclusive<u64>>,
    /// Length of the schedule of faults; start, quiet phase and checks come on top.
    #[arg(long, default_value_t = 300)]
    pub(crate) seconds: u64,
    /// The database; `both`: PostgreSQL first, then SQLite for a fifth of the time.
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) store: StoreChoice,
    /// Only this fault, again and again.
    #[arg(long, value_enum)]
    pub(crate) fault: Option<Fault>,
    /// Events a second.
    #[arg(long, default_value_t = 250)]
    pub(crate) rate: u32,
    /// The seeds of `tests/nemesis/regressions.txt` instead.
    #[arg(long, conflicts_with_all = ["seed", "seeds", "store"])]
    pub(crate) regressions: bool,
    /// What a missed goal does; broken promises always fail.
    #[arg(long, value_enum, default_value = "fail")]
    pub(crate) goals: Goals,
    /// Fail when fewer faults were injected than this, over all runs.
    #[arg(long, default_value_t = 0)]
    pub(crate) faults_min: usize,
    /// Fail when fewer events were acknowledged than this, over all runs.
    #[arg(long, default_value_t = 0)]
    pub(crate) events_min: usize,
}

/// `--store`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreChoice {
    /// Three replicas on a primary with a synchronous standby.
    Postgres,
    /// One process on a file.
    Sqlite,
    /// One after the other.
    Both,
}

/// `--goals`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goals {
    /// Fails the run.
    Fail,
    /// Is printed: for machines whose speed nobody knows.
    Tell,
}

/// The database of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Postgres,
    Sqlite,
}

/// One run: a seed on a database for some seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) store: Store,
    pub(crate) seconds: u64,
}

/// Seeds that failed once: `SEED STORE` a line, `#` begins a comment.
const REGRESSIONS: &str = include_str!("regressions.txt");
/// Part of the time that SQLite gets of `--store both`.
const SQLITE_PART: u64 = 5;

impl Store {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Store::Postgres => "PostgreSQL",
            Store::Sqlite => "SQLite",
        }
    }
}

impl Options {
    /// What is to be run, in order.
    pub(crate) fn runs(&self) -> Vec<Run> {
        if self.regressions {
            return regressions(self.seconds);
        }
        let seeds: Vec<u64> = match (&self.seeds, self.seed) {
            (Some(seeds), _) => seeds.clone().collect(),
            (None, Some(seed)) => vec![seed],
            // Short enough to be typed.
            (None, None) => vec![fastrand::u64(1..1_000_000)],
        };
        let seconds = self.seconds;
        let on_each = |seed| {
            let on = |store, seconds| Run { seed, store, seconds };
            match self.store {
                StoreChoice::Postgres => vec![on(Store::Postgres, seconds)],
                StoreChoice::Sqlite => vec![on(Store::Sqlite, seconds)],
                StoreChoice::Both => {
                    vec![on(Store::Postgres, seconds), on(Store::Sqlite, seconds / SQLITE_PART)]
                }
            }
        };
        seeds.into_iter().flat_map(on_each).collect()
    }
}

fn regressions(seconds: u64) -> Vec<Run> {
    let lines = REGRESSIONS.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let runs = lines.filter(|line| !line.is_empty()).map(|line| {
        let (seed, store) = line.split_once(' ').expect("regressions.txt: SEED STORE");
        let store = match store.trim() {
            "postgres" => Store::Postgres,
            "sqlite" => Store::Sqlite,
            other => panic!("regressions.txt: {other} is neither postgres nor sqlite"),
        };
        Run { seed: seed.parse().expect("regressions.txt: a seed is a number"), store, seconds }
    });
    runs.collect()
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write A..B")?;
    let number = |text: &str| text.trim_start_matches('=').parse::<u64>();
    match (number(from), number(to)) {
        (Ok(from), Ok(to)) if from <= to => Ok(from..=to),
        _ => Err("A and B are whole numbers, A not above B".into()),
    }
}
