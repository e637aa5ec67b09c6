//! An OpenTelemetry collector on loopback: takes spans by OTLP over gRPC.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
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

#[derive(Default)]
struct Taken {
    /// With the instance of the service that each is from.
    spans: Vec<(String, Span)>,
    /// Everything, as it is on the wire.
    bytes: Vec<u8>,
}

struct Spans(Arc<Mutex<Taken>>);

impl Collector {
    pub(crate) async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let taken = Arc::new(Mutex::new(Taken::default()));
        let service = TraceServiceServer::new(Spans(Arc::clone(&taken)));
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Collector { address, taken }
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that came so far, as it is on the wire: spans, and who sent them.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.taken.lock().expect("nobody panics while holding it").bytes.clone()
    }

    /// The spans of one trace, in the order of their arrival.
    pub(crate) fn trace(&self, trace_id: &[u8]) -> Vec<Span> {
        self.trace_by_instance(trace_id).into_iter().map(|(_, span)| span).collect()
    }

    /// The same, each with the instance of the service that it is from.
    pub(crate) fn trace_by_instance(&self, trace_id: &[u8]) -> Vec<(String, Span)> {
        let taken = self.taken.lock().expect("nobody panics while holding it");
        taken.spans.iter().filter(|(_, span)| span.trace_id == trace_id).cloned().collect()
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        let mut taken = self.0.lock().expect("nobody panics while holding it");
        taken.bytes.extend(request.encode_to_vec());
        for resource in request.resource_spans {
            let instance = instance(resource.resource.as_ref());
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            taken.spans.extend(spans.map(|span| (instance.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// `service.instance.id`
fn instance(resource: Option<&Resource>) -> String {
    let attributes = resource.iter().flat_map(|resource| &resource.attributes);
    let mut named = attributes.filter(|attribute| attribute.key == "service.instance.id");
    match named.next().and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(instance)) => instance,
        other => panic!("a service says which one it is: {other:?}"),
    }
}
