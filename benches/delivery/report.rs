//! The table for people, and each target beside its figure.

use std::fmt;

use crate::protocol::Quantiles;
use crate::scenario::Results;

/// One line of the table: medians, and sums of what is counted.
pub(crate) struct Row {
    pub(crate) store: String,
    pub(crate) name: String,
    pub(crate) delivered_per_s: f64,
    pub(crate) published_per_s: f64,
    pub(crate) of_limit: Option<f64>,
    pub(crate) arrival: Quantiles,
    pub(crate) answer: Quantiles,
    pub(crate) cpu_us: Vec<(&'static str, f64)>,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) refused: u64,
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
pub(crate) fn print(results: &Results, machine: &str) {
    println!("\n{machine}\n");
    println!(
        "| store | scenario | delivered/s | published/s | of the bare limit | \
         publish to arrival p50 / p99 / max ms | publish to OK p50 / p99 ms | \
         CPU us per delivery | deliveries | lost / twice / refused calls |"
    );
    println!("| --- | --- | --: | --: | --: | --: | --: | --- | --: | --: |");
    for row in &results.rows {
        println!("{row}");
    }
    if results.targets.is_empty() {
        return;
    }
    println!("\n| target | asked | measured | |\n| --- | --: | --: | --- |");
    for target in &results.targets {
        let Target { what, figure, bound, at_least } = target;
        let sign = if *at_least { "at least" } else { "under" };
        let verdict = if target.is_met() { "met" } else { "**missed**" };
        println!("| {what} | {sign} {bound:.2} | {figure:.2} | {verdict} |");
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.of_limit.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let cpu = self.cpu_us.iter().map(|(name, us)| format!("{name} {us:.1}"));
        let cpu = cpu.collect::<Vec<String>>().join(", ");
        let ms = |us: u64| crate::measure::float(us) / 1000.0;
        let (Quantiles { p50, p99, max }, answer) = (self.arrival, self.answer);
        write!(
            formatter,
            "| {} | {} | {:.0} | {:.0} | {limit} | {:.2} / {:.2} / {:.1} | {:.2} / {:.2} | {cpu} \
             | {} | {} / {} / {} |",
            self.store,
            self.name,
            self.delivered_per_s,
            self.published_per_s,
            ms(p50),
            ms(p99),
            ms(max),
            ms(answer.p50),
            ms(answer.p99),
            self.delivered,
            self.lost,
            self.duplicates,
            self.refused,
        )
    }
}
