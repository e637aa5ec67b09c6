//! What came of all of it: rows of medians, and each target beside its figure.

use std::collections::HashMap;

use crate::database::Store;
use crate::measure::Figures;
use crate::protocol::Quantiles;
use crate::report::Row;
use crate::report::Target;

/// Everything that is printed at the end.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) targets: Vec<Target>,
    /// Of the PostgreSQL that was measured.
    pub(crate) postgres: Option<String>,
    /// Deliveries that were accepted and did not arrive.
    pub(crate) lost: u64,
    /// Scenarios that could not be measured, and why.
    pub(crate) failures: Vec<String>,
    /// What an empty database does, by store.
    pub(crate) empty: HashMap<Store, Empty>,
}

/// What grown databases are compared with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Empty {
    /// Batches, of the bare limit.
    pub(crate) of_limit: Option<f64>,
    /// At the steady rate, from publish to arrival.
    pub(crate) p99_ms: Option<f64>,
}

impl Results {
    /// Adds the medians of `found` to the table, and answers them.
    pub(crate) fn add(&mut self, store: &str, name: &str, found: &[Figures]) -> Row {
        self.push(store, name, found, None)
    }

    /// The same, each of them also divided by the one of `limits` that was measured
    /// right before it.
    pub(crate) fn add_of(
        &mut self,
        store: &str,
        name: &str,
        found: &[Figures],
        limits: &[Figures],
    ) -> Row {
        let of_limit = median_ratio(found, limits, |figures| figures.delivered_per_s);
        self.push(store, name, found, Some(of_limit))
    }

    /// A figure that must reach `bound`.
    pub(crate) fn at_least(&mut self, what: String, figure: f64, bound: f64) {
        self.targets.push(Target::at_least(what, figure, bound));
    }

    /// A figure that must stay under `bound`.
    pub(crate) fn below(&mut self, what: String, figure: f64, bound: f64) {
        self.targets.push(Target::below(what, figure, bound));
    }

    fn push(&mut self, store: &str, name: &str, found: &[Figures], of_limit: Option<f64>) -> Row {
        self.lost += found.iter().map(|figures| figures.lost).sum::<u64>();
        let all = |figure: fn(&Figures) -> f64| median(found.iter().map(figure));
        let quantiles = |of: fn(&Figures) -> Quantiles| {
            let middle = |figure: fn(&Quantiles) -> u64| {
                let mut all: Vec<u64> = found.iter().map(|figures| figure(&of(figures))).collect();
                all.sort_unstable();
                all[all.len() / 2]
            };
            Quantiles { p50: middle(|q| q.p50), p99: middle(|q| q.p99), max: middle(|q| q.max) }
        };
        let names = found[0].cpu_us.iter().map(|(name, _)| *name).enumerate();
        let cpu_us = names.map(|(at, name)| (name, median(found.iter().map(|f| f.cpu_us[at].1))));
        // Not the median: a limit that is kept most of the time is not kept.
        let resident = found.iter().filter_map(|figures| figures.resident);
        let resident = resident.max_by(|one, other| one.peak.total_cmp(&other.peak));
        let row = Row {
            store: store.to_owned(),
            name: name.to_owned(),
            delivered_per_s: all(|figures| figures.delivered_per_s),
            published_per_s: all(|figures| figures.published_per_s),
            of_limit,
            arrival: quantiles(|figures| figures.arrival),
            answer: quantiles(|figures| figures.answer),
            cpu_us: cpu_us.collect(),
            resident,
            delivered: found.iter().map(|figures| figures.delivered).sum(),
            lost: found.iter().map(|figures| figures.lost).sum(),
            duplicates: found.iter().map(|figures| figures.duplicates).sum(),
            refused: found.iter().map(|figures| figures.refused).sum(),
        };
        eprintln!("{row}");
        self.rows.push(row.clone());
        row
    }
}

/// Of each figure divided by the one that was measured beside it.
pub(crate) fn median_ratio(
    found: &[Figures],
    limits: &[Figures],
    figure: fn(&Figures) -> f64,
) -> f64 {
    median(found.iter().zip(limits).map(|(found, limit)| figure(found) / figure(limit)))
}

/// Of at least one figure; halfway between two in the middle.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    f64::midpoint(figures[(figures.len() - 1) / 2], figures[figures.len() / 2])
}

/// As times are printed.
pub(crate) fn millis(micros: u64) -> f64 {
    crate::measure::float(micros) / 1000.0
}
