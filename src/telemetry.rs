//! Where logs and traces go.
//!
//! Logs go to stderr. Traces go to an OpenTelemetry collector, and only when an endpoint
//! is set: otherwise there is no layer for them, and the spans of [`crate::trace`] are
//! disabled call sites. Metrics go there as well where that is asked for. Name and
//! attributes of the service are taken from the standard variables `OTEL_SERVICE_NAME` and
//! `OTEL_RESOURCE_ATTRIBUTES`.
//!
//! What libraries log may hold what their peers sent, so that a plain level speaks of
//! Hookward's own lines only, and libraries stay at `warn`.

mod otlp;
mod push;

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

pub use self::otlp::{Collector, Protocol};
use self::push::Push;

use crate::metrics::Metrics;
use crate::trace::{Sampling, TARGET};

/// Longest that the last spans and metrics may take to leave.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For reading; coloured on a terminal.
    #[default]
    People,
    /// One JSON object a line.
    Json,
}

/// What is logged and exported.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How a line looks.
    pub format: LogFormat,
    /// What is logged; [`check_filter`] accepts it.
    pub filter: String,
    /// Where traces go, and metrics if it says so; `None`: nowhere.
    pub collector: Option<Collector>,
    /// Which traces are made.
    pub sampling: Sampling,
}

/// Logs, traces and metrics, set up.
#[derive(Debug)]
#[must_use = "the last spans and metrics are lost unless it is flushed"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    filter: reload::Handle<EnvFilter, Registry>,
    metrics: Metrics,
    push: Option<Push>,
}

/// Why logs and traces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not something that [`check_filter`] accepts.
    #[error("log filter: {0}")]
    Filter(String),
    /// What is logged cannot be changed any more.
    #[error("the log filter cannot be changed: {0}")]
    Fixed(#[from] reload::Error),
    /// The exporter refused its settings.
    #[error("traces and metrics cannot be exported: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The process has its logs already.
    #[error("logs are set up twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// From now on a panic says where it happened and nothing else: its message may hold
/// what was being worked on.
pub fn hide_panic_messages() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if tracing::dispatcher::has_been_set() {
            tracing::error!(place, "panic");
        } else {
            eprintln!("hookward: panic at {place}");
        }
    }));
}

/// Whether `text` says what to log: a level, or directives as of `tracing-subscriber`'s
/// `EnvFilter`.
///
/// # Errors
///
/// A sentence that says what is wrong.
pub fn check_filter(text: &str) -> Result<(), String> {
    filter(text).map(drop)
}

impl Telemetry {
    /// Sends the process's logs, traces and metrics where `settings` say. Call it once, in
    /// the runtime.
    ///
    /// # Errors
    ///
    /// See [`TelemetryError`]. A collector that is away is none: spans are dropped, and
    /// metrics are pushed anew.
    pub fn start(settings: &Settings) -> Result<Telemetry, TelemetryError> {
        let filter = filter(&settings.filter).map_err(TelemetryError::Filter)?;
        let (filter, handle) = reload::Layer::new(filter);
        let mut layers = vec![log_layer(settings.format).with_filter(filter).boxed()];
        let (resource, collector) = (resource(), settings.collector.as_ref());
        let traced = collector.filter(|_| !settings.sampling.is_never());
        let provider = traced.map(|to| exporting(to, settings.sampling, resource.clone()));
        let provider = provider.transpose()?;
        let metrics = Metrics::of(resource);
        if let Some(provider) = &provider {
            layers.push(span_layer(provider));
        }
        tracing_subscriber::registry().with(layers).try_init()?;
        let push = collector.map(|collector| pushing(collector, &metrics)).transpose()?.flatten();
        Ok(Telemetry { provider, filter: handle, metrics, push })
    }

    /// From now on logs what `text` says.
    ///
    /// # Errors
    ///
    /// [`TelemetryError::Filter`] where [`check_filter`] does not accept it.
    pub fn set_filter(&self, text: &str) -> Result<(), TelemetryError> {
        let filter = filter(text).map_err(TelemetryError::Filter)?;
        Ok(self.filter.reload(filter)?)
    }

    /// What is shown and, where that is asked for, pushed.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Sends what has not left yet; takes at most some seconds.
    pub async fn flush(self) {
        tokio::join!(flush_traces(self.provider), flush_metrics(self.push));
    }
}

async fn flush_traces(provider: Option<SdkTracerProvider>) {
    let Some(provider) = provider else { return };
    // It blocks, and the exporter needs the runtime meanwhile.
    let flushed =
        tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_MAX)).await;
    if !matches!(flushed, Ok(Ok(()))) {
        tracing::warn!("the last traces were not delivered");
    }
}

async fn flush_metrics(push: Option<Push>) {
    let Some(push) = push else { return };
    if !matches!(tokio::time::timeout(FLUSH_MAX, push.finish()).await, Ok(true)) {
        tracing::warn!("the last metrics were not delivered");
    }
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    let directives = match text.trim().parse::<LevelFilter>() {
        Ok(LevelFilter::OFF) => "off".to_owned(),
        Ok(LevelFilter::ERROR) => "error".to_owned(),
        Ok(level) => format!("warn,hookward={level}"),
        // A lone word would be taken for a target, and a slip such as `inof` would log
        // nothing.
        Err(_) if text.split(',').all(is_directive) => text.to_owned(),
        Err(_) => return Err("write a level, or directives such as hookward=debug,warn".into()),
    };
    EnvFilter::builder().parse(directives).map_err(|error| error.to_string())
}

