//! How each method of the API succeeds, for tests that go through all of them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hookward::grpc::pb;
use pb::audit_service_client::AuditServiceClient;
use pb::delivery::State;

use crate::harness::client::{Organization, Subscribed, draft, event};
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

/// An organization in which everything can be done.
pub(crate) struct World {
    clinic: Organization,
    audit: AuditServiceClient<tonic::transport::Channel>,
    receiver: Receiver,
    /// Of subscriptions, so that each has an event type of its own.
    number: AtomicU32,
}

impl World {
    pub(crate) async fn new(service: &Service) -> World {
        let clinic = service.organization("clinic");
        let audit = AuditServiceClient::new(service.channel());
        let receiver = Receiver::answering([200]).await;
        World { clinic, audit, receiver, number: AtomicU32::new(0) }
    }

    /// Calls a method, without its package, so that it succeeds; gives the ids of what that
    /// was about.
    pub(crate) async fn succeed(&self, method: &str, asks_for_payload: bool) -> Vec<String> {
        let (service, name) = method.split_once('/').expect("service and method");
        match service {
            "AuditService" => self.audit(name).await,
            "DeliveryService" => self.delivery(name, asks_for_payload).await,
            "EventService" => self.event(name, asks_for_payload).await,
            "EventTypeService" => self.event_type(name).await,
            "SubscriptionService" => self.subscription(name).await,
            other => panic!("tell how {other} is called"),
        }
    }

