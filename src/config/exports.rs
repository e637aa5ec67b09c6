//! What is logged and exported, and where to.

use std::time::Duration;

use crate::telemetry::{self, Collector, LogFormat, Protocol};
use crate::trace::Sampling;

use super::{Faults, LogArguments, value};

/// Of milliseconds between two pushes, unless something is said: the standard's.
const INTERVAL_DEFAULT: &str = "60000";
/// The most of them: a day.
const INTERVAL_MAX: u32 = 86_400_000;

pub(super) fn read(arguments: &LogArguments, faults: &mut Faults) -> Option<telemetry::Settings> {
    let format = match arguments.log_format.as_str() {
        "people" => Ok(LogFormat::People),
        "json" => Ok(LogFormat::Json),
        _ => Err("write people or json"),
    };
    let format = faults.note("log-format", format);
    let filter = faults.note("log", telemetry::check_filter(&arguments.log));
    let filter = filter.map(|()| arguments.log.clone());
    let endpoint = endpoint(arguments.otlp_endpoint.as_deref().unwrap_or_default());
    let endpoint = faults.note("otlp-endpoint", endpoint);
    let protocol = faults.note("otlp-protocol", Protocol::named(&arguments.otlp_protocol));
    let ratio = faults.note("traces-sampler-arg", value::ratio(&arguments.traces_sampler_arg));
    let sampling = Sampling::named(&arguments.traces_sampler, ratio.unwrap_or(1.0));
    let sampling = faults.note("traces-sampler", sampling);
    let interval = faults.note("metric-export-interval", interval(arguments));
    let pushes = pushes(&arguments.metrics_exporter, arguments.otlp_endpoint.as_deref());
    let pushes = faults.note("metrics-exporter", pushes);
    let (protocol, interval) = (protocol?, interval?);
    let metrics_interval = Some(interval).filter(|_| pushes == Some(true));
    Some(telemetry::Settings {
        format: format?,
        filter: filter?,
        collector: endpoint?.map(|endpoint| Collector { endpoint, protocol, metrics_interval }),
        sampling: sampling?,
    })
}

/// The standard: an empty variable is one that is not set.
fn endpoint(text: &str) -> Result<Option<String>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = text.parse::<http::Uri>().ok();
    let plain = url.filter(|url| url.scheme_str() == Some("http") && url.query().is_none());
    plain
        .map(|_| Some(text.to_owned()))
        .ok_or("write http://HOST:PORT; for TLS put a collector beside the server")
}

/// Whether metrics are pushed. The standard has a list of names here.
fn pushes(text: &str, endpoint: Option<&str>) -> Result<bool, &'static str> {
    let mut pushes = false;
    for name in text.split(',') {
        match name.trim() {
            // The page of the admin port is there anyway.
            "" | "none" | "prometheus" => {}
            "otlp" => pushes = true,
            _ => return Err("write none or otlp"),
        }
    }
    if pushes && endpoint.is_none_or(str::is_empty) {
        return Err("otlp needs --otlp-endpoint");
    }
    Ok(pushes)
}

fn interval(arguments: &LogArguments) -> Result<Duration, String> {
    let text = arguments.metric_export_interval.trim();
    let text = if text.is_empty() { INTERVAL_DEFAULT } else { text };
    value::count(text, 100, INTERVAL_MAX).map(|millis| Duration::from_millis(millis.into()))
}
