//! A gRPC server whose handler does nothing: what the intake is measured against.
//!
//! The same messages, the same runtime and the same allocator as the service's.

use hookward::grpc::pb;
use hookward::grpc::pb::event_service_server::EventService;
use hookward::grpc::pb::event_service_server::EventServiceServer;
use tokio::net::TcpListener;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::protocol;
use crate::protocol::Answer;
use crate::protocol::Doors;

/// Answers at once that each event makes no delivery.
struct Empty;

/// Serves on a free port until the orders end; there are none to obey.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let plain = Some(listener.local_addr()?);
    protocol::answer(&Answer::Ready(Doors { plain, ..Doors::default() }))?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let mut orders = protocol::orders();
    let ended = async move { while orders.recv().await.is_some() {} };
    Server::builder()
        .add_service(EventServiceServer::new(Empty))
        .serve_with_incoming_shutdown(incoming, ended)
        .await?;
    Ok(())
}

#[tonic::async_trait]
impl EventService for Empty {
    async fn publish_events(
        &self,
        request: Request<pb::PublishEventsRequest>,
    ) -> Result<Response<pb::PublishEventsResponse>, Status> {
        let count = request.get_ref().events.len();
        let results = vec![pb::PublishResult::default(); count];
        Ok(Response::new(pb::PublishEventsResponse { results }))
    }

    async fn get_event(
        &self,
        _request: Request<pb::GetEventRequest>,
    ) -> Result<Response<pb::GetEventResponse>, Status> {
        Err(Status::unimplemented("nothing is stored"))
    }

    async fn list_events(
        &self,
        _request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        Err(Status::unimplemented("nothing is stored"))
    }

    async fn purge_event(
        &self,
        _request: Request<pb::PurgeEventRequest>,
    ) -> Result<Response<pb::PurgeEventResponse>, Status> {
        Err(Status::unimplemented("nothing is stored"))
    }

    async fn purge_subject(
        &self,
        _request: Request<pb::PurgeSubjectRequest>,
    ) -> Result<Response<pb::PurgeSubjectResponse>, Status> {
        Err(Status::unimplemented("nothing is stored"))
    }
}
