//! The table for people, and each target beside its figure.

use std::fmt;

use crate::memory::Resident;
use crate::protocol::Quantiles;
use crate::results::Results;
use crate::results::millis;

/// One line of the table: medians, and sums of what is counted.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) store: String,
    pub(crate) name: String,
    pub(crate) delivered_per_s: f64,
    pub(crate) published_per_s: f64,
    pub(crate) of_limit: Option<f64>,
    pub(crate) arrival: Quantiles,
    pub(crate) answer: Quantiles,
    pub(crate) cpu_us: Vec<(&'static str, f64)>,
    /// Of the service, where there is one: the measurement with the highest peak.
    pub(crate) resident: Option<Resident>,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) refused: u64,
}

impl Row {
    /// Of service and database together, in microseconds of CPU time per delivery.
    pub(crate) fn service_us(&self) -> f64 {
        self.us(&["hookward", "postgres"])
    }

    /// The same of the load generator.
    pub(crate) fn load_us(&self) -> f64 {
        self.us(&["load"])
    }

    fn us(&self, processes: &[&str]) -> f64 {
        let these = self.cpu_us.iter().filter(|(name, _)| processes.contains(name));
        these.map(|(_, us)| us).sum()
    }

    /// Most memory that the service took, in MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.resident.unwrap_or_default().peak
    }
}

/// A figure that was promised.
pub(crate) struct Target {
    what: String,
    figure: f64,
    bound: f64,
    at_least: bool,
}

impl Target {
    /// Met from `bound` on.
    pub(crate) fn at_least(what: String, figure: f64, bound: f64) -> Target {
        Target { what, figure, bound, at_least: true }
    }

    /// Met under `bound`.
    pub(crate) fn below(what: String, figure: f64, bound: f64) -> Target {
        Target { what, figure, bound, at_least: false }
    }

    fn is_met(&self) -> bool {
        if self.at_least { self.bound <= self.figure } else { self.figure < self.bound }
    }
}

/// Prints everything, in Markdown, so that it can go into `docs/PERFORMANCE.md`.
pub(crate) fn print(results: &Results, machine: &str, quick: bool) {
    let mark = if quick { QUICK } else { "" };
    println!("\n{mark}{machine}\n");
    println!(
        "| store | scenario | delivered/s | published/s | of the bare limit | \
         publish to arrival p50 / p99 / max ms | publish to OK p50 / p99 ms | \
         CPU us per delivery | memory MiB peak / end | deliveries | \
         lost / twice / refused calls |"
    );
    println!("| --- | --- | --: | --: | --: | --: | --: | --- | --: | --: | --: |");
    for row in &results.rows {
        println!("{row}");
    }
    if !results.targets.is_empty() {
        println!("\n{mark}| target | asked | measured | |\n| --- | --: | --: | --- |");
    }
    for target in &results.targets {
        let Target { what, figure, bound, at_least } = target;
        let sign = if *at_least { "at least" } else { "under" };
        let verdict = if target.is_met() { "met" } else { "**missed**" };
        let mark = if quick { " (quick)" } else { "" };
        println!("| {what} | {sign} {bound:.2} | {figure:.2} | {verdict}{mark} |");
    }
    let missed = results.targets.iter().filter(|target| !target.is_met()).count();
    println!("\n{} targets, {missed} missed", results.targets.len());
    for failure in &results.failures {
        println!("\nNOT MEASURED: {failure}");
    }
}

/// Above every table of a quick run.
const QUICK: &str = "**QUICK RUN: one short measurement of each, little growth. \
                     It shows that everything works, not how fast it is.**\n\n";

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.of_limit.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let cpu = self.cpu_us.iter().map(|(name, us)| format!("{name} {us:.1}"));
        let cpu = cpu.collect::<Vec<String>>().join(", ");
        let resident = self.resident.map_or_else(
            || "-".to_owned(),
            |Resident { peak, end }| format!("{peak:.0} / {end:.0}"),
        );
        let (Quantiles { p50, p99, max }, answer) = (self.arrival, self.answer);
        write!(
            formatter,
            "| {} | {} | {:.0} | {:.0} | {limit} | {:.2} / {:.2} / {:.1} | {:.2} / {:.2} | {cpu} \
             | {resident} | {} | {} / {} / {} |",
            self.store,
            self.name,
            self.delivered_per_s,
            self.published_per_s,
            millis(p50),
            millis(p99),
            millis(max),
            millis(answer.p50),
            millis(answer.p99),
            self.delivered,
            self.lost,
            self.duplicates,
            self.refused,
        )
    }
}
