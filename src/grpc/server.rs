//! The gRPC server: which services it has, what it accepts from a connection, how it
//! stops.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::access::Access;
use super::audit::Audit;
use super::authentication::AuthenticationLayer;
use super::call::CallLayer;
use super::connection::Incoming;
use super::delivery::Deliveries;
use super::event::Events;
use super::event_type::EventTypes;
use super::pb::audit_service_server::{self, AuditServiceServer};
use super::pb::delivery_service_server::{self, DeliveryServiceServer};
use super::pb::event_service_server::{self, EventServiceServer};
use super::pb::event_type_service_server::{self, EventTypeServiceServer};
use super::pb::subscription_service_server::{self, SubscriptionServiceServer};
use super::subscription::Subscriptions;
use super::tls::Tls;
use super::trail::TrailLayer;
use super::{Context, pb};
use crate::metrics::Metrics;
use crate::permits::RateLimiter;

/// Names under which health is asked for: the server as a whole, and each service.
pub const SERVICES: [&str; 6] = [
    "",
    audit_service_server::SERVICE_NAME,
    delivery_service_server::SERVICE_NAME,
    event_service_server::SERVICE_NAME,
    event_type_service_server::SERVICE_NAME,
    subscription_service_server::SERVICE_NAME,
];

/// Largest message that is decoded. Requests have at most 4 MiB; the rest lets one
/// that is slightly larger be told so in our words.
const MESSAGE_BYTES_MAX: usize = 5 << 20;
/// The same of a question about health, which anybody may ask.
const HEALTH_BYTES_MAX: usize = 1 << 10;

const STREAMS_MAX: u32 = 100;
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// A full batch arrives without waiting for window updates.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients then connect anew, to another replica perhaps. Calls under way are
/// finished: with a grace period tonic would cut them off instead of saying GOAWAY.
const CONNECTION_AGE_MAX: Duration = Duration::from_mins(30);

/// How the server is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether connections are encrypted, and with what.
    pub tls: Option<Tls>,
    /// Whether callers may ask which services and messages there are.
    pub reflection: bool,
    /// Counts calls for an organization but those that publish.
    pub calls: RateLimiter,
    /// Counts who is not let in.
    pub metrics: Metrics,
}

/// What health checks answer. Cloning shares it. At first nothing serves.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Health of a server that is starting.
    pub async fn starting() -> Self {
        let health = Health { reporter: HealthReporter::new() };
        health.set_all(false).await;
        health
    }

    /// Tells whether one of [`SERVICES`] serves.
    pub async fn set(&self, service: &str, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(service, status).await;
    }

    /// Tells whether the server and all its services serve.
    pub async fn set_all(&self, serving: bool) {
        for service in SERVICES {
            self.set(service, serving).await;
        }
    }
}

/// Serves until `stop`, then answers the calls that are under way and returns.
/// Connections that never come to an end keep it: bound the wait.
///
/// # Errors
///
/// When the listener fails for good, or the descriptors cannot be served.
pub async fn serve(
    listener: TcpListener,
    context: Context,
    access: Access,
    settings: Settings,
    health: Health,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let Settings { tls, reflection, calls, metrics } = settings;
    let incoming = Incoming::new(listener, tls, access.clone(), metrics.clone());
    let door = AuthenticationLayer::new(access, calls, metrics);
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_connection_age(CONNECTION_AGE_MAX)
        .layer(CallLayer::new())
        .layer(TrailLayer::new(context.auditor.clone()))
        .layer(door)
        .add_routes(routes(context, reflection, health)?)
        .serve_with_incoming_shutdown(incoming.into_stream(), stop)
        .await
        .map_err(io::Error::other)
}

fn routes(context: Context, reflection: bool, health: Health) -> io::Result<Routes> {
    let context = Arc::new(context);
    let audit = AuditServiceServer::new(Audit(Arc::clone(&context)));
    let deliveries = DeliveryServiceServer::new(Deliveries(Arc::clone(&context)));
    let events = EventServiceServer::new(Events(Arc::clone(&context)));
    let event_types = EventTypeServiceServer::new(EventTypes(Arc::clone(&context)));
    let subscriptions = SubscriptionServiceServer::new(Subscriptions(context));
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(audit.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(deliveries.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(events.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(event_types.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(subscriptions.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            HealthServer::new(HealthService::from_health_reporter(health.reporter))
                .max_decoding_message_size(HEALTH_BYTES_MAX),
        );
    if reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
                // What the details of errors are made of.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        routes.add_service(builder().build_v1().map_err(io::Error::other)?);
        routes.add_service(builder().build_v1alpha().map_err(io::Error::other)?);
    }
    Ok(routes.routes())
}
