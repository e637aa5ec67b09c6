//! An OpenTelemetry collector that counts spans and forgets them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use tokio::net::TcpListener;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::protocol;
use crate::protocol::Answer;
use crate::protocol::Doors;
use crate::protocol::Order;
use crate::protocol::Tally;

struct Collector(Arc<AtomicU64>);

/// Serves on a free port until the orders end.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let plain = Some(listener.local_addr()?);
    protocol::answer(&Answer::Ready(Doors { plain, ..Doors::default() }))?;
    let spans = Arc::<AtomicU64>::default();
    let service = TraceServiceServer::new(Collector(Arc::clone(&spans)));
    let incoming = TcpIncoming::from(listener);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    let mut orders = protocol::orders();
    while let Some(order) = orders.recv().await {
        protocol::answer(&match order {
            Order::Tally => {
                let unique = spans.load(Ordering::Relaxed);
                Answer::Tally(Tally { unique, ..Tally::default() })
            }
            other => Answer::Failed(format!("not of a collector: {other:?}")),
        })?;
    }
    Ok(())
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.get_ref().resource_spans.iter();
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        let count: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(count as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
