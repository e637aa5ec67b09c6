//! Which form of the metrics page a scraper would rather have (RFC 9110, section 12.5.1).

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// Whether it names OpenMetrics, and the older text format not before it.
pub(super) fn prefers_open_metrics(headers: &HeaderMap) -> bool {
    let (mut open, mut text) = (0.0, 0.0);
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in accepted.flat_map(|value| value.split(',')) {
        let (name, weight) = weighed(range);
        let best: &mut f32 = match name.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => &mut open,
            "text/plain" => &mut text,
            _ => continue,
        };
        *best = best.max(weight);
    }
    0.0 < open && text <= open
}

/// A media range and its weight, which is 1 where none is told and 0 where it cannot be read.
fn weighed(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    (name, weight.map_or(1.0, |text| text.parse().unwrap_or(0.0)))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn scrapers_get_what_they_name_first() {
        for (accept, open) in [
            // Prometheus 2.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
              version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            // Prometheus 3, and the same with the older format first in `scrape_protocols`.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
              text/plain;version=0.0.4;q=0.4,*/*;q=0.2",
                true,
            ),
            (
                "text/plain;version=0.0.4;q=0.6, application/openmetrics-text;version=1.0.0;q=0.5",
                false,
            ),
            ("Application/OpenMetrics-Text", true),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=much", false),
            ("text/plain", false),
            ("text/html, */*;q=0.8", false),
            ("*/*", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(accept);
            assert_eq!(
                prefers_open_metrics(&HeaderMap::from_iter([(ACCEPT, value)])),
                open,
                "{accept}"
            );
        }
        assert!(
            !prefers_open_metrics(&HeaderMap::new()),
            "whoever says nothing gets the older one"
        );
    }
}
