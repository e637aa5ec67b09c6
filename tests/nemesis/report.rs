//! The report of a run, for people.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::checker::Findings;
use crate::figure::{Figure, Value, Verdict, percentile};
use crate::machine::Machine;
use crate::options::Run;
use crate::schedule::Happened;

/// Everything that a run has shown.
pub(crate) struct Report<'a> {
    pub(crate) run: Run,
    pub(crate) begun: Instant,
    pub(crate) happened: &'a Happened,
    pub(crate) findings: &'a Findings,
    /// Deliveries that the API lists.
    pub(crate) listed: usize,
    /// From the last fault to the end of the last delivery.
    pub(crate) finished: Duration,
    pub(crate) broken: &'a [String],
    pub(crate) left_out: &'a [(&'static str, &'static str)],
    pub(crate) machine: &'a Machine,
}

/// What a run comes to.
pub(crate) struct Summary {
    /// Whether every promise was kept.
    pub(crate) kept: bool,
    /// Goals that were missed.
    pub(crate) missed: usize,
}

impl Report<'_> {
    /// Prints it.
    pub(crate) fn print(&self) -> Summary {
        let Run { seed, store, seconds } = self.run;
        println!("\n=== {}, seed {seed}, {seconds} s", store.name());
        self.print_faults();
        self.print_sets();
        let missed = self.print_figures();
        for (fault, why) in self.left_out {
            println!("  LEFT OUT: {fault}: {why}");
        }
        let mut wrongs = self.findings.wrongs();
        wrongs.extend(self.broken.iter().cloned());
        for wrong in &wrongs {
            println!("  BROKEN: {wrong}");
        }
        let verdict = match (wrongs.is_empty(), missed) {
            (true, 0) => "every promise and every goal kept".to_owned(),
            (true, missed) => format!("every promise kept, {missed} goals missed"),
            (false, missed) => format!("{} promises broken, {missed} goals missed", wrongs.len()),
        };
        println!("  seed {seed} on {}: {verdict}", store.name());
        Summary { kept: wrongs.is_empty(), missed }
    }

    fn print_faults(&self) {
        println!("  {} faults, at second (and for seconds):", self.happened.faults.len());
        let mut times: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (fault, at, took) in &self.happened.faults {
            let second = at.saturating_duration_since(self.begun).as_secs();
            let entry = format!("{second} ({:.0})", took.as_secs_f64());
            times.entry(fault.name()).or_default().push(entry);
        }
        for (name, times) in times {
            println!("    {name:18} {}", times.join(", "));
        }
    }

    fn print_sets(&self) {
        let findings = self.findings;
        println!(
            "  events      {:8} published: {} acknowledged, {} refused, {} of unknown fate",
            findings.published, findings.acknowledged, findings.refused, findings.unknown
        );
        println!(
            "  deliveries  {:8} owed, {} listed by the API; {} requests",
            findings.deliveries, self.listed, findings.requests
        );
        println!("  lost        {:8}", findings.lost.len());
        println!("  unexpected  {:8}", findings.unexpected.len());
        println!("  wrong       {:8} organization, body or signature", findings.wrong.len());
        println!("  untimely    {:8} paused, deleted or early", findings.untimely.len());
        let mut by_fault: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for again in findings.again.iter().filter(|again| 0 < again.count) {
            let entry = by_fault.entry(again.window.fault.name()).or_default();
            *entry = (entry.0 + again.count, entry.1 + again.most);
        }
        let explained = by_fault.iter().map(|(fault, (n, most))| format!("{fault} {n} of {most}"));
        let explained: Vec<_> = explained.collect();
        println!(
            "  duplicates  {:8} of which unexplained {}{}{}",
            findings.duplicates,
            findings.unexplained.len(),
            if explained.is_empty() { "" } else { "; by fault, of at most: " },
            explained.join(", ")
        );
        println!("  finished    {:8.1} s after the last fault", self.finished.as_secs_f64());
    }

    /// The figures, worst and median of each; how many were missed.
    fn print_figures(&self) -> usize {
        let mut groups: BTreeMap<(&str, &str), Vec<&Figure>> = BTreeMap::new();
        let ages = self.findings.figures();
        for figure in self.happened.figures.iter().chain(&ages) {
            groups.entry((figure.fault.name(), figure.what)).or_default().push(figure);
        }
        println!(
            "  {:18} {:32} {:>5} {:>8} {:>8} {:>8}  goal",
            "fault", "figure", "times", "median", "worst", "wanted"
        );
        let mut missed = 0;
        for ((fault, what), figures) in groups {
            let verdicts: Vec<_> =
                figures.iter().map(|figure| figure.verdict(self.machine)).collect();
            let count = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count();
            missed += count(Verdict::Missed);
            let verdict = match (count(Verdict::Missed), count(Verdict::Machine)) {
                (0, 0) => "kept".to_owned(),
                (0, machine) => format!("kept but for {machine} by the machine"),
                (missed, 0) => format!("MISSED {missed}"),
                (missed, machine) => format!("MISSED {missed}, and {machine} by the machine"),
            };
            let (median, worst, goal) = middle_and_worst(&figures);
            println!(
                "  {fault:18} {what:32} {:>5} {median:>8} {worst:>8} {goal:>8}  {verdict}",
                figures.len()
            );
        }
        missed
    }
}

fn middle_and_worst(figures: &[&Figure]) -> (String, String, String) {
    let mut times = Vec::new();
    let mut counts = Vec::new();
    let mut wanted = String::new();
    for figure in figures {
        match figure.value {
            Value::Time(measured, goal) => {
                times.push(measured);
                wanted = seconds(goal);
            }
            Value::Count(measured, goal) => {
                counts.push(measured);
                wanted = goal.to_string();
            }
        }
    }
    counts.sort_unstable();
    if let Some(worst) = counts.last() {
        return (counts[counts.len() / 2].to_string(), worst.to_string(), wanted);
    }
    let of = |hundredths| percentile(times.clone(), hundredths).map(seconds).unwrap_or_default();
    (of(50), of(100), wanted)
}

fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}
