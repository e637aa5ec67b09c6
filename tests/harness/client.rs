//! A caller of the API, in words: subscribe, publish, see deliveries reach a state.

use std::sync::Arc;
use std::time::Duration;

use hookward::grpc::pb;
use pb::delivery::State;
use pb::delivery_service_client::DeliveryServiceClient;
use pb::event_service_client::EventServiceClient;
use pb::event_type_service_client::EventTypeServiceClient;
use pb::subscription_service_client::SubscriptionServiceClient;
use tonic::Status;
use tonic::transport::Channel;

use super::confided::Confided;
use super::eventually::eventually;
use super::receiver::Receiver;

/// The caller of one organization at one server.
#[derive(Clone)]
pub(crate) struct Organization {
    name: String,
    channel: Channel,
    confided: Arc<Confided>,
}

/// A subscription that was just created.
#[derive(Clone, Debug)]
pub(crate) struct Subscribed {
    pub(crate) id: String,
    /// Empty when there is none.
    pub(crate) secret: String,
    pub(crate) subscription: pb::Subscription,
}

/// The one delivery of an event, perhaps not seen yet.
pub(crate) struct DeliveryOf<'a> {
    organization: &'a Organization,
    event_id: String,
}

/// A subscription of this receiver, tried again quickly: waits of 100 ms, five times.
pub(crate) fn draft(receiver: &Receiver, profile: &str, pattern: &str) -> pb::Subscription {
    pb::Subscription {
        url: receiver.url(),
        profile: profile.to_owned(),
        event_patterns: vec![pattern.to_owned()],
        retry_policy: Some(waits(&[100; 5])),
        ..pb::Subscription::default()
    }
}

/// A retry policy with these waits, in milliseconds.
pub(crate) fn waits(millis: &[u64]) -> pb::RetryPolicy {
    let waits = millis.iter().map(|millis| duration(Duration::from_millis(*millis)));
    pb::RetryPolicy { waits: waits.collect() }
}

pub(crate) fn duration(span: Duration) -> prost_types::Duration {
    span.try_into().expect("a short span")
}

/// An event with a JSON payload and no id of its own.
pub(crate) fn event(event_type: &str, json: &str) -> pb::Event {
    pb::Event {
        r#type: event_type.to_owned(),
        payload: Some(pb::event::Payload::Json(json.to_owned())),
        ..pb::Event::default()
    }
}

/// The same under an id of the publisher's.
pub(crate) fn event_with_id(id: &str, event_type: &str, json: &str) -> pb::Event {
    pb::Event { id: id.to_owned(), ..event(event_type, json) }
}

impl Organization {
    pub(crate) fn new(name: &str, channel: Channel, confided: Arc<Confided>) -> Organization {
        Organization { name: name.to_owned(), channel, confided }
    }

    pub(crate) fn name(&self) -> String {
        self.name.clone()
    }

