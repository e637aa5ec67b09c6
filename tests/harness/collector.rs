//! An OpenTelemetry collector on loopback: takes spans by OTLP over gRPC.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
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
    spans: Vec<Span>,
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
        let taken = self.taken.lock().expect("nobody panics while holding it");
        taken.spans.iter().filter(|span| span.trace_id == trace_id).cloned().collect()
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
        let resources = request.resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        taken.spans.extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
