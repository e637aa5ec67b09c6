//! OTLP, the protocol of OpenTelemetry: how spans and metrics reach a collector.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::metrics::Temporality;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

/// Longest that one request over HTTP may take: the standard's default.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// The most that is read of a collector's answer, which says what of a batch it left out.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Over gRPC.
    #[default]
    Grpc,
    /// As protobuf over HTTP/1.1.
    HttpProtobuf,
}

impl Protocol {
    /// By its name in the standard. No name is the default.
    ///
    /// # Errors
    ///
    /// A sentence that says which names there are.
    pub fn named(name: &str) -> Result<Protocol, &'static str> {
        match name.trim() {
            "" | "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::HttpProtobuf),
            _ => Err("write grpc or http/protobuf"),
        }
    }
}

/// A collector, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Its `http://` URL. Over HTTP the paths of the protocol are under it.
    pub endpoint: String,
    /// What it speaks there.
    pub protocol: Protocol,
    /// How often metrics are sent there as well; `None`: never.
    pub metrics_interval: Option<Duration>,
}

impl Collector {
    /// What sends spans there. In the runtime.
    pub(super) fn spans(&self) -> Result<SpanExporter, ExporterBuildError> {
        let builder = SpanExporter::builder();
        match self.protocol {
            Protocol::Grpc => builder.with_tonic().with_endpoint(&self.endpoint).build(),
            Protocol::HttpProtobuf => self.http(builder.with_http(), "v1/traces").build(),
        }
    }

    /// What sends metrics there. In the runtime.
    pub(super) fn metrics(&self) -> Result<MetricExporter, ExporterBuildError> {
        // What the instruments are read as, whatever the environment prefers.
        let builder = MetricExporter::builder().with_temporality(Temporality::Cumulative);
        match self.protocol {
            Protocol::Grpc => builder.with_tonic().with_endpoint(&self.endpoint).build(),
            Protocol::HttpProtobuf => self.http(builder.with_http(), "v1/metrics").build(),
        }
    }

    fn http<B: WithExportConfig + WithHttpConfig>(&self, builder: B, path: &str) -> B {
        builder
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_http_client(Carrier::new())
            .with_endpoint(self.path(path))
    }

    fn path(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint.trim_end_matches('/'))
    }
}

/// Carries requests to a collector, and keeps a connection for the next one.
#[derive(Debug)]
struct Carrier {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Handle,
}

impl Carrier {
    fn new() -> Carrier {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Carrier { client, runtime: Handle::current() }
    }
}

#[async_trait]
impl HttpClient for Carrier {
    /// Spans come from a thread of the library's own, where no socket works: the request is
    /// a task of the runtime, and is given up with this future.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = self.client.request(request.map(Full::new));
        let exchange = async {
            let (head, body) = request.await?.into_parts();
            // The head says whether the batch was taken.
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map(Collected::to_bytes).unwrap_or_default();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        let bounded = async { tokio::time::timeout(REQUEST_MAX, exchange).await };
        AbortOnDropHandle::new(self.runtime.spawn(bounded)).await??
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_the_names_of_the_standard() {
        assert_eq!(Protocol::named(""), Ok(Protocol::default()));
        assert_eq!(Protocol::named("grpc"), Ok(Protocol::Grpc));
        assert_eq!(Protocol::named("http/protobuf"), Ok(Protocol::HttpProtobuf));
        for name in ["http/json", "http", "GRPC"] {
            assert!(Protocol::named(name).is_err(), "{name}");
        }
    }

    #[test]
    fn paths_are_under_the_endpoints() {
        for (endpoint, expected) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("http://gateway/otlp", "http://gateway/otlp/v1/traces"),
            ("http://gateway/otlp/", "http://gateway/otlp/v1/traces"),
        ] {
            let endpoint = endpoint.to_owned();
            let protocol = Protocol::HttpProtobuf;
            let collector = Collector { endpoint, protocol, metrics_interval: None };
            assert_eq!(collector.path("v1/traces"), expected);
        }
    }
}