    async fn subscribed(&self) -> (Subscribed, String) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let event_type = format!("kind.{number}");
        let draft = draft(&self.receiver, "standard", &event_type);
        (self.clinic.create(draft).await, event_type)
    }

    async fn audit(&self, name: &str) -> Vec<String> {
        assert_eq!(name, "ListAuditEntries");
        let organization_id = self.clinic.name();
        let request = pb::ListAuditEntriesRequest { organization_id, ..Default::default() };
        self.audit.clone().list_audit_entries(request).await.expect("it is readable");
        Vec::new()
    }

    async fn delivery(&self, name: &str, asks_for_payload: bool) -> Vec<String> {
        let clinic = &self.clinic;
        let (subscribed, event_type) = self.subscribed().await;
        let is_held = name == "CancelDelivery";
        if is_held {
            clinic.pause(&subscribed.id).await.expect("it is active");
        }
        let event_id = clinic.publish(&event_type, "{}").await;
        let state = if is_held { State::Pending } else { State::Succeeded };
        let delivery_id = clinic.delivery_of(&event_id).reaches(state).await.id;
        let organization_id = clinic.name();
        let id = delivery_id.clone();
        match name {
            "CancelDelivery" => {
                let request = pb::CancelDeliveryRequest { organization_id, delivery_id };
                clinic.deliveries().cancel_delivery(request).await.expect("it is open");
            }
            "GetDelivery" => {
                clinic.delivery(&delivery_id).await.expect("it is there");
            }
            "ListDeliveries" => {
                clinic.deliveries_of(&event_id).await;
            }
            "ListDeliveryAttempts" => {
                let request = pb::ListDeliveryAttemptsRequest {
                    organization_id,
                    delivery_id,
                    include_response_body: asks_for_payload,
                    ..Default::default()
                };
                clinic.deliveries().list_delivery_attempts(request).await.expect("it is there");
            }
            "RetryDelivery" => {
                let request =
                    pb::RetryDeliveryRequest { organization_id, delivery_id, ..Default::default() };
                clinic.deliveries().retry_delivery(request).await.expect("it has ended");
            }
            other => panic!("tell how {other} succeeds"),
        }
        vec![id]
    }

    async fn event(&self, name: &str, include_payload: bool) -> Vec<String> {
        let clinic = &self.clinic;
        let organization_id = clinic.name();
        let event_id = clinic.publish_event(event("nobody.gets.it", "{}")).await.event_id;
        match name {
            "GetEvent" => {
                let id = event_id.clone();
                let request =
                    pb::GetEventRequest { organization_id, event_id: id, include_payload };
                clinic.events().get_event(request).await.expect("it is there");
                vec![event_id]
            }
            "ListEvents" => {
                let request = pb::ListEventsRequest {
                    organization_id,
                    include_payload,
                    ..Default::default()
                };
                let listed = clinic.events().list_events(request).await.expect("it is readable");
                listed.into_inner().events.into_iter().map(|event| event.id).collect()
            }
            "PublishEvents" => Vec::new(),
            "PurgeEvent" => {
                clinic.purge(&event_id).await.expect("it is there");
                vec![event_id]
            }
            "PurgeSubject" => {
                let (subject, event) = ("patient-1".to_owned(), event("nobody.gets.it", "{}"));
                let about = pb::Event { subject, ..event };
                let event_id = clinic.publish_event(about).await.event_id;
                assert_eq!(clinic.purge_subject("patient-1").await.expect("valid"), 1);
                vec![event_id]
            }
            other => panic!("tell how {other} succeeds"),
        }
    }

    async fn event_type(&self, name: &str) -> Vec<String> {
        let organization_id = self.clinic.name();
        let mut client = self.clinic.event_types();
        let request = pb::ListEventTypesRequest { organization_id, ..Default::default() };
        let listed = client.list_event_types(request).await.expect("it is readable").into_inner();
        match name {
            "GetEventType" => {
                let first = listed.event_types[0].clone();
                let request = pb::GetEventTypeRequest {
                    organization_id: self.clinic.name(),
                    catalog: first.catalog,
                    name: first.name,
                };
                client.get_event_type(request).await.expect("it is there");
            }
            "ListEventTypes" => {}
            other => panic!("tell how {other} succeeds"),
        }
        Vec::new()
    }

    async fn subscription(&self, name: &str) -> Vec<String> {
        let clinic = &self.clinic;
        let (subscribed, _) = self.subscribed().await;
        let id = subscribed.id;
        let organization_id = clinic.name();
        match name {
            "CreateSubscription" => {}
            "GetSubscription" => drop(clinic.get(&id).await.expect("it is there")),
            "ListSubscriptions" => {
                let request =
                    pb::ListSubscriptionsRequest { organization_id, ..Default::default() };
                clinic.subscriptions().list_subscriptions(request).await.expect("it is readable");
            }
            "UpdateSubscription" => {
                let (id, name) = (id.clone(), "renamed".to_owned());
                let change = pb::Subscription { id, name, ..Default::default() };
                clinic.try_update(change, &["name"]).await.expect("it keeps the rules");
            }
            "DeleteSubscription" => clinic.delete(&id).await.expect("it is there"),
            "PauseSubscription" => clinic.pause(&id).await.expect("it is active"),
            "ResumeSubscription" => {
                clinic.pause(&id).await.expect("it is active");
                clinic.resume(&id).await.expect("it is paused");
            }
            "ActivateSubscription" => {
                clinic.deactivate(&id).await.expect("it is active");
                clinic.activate(&id).await.expect("it is inactive");
            }
            "DeactivateSubscription" => clinic.deactivate(&id).await.expect("it is active"),
            "PingSubscription" => drop(clinic.ping(&id).await.expect("standard has a ping")),
            "RotateSigningSecret" => drop(clinic.rotate(&id, Duration::ZERO).await),
            "ListSigningSecrets" => drop(self.secrets(&id).await),
            "RevokeSigningSecret" => {
                clinic.rotate(&id, Duration::from_hours(1)).await;
                let signing_secret_id = self.secrets(&id).await.remove(0).id;
                let request = pb::RevokeSigningSecretRequest {
                    organization_id,
                    subscription_id: id.clone(),
                    signing_secret_id,
                };
                clinic.subscriptions().revoke_signing_secret(request).await.expect("it is live");
            }
            "ListProfiles" => {
                let request = pb::ListProfilesRequest { organization_id };
                clinic.subscriptions().list_profiles(request).await.expect("it is readable");
            }
            other => panic!("tell how {other} succeeds"),
        }
        vec![id]
    }

    async fn secrets(&self, subscription_id: &str) -> Vec<pb::SigningSecret> {
        let request = pb::ListSigningSecretsRequest {
            organization_id: self.clinic.name(),
            subscription_id: subscription_id.to_owned(),
        };
        let listed = self.clinic.subscriptions().list_signing_secrets(request).await;
        listed.expect("it is there").into_inner().signing_secrets
    }
}