fn is_directive(part: &str) -> bool {
    part.contains('=') || part.trim().parse::<LevelFilter>().is_ok()
}

fn log_layer(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::People => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Opens the spans of the hot path, and nothing else.
fn span_layer(provider: &SdkTracerProvider) -> Box<dyn Layer<Registry> + Send + Sync> {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("hookward"))
        // Costs, and says nothing that the span does not.
        .with_tracked_inactivity(false)
        .with_threads(false)
        .with_location(false)
        .with_target(false)
        .with_context_activation(false)
        .with_filter(Targets::new().with_target(TARGET, LevelFilter::DEBUG))
        .boxed()
}

fn pushing(collector: &Collector, metrics: &Metrics) -> Result<Option<Push>, TelemetryError> {
    let Some(interval) = collector.metrics_interval else { return Ok(None) };
    Ok(Some(Push::start(collector.metrics()?, metrics.clone(), interval)))
}

fn exporting(
    collector: &Collector,
    sampling: Sampling,
    resource: Resource,
) -> Result<SdkTracerProvider, TelemetryError> {
    let builder = SdkTracerProvider::builder().with_batch_exporter(collector.spans()?);
    let builder = builder.with_resource(resource);
    sampling.set();
    let provider = match sampling {
        // What is not sampled has no span.
        Sampling::FollowsCaller(_) => builder.with_sampler(Sampler::AlwaysOn).build(),
        Sampling::EachSpan(ratio) => {
            builder.with_sampler(Sampler::TraceIdRatioBased(ratio)).build()
        }
    };
    // For spans that are made after the fact.
    opentelemetry::global::set_tracer_provider(provider.clone());
    Ok(provider)
}

/// Who sends: what the environment says, and what it leaves out. Each process is an instance
/// of its own, also those that follow each other in one place.
fn resource() -> Resource {
    let detected = Resource::builder().build();
    let said = |name| detected.get(&opentelemetry::Key::from_static_str(name));
    // What the library says when nobody does.
    let named = said("service.name").is_some_and(|name| !name.as_str().starts_with("unknown_"));
    let mut attributes: Vec<KeyValue> =
        detected.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    if !named {
        attributes.push(KeyValue::new("service.name", "hookward"));
    }
    if said("service.instance.id").is_none() {
        attributes.push(KeyValue::new("service.instance.id", instance()));
    }
    attributes.push(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    Resource::builder_empty().with_attributes(attributes).build()
}

/// A random UUID (RFC 9562, version 4).
fn instance() -> String {
    let random = fastrand::u128(..);
    let versioned = (random & !(0xF000 << 64)) | (0x4000 << 64);
    let text = format!("{:032x}", (versioned & !(0xC << 60)) | (0x8 << 60));
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_speaks_of_hookward_and_directives_of_what_they_name() {
        for (text, expected) in [
            ("info", "hookward=info,warn"),
            ("DEBUG", "hookward=debug,warn"),
            ("error", "error"),
            ("off", "off"),
            ("hookward::dispatcher=trace", "hookward::dispatcher=trace"),
        ] {
            let filter = filter(text).expect(text).to_string();
            let mut directives: Vec<&str> = filter.split(',').collect();
            directives.sort_unstable();
            assert_eq!(directives.join(","), expected, "{text}");
        }
        for text in ["loud", "hookward=loud", "[", "info,=,"] {
            assert!(check_filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_of_the_hot_path_are_made_only_for_an_exporter() {
        let made = |layers: Vec<Box<dyn Layer<Registry> + Send + Sync>>| {
            let subscriber = tracing_subscriber::registry().with(layers);
            tracing::subscriber::with_default(subscriber, || {
                let span = crate::trace::request_span(
                    "method",
                    &crate::domain::event::TraceContext::default(),
                );
                let other = tracing::debug_span!("another");
                (!span.is_disabled(), !other.is_disabled(), crate::trace::trace_id(&span))
            })
        };
        let log = || {
            let filter = filter("info").expect("is a level");
            log_layer(LogFormat::Json).with_filter(filter).boxed()
        };
        assert_eq!(made(vec![log()]), (false, false, [0; 16]));
        let provider = SdkTracerProvider::builder().build();
        let (own, other, id) = made(vec![log(), span_layer(&provider)]);
        assert!(own && !other);
        assert_ne!(id, [0; 16], "the layer is found behind the log's");
    }

    #[test]
    fn the_service_has_a_name_and_a_version() {
        let resource = resource();
        let value = |key: &'static str| {
            let value = resource.get(&opentelemetry::Key::from_static_str(key));
            value.map(|value| value.to_string())
        };
        assert_eq!(value("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(value("service.name").as_deref(), Some("hookward"));
        let instance = value("service.instance.id").expect("is said");
        let shape: Vec<usize> = instance.split('-').map(str::len).collect();
        assert_eq!(shape, [8, 4, 4, 4, 12], "{instance}");
        assert!(instance[14..].starts_with('4') && "89ab".contains(&instance[19..20]));
    }
}
