//! An OpenTelemetry collector on loopback: takes spans and metrics by OTLP, over
//! gRPC or over HTTP.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, HistogramDataPoint, Metric, NumberDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

pub(crate) struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Taken>>,
}

/// What may be spoken to it, by the names of the standard.
pub(crate) const GRPC: &str = "grpc";
pub(crate) const HTTP: &str = "http/protobuf";

#[derive(Default)]
struct Taken {
    /// With the instance of the service that each is from.
    spans: Vec<(String, Span)>,
    /// Of each push, its values by the names that the page has for them.
    pushes: Vec<BTreeMap<String, f64>>,
    /// Who sent the last of it.
    resource: Resource,
    /// Path and content type of each request over HTTP.
    requests: Vec<(String, String)>,
    /// Everything, as it is on the wire.
    bytes: Vec<u8>,
}

#[derive(Clone)]
struct Taking(Arc<Mutex<Taken>>);

impl Collector {
    /// One that speaks gRPC.
    pub(crate) async fn start() -> Collector {
        Collector::speaking(GRPC).await
    }

    pub(crate) async fn speaking(protocol: &str) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let taken = Arc::new(Mutex::new(Taken::default()));
        let taking = Taking(Arc::clone(&taken));
        if protocol == HTTP {
            let router = Router::new().fallback(take).with_state(taking);
            tokio::spawn(axum::serve(listener, router).into_future());
        } else {
            let server = Server::builder()
                .add_service(TraceServiceServer::new(taking.clone()))
                .add_service(MetricsServiceServer::new(taking));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        }
        Collector { address, taken }
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Everything that came so far, as it is on the wire: spans, and who sent them.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.taken().bytes.clone()
    }

    /// Path and content type of each request that came over HTTP.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.taken().requests.clone()
    }

    /// How many times metrics came.
    pub(crate) fn pushes(&self) -> usize {
        self.taken().pushes.len()
    }

    /// The values that came last, by the names that the page has for them.
    pub(crate) fn series(&self) -> BTreeMap<String, f64> {
        self.taken().pushes.last().cloned().unwrap_or_default()
    }

    /// What the last one says of who sent it.
    pub(crate) fn sender(&self, attribute: &str) -> Option<String> {
        text(&self.taken().resource, attribute)
    }

    /// All spans, in the order of their arrival.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.taken().spans.iter().map(|(_, span)| span.clone()).collect()
    }

    /// The spans of one trace, in the order of their arrival.
    pub(crate) fn trace(&self, trace_id: &[u8]) -> Vec<Span> {
        self.trace_by_instance(trace_id).into_iter().map(|(_, span)| span).collect()
    }

    /// The same, each with the instance of the service that it is from.
    pub(crate) fn trace_by_instance(&self, trace_id: &[u8]) -> Vec<(String, Span)> {
        let taken = self.taken();
        taken.spans.iter().filter(|(_, span)| span.trace_id == trace_id).cloned().collect()
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("nobody panics while holding it")
    }
}

impl Taking {
    fn spans(&self, request: ExportTraceServiceRequest) {
        let mut taken = self.0.lock().expect("nobody panics while holding it");
        taken.bytes.extend(request.encode_to_vec());
        for resource in request.resource_spans {
            let sender = resource.resource.expect("a service says which one it is");
            let instance = text(&sender, "service.instance.id").expect("each has its own");
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            taken.spans.extend(spans.map(|span| (instance.clone(), span)));
            taken.resource = sender;
        }
    }

    fn metrics(&self, request: ExportMetricsServiceRequest) {
        let mut taken = self.0.lock().expect("nobody panics while holding it");
        taken.bytes.extend(request.encode_to_vec());
        let mut values = BTreeMap::new();
        for resource in request.resource_metrics {
            taken.resource = resource.resource.expect("a service says which one it is");
            let metrics = resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            for (name, value) in metrics.flat_map(|metric| series(&metric)) {
                assert_eq!(values.insert(name.clone(), value), None, "{name} came twice");
            }
        }
        taken.pushes.push(values);
    }
}

/// A request over HTTP, whatever its path.
async fn take(
    State(taking): State<Taking>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok());
    let request = (uri.path().to_owned(), kind.unwrap_or_default().to_owned());
    taking.0.lock().expect("nobody panics while holding it").requests.push(request);
    if uri.path().ends_with("/v1/traces") {
        taking.spans(ExportTraceServiceRequest::decode(body).expect("a batch of spans"));
    } else if uri.path().ends_with("/v1/metrics") {
        taking.metrics(ExportMetricsServiceRequest::decode(body).expect("a batch of metrics"));
    } else {
        return StatusCode::NOT_FOUND;
    }
    StatusCode::OK
}

#[tonic::async_trait]
impl TraceService for Taking {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.spans(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Taking {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// The values of a metric, named and added up as on a page of Prometheus.
fn series(metric: &Metric) -> Vec<(String, f64)> {
    let cumulative = AggregationTemporality::Cumulative as i32;
    match metric.data.as_ref().expect("a metric has values") {
        Data::Gauge(gauge) => numbers(&metric.name, &gauge.data_points),
        Data::Sum(sum) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == cumulative, "{metric:?}");
            numbers(&metric.name, &sum.data_points)
        }
        Data::Histogram(histogram) => {
            assert_eq!(histogram.aggregation_temporality, cumulative, "{metric:?}");
            histogram.data_points.iter().flat_map(|point| buckets(&metric.name, point)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn numbers(name: &str, points: &[NumberDataPoint]) -> Vec<(String, f64)> {
    let value = |point: &NumberDataPoint| match point.value.expect("a point has a value") {
        Number::AsDouble(value) => value,
        Number::AsInt(value) => as_f64(value.cast_unsigned()),
    };
    points.iter().map(|point| (named(name, &point.attributes, None), value(point))).collect()
}

fn buckets(name: &str, point: &HistogramDataPoint) -> Vec<(String, f64)> {
    let labels = &point.attributes;
    let bounds = point.explicit_bounds.iter().map(ToString::to_string);
    let bounds = bounds.chain(["+Inf".to_owned()]);
    let mut below = 0;
    let mut values: Vec<(String, f64)> = bounds
        .zip(&point.bucket_counts)
        .map(|(bound, count)| {
            below += count;
            (named(&format!("{name}_bucket"), labels, Some(&bound)), as_f64(below))
        })
        .collect();
    values.push((named(&format!("{name}_count"), labels, None), as_f64(point.count)));
    values.push((named(&format!("{name}_sum"), labels, None), point.sum.expect("it is kept")));
    values
}

/// With the labels as they stand on the page.
fn named(name: &str, labels: &[KeyValue], bound: Option<&str>) -> String {
    let labels =
        labels.iter().map(|label| match label.value.as_ref().and_then(|it| it.value.as_ref()) {
            Some(Value::StringValue(text)) => format!("{}=\"{text}\"", label.key),
            other => panic!("{name}: {other:?}"),
        });
    let bound = bound.map(|bound| format!("le=\"{bound}\""));
    let labels: Vec<String> = labels.chain(bound).collect();
    if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) }
}

#[expect(clippy::cast_precision_loss, reason = "as the page does it")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

fn text(resource: &Resource, key: &str) -> Option<String> {
    let attribute = resource.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}