    pub(crate) fn subscriptions(&self) -> SubscriptionServiceClient<Channel> {
        SubscriptionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone()).max_encoding_message_size(16 << 20)
    }

    pub(crate) fn deliveries(&self) -> DeliveryServiceClient<Channel> {
        DeliveryServiceClient::new(self.channel.clone())
    }

    pub(crate) fn event_types(&self) -> EventTypeServiceClient<Channel> {
        EventTypeServiceClient::new(self.channel.clone())
    }

    /// Subscribes a receiver as [`draft`] says.
    pub(crate) async fn subscribe(
        &self,
        receiver: &Receiver,
        profile: &str,
        pattern: &str,
    ) -> Subscribed {
        self.create(draft(receiver, profile, pattern)).await
    }

    /// Creates a subscription that keeps every rule.
    pub(crate) async fn create(&self, subscription: pb::Subscription) -> Subscribed {
        self.create_with_secret(subscription, "").await
    }

    /// The same with a signing secret of the receiver's owner.
    pub(crate) async fn create_with_secret(
        &self,
        subscription: pb::Subscription,
        secret: &str,
    ) -> Subscribed {
        let created = self.try_create(subscription, secret).await.expect("it keeps the rules");
        let subscription = created.subscription.expect("always there");
        let secret = created.signing_secret.map(|secret| secret.secret).unwrap_or_default();
        Subscribed { id: subscription.id.clone(), secret, subscription }
    }

    pub(crate) async fn try_create(
        &self,
        subscription: pb::Subscription,
        secret: &str,
    ) -> Result<pb::CreateSubscriptionResponse, Status> {
        self.confided.subscription(&subscription);
        self.confided.secret(secret);
        let request = pb::CreateSubscriptionRequest {
            organization_id: self.name(),
            subscription: Some(subscription),
            signing_secret: secret.to_owned(),
            ..pb::CreateSubscriptionRequest::default()
        };
        let created = self.subscriptions().create_subscription(request).await;
        let created = created.inspect_err(|told| self.confided.assert_not_told(told))?.into_inner();
        if let Some(made) = &created.signing_secret {
            self.confided.secret(&made.secret);
        }
        Ok(created)
    }

    /// Writes the fields of `paths`.
    pub(crate) async fn try_update(
        &self,
        subscription: pb::Subscription,
        paths: &[&str],
    ) -> Result<pb::Subscription, Status> {
        self.confided.subscription(&subscription);
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = pb::UpdateSubscriptionRequest {
            organization_id: self.name(),
            subscription: Some(subscription),
            update_mask: Some(prost_types::FieldMask { paths }),
            validate_only: false,
        };
        let response = self.subscriptions().update_subscription(request).await;
        let response = response.inspect_err(|told| self.confided.assert_not_told(told))?;
        Ok(response.into_inner().subscription.expect("always there"))
    }

    pub(crate) async fn get(&self, subscription_id: &str) -> Result<pb::Subscription, Status> {
        let request = pb::GetSubscriptionRequest {
            organization_id: self.name(),
            subscription_id: subscription_id.to_owned(),
        };
        let response = self.subscriptions().get_subscription(request).await?.into_inner();
        Ok(response.subscription.expect("always there"))
    }

    pub(crate) async fn pause(&self, subscription_id: &str) -> Result<(), Status> {
        let request = pb::PauseSubscriptionRequest {
            organization_id: self.name(),
            subscription_id: subscription_id.to_owned(),
        };
        self.subscriptions().pause_subscription(request).await.map(drop)
    }

    pub(crate) async fn resume(&self, subscription_id: &str) -> Result<(), Status> {
        let request = pb::ResumeSubscriptionRequest {
            organization_id: self.name(),
            subscription_id: subscription_id.to_owned(),
        };
        self.subscriptions().resume_subscription(request).await.map(drop)
    }

    pub(crate) async fn activate(&self, subscription_id: &str) -> Result<(), Status> {
        let request = pb::ActivateSubscriptionRequest {
            organization_id: self.name(),
            subscription_id: subscription_id.to_owned(),
        };
        self.subscriptions().activate_subscription(request).await.map(drop)
    }

    pub(crate) async fn deactivate(&self, subscription_id: &str) -> Result<(), Status> {
        let request = pb::DeactivateSubscriptionRequest {
            organization_id: self.name(),
            subscription_id: subscription_id.to_owned(),
        };
        self.subscriptions().deactivate_subscription(request).await.map(drop)
    }

    pub(crate) async fn delete(&self, subscription_id: &str) -> Result<(), Status> {
        let request = pb::DeleteSubscriptionRequest {
            organization_id: self.name(),
            subscription_id: subscription_id.to_owned(),
            ..pb::DeleteSubscriptionRequest::default()
        };
        self.subscriptions().delete_subscription(request).await.map(drop)
    }

    pub(crate) async fn ping(&self, id: &str) -> Result<pb::PingSubscriptionResponse, Status> {
        let request = pb::PingSubscriptionRequest {
            organization_id: self.name(),
            subscription_id: id.to_owned(),
        };
        Ok(self.subscriptions().ping_subscription(request).await?.into_inner())
    }

    /// Makes a new secret and gives it; the old ones stay for `overlap`.
    pub(crate) async fn rotate(&self, subscription_id: &str, overlap: Duration) -> String {
        let request = pb::RotateSigningSecretRequest {
            organization_id: self.name(),
            subscription_id: subscription_id.to_owned(),
            overlap: Some(duration(overlap)),
            ..pb::RotateSigningSecretRequest::default()
        };
        let response = self.subscriptions().rotate_signing_secret(request).await;
        let response = response.expect("it can be rotated").into_inner();
        let secret = response.signing_secret.expect("always there").secret;
        self.confided.secret(&secret);
        secret
    }

    /// Publishes one event without an id of its own, and gives the server's.
    pub(crate) async fn publish(&self, event_type: &str, json: &str) -> String {
        self.publish_event(event(event_type, json)).await.event_id
    }

    pub(crate) async fn publish_event(&self, event: pb::Event) -> pb::PublishResult {
        let mut results = self.try_publish(vec![event]).await.expect("it keeps the rules");
        assert_eq!(results.len(), 1, "one result for one event");
        results.remove(0)
    }

    pub(crate) async fn try_publish(
        &self,
        events: Vec<pb::Event>,
    ) -> Result<Vec<pb::PublishResult>, Status> {
        for event in &events {
            self.confided.event(event);
        }
        let request = pb::PublishEventsRequest { organization_id: self.name(), events };
        let published = self.events().publish_events(request).await;
        let published = published.inspect_err(|told| self.confided.assert_not_told(told))?;
        Ok(published.into_inner().results)
    }

    /// One event, with its payload.
    pub(crate) async fn read_event(&self, event_id: &str) -> Result<pb::Event, Status> {
        let request = pb::GetEventRequest {
            organization_id: self.name(),
            event_id: event_id.to_owned(),
            include_payload: true,
        };
        let response = self.events().get_event(request).await?.into_inner();
        Ok(response.event.expect("always there"))
    }

    /// Purges one event.
    pub(crate) async fn purge(&self, event_id: &str) -> Result<pb::Event, Status> {
        let request =
            pb::PurgeEventRequest { organization_id: self.name(), event_id: event_id.to_owned() };
        let response = self.events().purge_event(request).await?.into_inner();
        Ok(response.event.expect("always there"))
    }

    /// Purges all events about a subject, and tells how many.
    pub(crate) async fn purge_subject(&self, subject: &str) -> Result<u64, Status> {
        let mut purged = 0;
        let mut page_token = String::new();
        loop {
            let request = pb::PurgeSubjectRequest {
                organization_id: self.name(),
                subject: subject.to_owned(),
                page_token,
            };
            let page = self.events().purge_subject(request).await?.into_inner();
            purged += page.purged_count;
            if page.next_page_token.is_empty() {
                return Ok(purged);
            }
            page_token = page.next_page_token;
        }
    }

    /// Gives a delivery one attempt more.
    pub(crate) async fn retry(&self, delivery_id: &str) -> Result<pb::Delivery, Status> {
        let request = pb::RetryDeliveryRequest {
            organization_id: self.name(),
            delivery_id: delivery_id.to_owned(),
            ..pb::RetryDeliveryRequest::default()
        };
        let response = self.deliveries().retry_delivery(request).await?.into_inner();
        Ok(response.delivery.expect("always there"))
    }

    /// All deliveries that match, over all pages.
    pub(crate) async fn list(&self, mut filter: pb::ListDeliveriesRequest) -> Vec<pb::Delivery> {
        filter.organization_id = self.name();
        let mut found = Vec::new();
        loop {
            let page = self.deliveries().list_deliveries(filter.clone()).await;
            let page = page.expect("the list is readable").into_inner();
            found.extend(page.deliveries);
            if page.next_page_token.is_empty() {
                return found;
            }
            filter.page_token = page.next_page_token;
        }
    }

    /// The deliveries of one event.
    pub(crate) async fn deliveries_of(&self, event_id: &str) -> Vec<pb::Delivery> {
        let event_id = event_id.to_owned();
        self.list(pb::ListDeliveriesRequest { event_id, ..Default::default() }).await
    }

    /// The delivery of an event that one subscription gets.
    pub(crate) fn delivery_of(&self, event_id: &str) -> DeliveryOf<'_> {
        DeliveryOf { organization: self, event_id: event_id.to_owned() }
    }

    pub(crate) async fn delivery(&self, delivery_id: &str) -> Result<pb::Delivery, Status> {
        let request = pb::GetDeliveryRequest {
            organization_id: self.name(),
            delivery_id: delivery_id.to_owned(),
        };
        let response = self.deliveries().get_delivery(request).await?.into_inner();
        Ok(response.delivery.expect("always there"))
    }

    /// The recorded attempts of a delivery, oldest first, with response bodies.
    pub(crate) async fn attempts(&self, delivery_id: &str) -> Vec<pb::DeliveryAttempt> {
        let request = pb::ListDeliveryAttemptsRequest {
            organization_id: self.name(),
            delivery_id: delivery_id.to_owned(),
            include_response_body: true,
            page_size: 1000,
            ..pb::ListDeliveryAttemptsRequest::default()
        };
        let response = self.deliveries().list_delivery_attempts(request).await;
        response.expect("it has attempts").into_inner().attempts
    }
}

impl DeliveryOf<'_> {
    /// Waits until it is in `state`, and gives it.
    pub(crate) async fn reaches(&self, state: State) -> pb::Delivery {
        self.is("in its state", |delivery| delivery.state() == state).await
    }

    /// Waits until `holds`, and gives it.
    pub(crate) async fn is(
        &self,
        what: &str,
        holds: impl Fn(&pb::Delivery) -> bool,
    ) -> pb::Delivery {
        let what = format!("the delivery of {} {what}", self.event_id);
        eventually(&what, async || {
            let mut found = self.organization.deliveries_of(&self.event_id).await;
            assert!(found.len() <= 1, "the event has one delivery: {found:?}");
            found.pop().filter(&holds)
        })
        .await
    }
}
