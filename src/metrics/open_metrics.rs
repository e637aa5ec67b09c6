//! The page in OpenMetrics, which has exemplars and is otherwise the same.

use std::collections::HashMap;
use std::fmt::Write;

use super::Metrics;

impl Metrics {
    /// The page of [`Metrics::render`] in OpenMetrics 1.0, with exemplars.
    #[must_use]
    pub fn render_open_metrics(&self) -> String {
        let mut exemplars = HashMap::new();
        for histogram in self.inner.times.delays.exemplars() {
            histogram.add_to(&mut exemplars);
        }
        open_metrics(&self.render(), &exemplars)
    }
}

/// Rewrites a page of Prometheus' text format 0.0.4. In OpenMetrics a counter's name ends
/// before `_total`, which its sample has, quotes are escaped in help texts, too, and a page
/// has an end. Exemplars by what stands before the value.
fn open_metrics(page: &str, exemplars: &HashMap<String, String>) -> String {
    let mut open = String::with_capacity(page.len() + 128 * exemplars.len() + 8);
    let mut help = None;
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            help = text.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' '))
        {
            let name = if kind == "counter" { name.trim_end_matches("_total") } else { name };
            let _ = writeln!(open, "# TYPE {name} {kind}");
            if let Some((_, help)) = help.take() {
                let _ = writeln!(open, "# HELP {name} {}", help.replace('"', "\\\""));
            }
        } else {
            let exemplar = line.rsplit_once(' ').and_then(|(series, _)| exemplars.get(series));
            open.push_str(line);
            if let Some(exemplar) = exemplar {
                let _ = write!(open, " # {exemplar}");
            }
            open.push('\n');
        }
    }
    open.push_str("# EOF\n");
    open
}
