//! The demo as a caller of the service: nothing but gRPC.

use std::net::SocketAddr;

use anyhow::Context;
use tonic::transport::Channel;
use tonic::transport::Endpoint as Server;

use crate::grpc::pb;
use crate::grpc::pb::delivery_service_client::DeliveryServiceClient;
use crate::grpc::pb::event_service_client::EventServiceClient;
use crate::grpc::pb::subscription_service_client::SubscriptionServiceClient;

use super::scenario::Endpoint;
use super::scenario::OCCURRED;
use super::scenario::ORGANIZATION;
use super::scenario::ORGANIZATION_CODE;
use super::scenario::Publication;
use super::scenario::RECOVERING_WAITS_MS;

/// A connection to the service.
#[derive(Clone, Debug)]
pub(super) struct Client {
    subscriptions: SubscriptionServiceClient<Channel>,
    events: EventServiceClient<Channel>,
    deliveries: DeliveryServiceClient<Channel>,
}

/// A subscription as its owner gets to know it.
#[derive(Clone, Debug)]
pub(super) struct Subscribed {
    pub(super) endpoint: &'static Endpoint,
    pub(super) id: String,
    pub(super) secret: String,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<Client> {
        let server = Server::from_shared(format!("http://{address}"))?;
        let channel = server.connect().await.context("the service cannot be reached by gRPC")?;
        Ok(Client {
            subscriptions: SubscriptionServiceClient::new(channel.clone()),
            events: EventServiceClient::new(channel.clone()),
            deliveries: DeliveryServiceClient::new(channel),
        })
    }

    /// Subscribes `endpoint` of the receiver at `receiver_url`, signed.
    pub(super) async fn subscribe(
        &mut self,
        endpoint: &'static Endpoint,
        receiver_url: &str,
    ) -> anyhow::Result<Subscribed> {
        let mut subscription = pb::Subscription {
            name: format!("demo{}", endpoint.path),
            url: format!("{receiver_url}{}", endpoint.path),
            event_patterns: endpoint.patterns.iter().copied().map(str::to_owned).collect(),
            profile: endpoint.profile.to_owned(),
            signing_enabled: Some(true),
            retry_policy: Some(pb::RetryPolicy { waits: RECOVERING_WAITS_MS.map(millis).to_vec() }),
            ..pb::Subscription::default()
        };
        if endpoint.organization_code {
            subscription.send_organization_code = true;
            let code = ("organizationCode".to_owned(), ORGANIZATION_CODE.to_owned());
            subscription.attributes.extend([code]);
        }
        let request = pb::CreateSubscriptionRequest {
            organization_id: ORGANIZATION.to_owned(),
            subscription: Some(subscription),
            ..pb::CreateSubscriptionRequest::default()
        };
        let answer = self.subscriptions.create_subscription(request).await;
        let answer = answer.with_context(|| format!("{} was refused", endpoint.path))?.into_inner();
        let subscription = answer.subscription.context("the answer holds no subscription")?;
        let secret = answer.signing_secret.context("the answer holds no secret")?;
        Ok(Subscribed { endpoint, id: subscription.id, secret: secret.secret })
    }

    /// Publishes all of them in one call.
    pub(super) async fn publish(
        &mut self,
        publications: Vec<Publication>,
    ) -> anyhow::Result<Vec<pb::PublishResult>> {
        let request = pb::PublishEventsRequest {
            organization_id: ORGANIZATION.to_owned(),
            events: publications.into_iter().map(event).collect(),
        };
        let answer = self.events.publish_events(request).await.context("PublishEvents failed")?;
        Ok(answer.into_inner().results)
    }

    /// Every delivery of the demo.
    pub(super) async fn deliveries(&mut self) -> anyhow::Result<Vec<pb::Delivery>> {
        let mut request = pb::ListDeliveriesRequest {
            organization_id: ORGANIZATION.to_owned(),
            ..pb::ListDeliveriesRequest::default()
        };
        let mut deliveries = Vec::new();
        loop {
            let page = self.deliveries.list_deliveries(request.clone()).await;
            let page = page.context("ListDeliveries failed")?.into_inner();
            deliveries.extend(page.deliveries);
            if page.next_page_token.is_empty() {
                return Ok(deliveries);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// The attempts of a delivery, oldest first.
    pub(super) async fn attempts(
        &mut self,
        delivery_id: &str,
    ) -> anyhow::Result<Vec<pb::DeliveryAttempt>> {
        let request = pb::ListDeliveryAttemptsRequest {
            organization_id: ORGANIZATION.to_owned(),
            delivery_id: delivery_id.to_owned(),
            ..pb::ListDeliveryAttemptsRequest::default()
        };
        let answer = self.deliveries.list_delivery_attempts(request).await;
        Ok(answer.context("ListDeliveryAttempts failed")?.into_inner().attempts)
    }
}

fn event(publication: Publication) -> pb::Event {
    let (seconds, nanos) = OCCURRED;
    pb::Event {
        id: publication.id,
        r#type: publication.event_type.to_owned(),
        occur_time: Some(prost_types::Timestamp { seconds, nanos }),
        payload: publication.payload.map(pb::event::Payload::Json),
        ..pb::Event::default()
    }
}

fn millis(millis: u32) -> prost_types::Duration {
    prost_types::Duration {
        seconds: (millis / 1000).into(),
        nanos: i32::try_from(millis % 1000 * 1_000_000).expect("less than a second"),
    }
}
