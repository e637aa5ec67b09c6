//! Calls to the replicas, each over its own link.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::delivery_service_client::DeliveryServiceClient;
use pb::event_service_client::EventServiceClient;
use pb::subscription_service_client::SubscriptionServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::ledger::{Call, CallAnswer, Ledger};
use crate::replica::Replica;

/// The organizations of the run, by number.
pub(crate) const ORGANIZATIONS: [&str; 7] =
    ["clinic-a", "clinic-b", "clinic-c", "flooded", "backlogged", "poisoned", "nobody"];

/// How long a publisher waits for an answer. Longer than any goal, and short enough that
/// publishers who hang do not end the load.
const CALL_LIMIT: Duration = Duration::from_secs(6);
/// How long a change of a subscription is tried.
const INSIST: Duration = Duration::from_mins(1);
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Codes that a server may answer at any time: trying again is safe.
const TEMPORARY: [Code; 4] =
    [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Aborted];

pub(crate) struct Api {
    channels: Vec<Channel>,
    ledger: Arc<Ledger>,
}

impl Api {
    pub(crate) fn new(replicas: &[Replica], ledger: Arc<Ledger>) -> Api {
        let channel = |replica: &Replica| {
            let url = format!("http://{}", replica.calls.address());
            let endpoint = Endpoint::from_shared(url).expect("a URL");
            endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true).connect_lazy()
        };
        Api { channels: replicas.iter().map(channel).collect(), ledger }
    }

    /// One call of `PublishEvents` at one replica, written down.
    pub(crate) async fn publish(
        &self,
        slot: usize,
        organization: usize,
        events: Vec<pb::Event>,
    ) -> Result<Vec<pb::PublishResult>, CallAnswer> {
        let organization_id = ORGANIZATIONS[organization].to_owned();
        let request = pb::PublishEventsRequest { organization_id, events };
        let mut client = EventServiceClient::new(self.channels[slot].clone());
        let begun = Instant::now();
        let called = tokio::time::timeout(CALL_LIMIT, client.publish_events(request)).await;
        let (answer, result) = match called {
            Err(_) => (CallAnswer::Silent, None),
            Ok(Ok(response)) => (CallAnswer::Ok, Some(response.into_inner().results)),
            Ok(Err(status)) => (self.judge(&status, "PublishEvents"), None),
        };
        let ended = Instant::now();
        self.ledger.called(Call { slot, begun, ended, answer });
        result.ok_or(answer)
    }

    /// What a failure means. A server may refuse for a while; anything else that it says is
    /// a broken promise, since every call keeps the rules.
    fn judge(&self, status: &Status, method: &str) -> CallAnswer {
        if status.details().is_empty() {
            // Made by the client, for a connection that is gone.
            return CallAnswer::Broken;
        }
        if !TEMPORARY.contains(&status.code()) && status.code() != Code::AlreadyExists {
            self.ledger.broken(format!(
                "{method} answered {:?}: {}",
                status.code(),
                status.message()
            ));
        }
        CallAnswer::Refused(status.code())
    }

    /// Makes a call at one replica after the other until one answers it. `None`: nobody did
    /// within a minute, which is noted as a broken promise, or the answer is final.
    pub(crate) async fn insist<T>(
        &self,
        what: &str,
        call: impl AsyncFn(Channel) -> Result<T, Status>,
    ) -> Option<T> {
        let begin = Instant::now();
        for channel in self.channels.iter().cycle() {
            match tokio::time::timeout(CALL_LIMIT, call(channel.clone())).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(status)) => match self.judge(&status, what) {
                    CallAnswer::Refused(code) if !TEMPORARY.contains(&code) => return None,
                    _ => {}
                },
                Err(_) => {}
            }
            if INSIST < begin.elapsed() {
                self.ledger.broken(format!("{what} was not answered within {INSIST:?}"));
                return None;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        None
    }

    /// The deliveries that match, over all pages.
    pub(crate) async fn list(
        &self,
        mut filter: pb::ListDeliveriesRequest,
    ) -> Option<Vec<pb::Delivery>> {
        filter.page_size = 1000;
        let mut found = Vec::new();
        loop {
            let page = self.insist("ListDeliveries", async |channel| {
                DeliveryServiceClient::new(channel)
                    .max_decoding_message_size(8 << 20)
                    .list_deliveries(filter.clone())
                    .await
            });
            let page = page.await?.into_inner();
            found.extend(page.deliveries);
            if page.next_page_token.is_empty() {
                return Some(found);
            }
            filter.page_token = page.next_page_token;
        }
    }

    pub(crate) async fn delivery(
        &self,
        organization: usize,
        delivery_id: &str,
    ) -> Option<pb::Delivery> {
        let request = pb::GetDeliveryRequest {
            organization_id: ORGANIZATIONS[organization].to_owned(),
            delivery_id: delivery_id.to_owned(),
        };
        let answer = self.insist("GetDelivery", async |channel| {
            DeliveryServiceClient::new(channel).get_delivery(request.clone()).await
        });
        answer.await?.into_inner().delivery
    }

    /// The recorded attempts of a delivery, oldest first.
    pub(crate) async fn attempts(
        &self,
        organization: usize,
        delivery_id: &str,
    ) -> Vec<pb::DeliveryAttempt> {
        let request = pb::ListDeliveryAttemptsRequest {
            organization_id: ORGANIZATIONS[organization].to_owned(),
            delivery_id: delivery_id.to_owned(),
            page_size: 1000,
            ..pb::ListDeliveryAttemptsRequest::default()
        };
        let answer = self.insist("ListDeliveryAttempts", async |channel| {
            DeliveryServiceClient::new(channel).list_delivery_attempts(request.clone()).await
        });
        answer.await.map(|answer| answer.into_inner().attempts).unwrap_or_default()
    }

    /// Whether the organization has the event.
    pub(crate) async fn has_event(&self, organization: usize, event_id: &str) -> bool {
        let request = pb::GetEventRequest {
            organization_id: ORGANIZATIONS[organization].to_owned(),
            event_id: event_id.to_owned(),
            include_payload: true,
        };
        let answer = self.insist("GetEvent", async |channel| {
            EventServiceClient::new(channel).get_event(request.clone()).await
        });
        answer.await.is_some()
    }

    pub(crate) async fn create(
        &self,
        organization: usize,
        subscription: pb::Subscription,
        signing_secret: &str,
        request_id: String,
    ) -> Option<pb::CreateSubscriptionResponse> {
        let request = pb::CreateSubscriptionRequest {
            organization_id: ORGANIZATIONS[organization].to_owned(),
            subscription: Some(subscription),
            signing_secret: signing_secret.to_owned(),
            request_id,
            ..pb::CreateSubscriptionRequest::default()
        };
        let answer = self.insist("CreateSubscription", async |channel| {
            SubscriptionServiceClient::new(channel).create_subscription(request.clone()).await
        });
        Some(answer.await?.into_inner())
    }

    pub(crate) async fn delete(&self, organization: usize, id: &str) -> Option<()> {
        let request = pb::DeleteSubscriptionRequest {
            organization_id: ORGANIZATIONS[organization].to_owned(),
            subscription_id: id.to_owned(),
            allow_missing: true,
            ..pb::DeleteSubscriptionRequest::default()
        };
        let answer = self.insist("DeleteSubscription", async |channel| {
            SubscriptionServiceClient::new(channel).delete_subscription(request.clone()).await
        });
        answer.await.map(drop)
    }

    pub(crate) async fn pause(&self, organization: usize, id: &str) -> Option<()> {
        let request = pb::PauseSubscriptionRequest {
            organization_id: ORGANIZATIONS[organization].to_owned(),
            subscription_id: id.to_owned(),
        };
        let answer = self.insist("PauseSubscription", async |channel| {
            SubscriptionServiceClient::new(channel).pause_subscription(request.clone()).await
        });
        answer.await.map(drop)
    }

    pub(crate) async fn resume(&self, organization: usize, id: &str) -> Option<()> {
        let request = pb::ResumeSubscriptionRequest {
            organization_id: ORGANIZATIONS[organization].to_owned(),
            subscription_id: id.to_owned(),
        };
        let answer = self.insist("ResumeSubscription", async |channel| {
            SubscriptionServiceClient::new(channel).resume_subscription(request.clone()).await
        });
        answer.await.map(drop)
    }

    /// Makes this secret the one that signs; the old ones stay for `overlap`.
    pub(crate) async fn rotate(
        &self,
        organization: usize,
        id: &str,
        secret: &str,
        overlap: Duration,
        request_id: String,
    ) -> Option<()> {
        let request = pb::RotateSigningSecretRequest {
            organization_id: ORGANIZATIONS[organization].to_owned(),
            subscription_id: id.to_owned(),
            overlap: Some(overlap.try_into().expect("a short span")),
            signing_secret: secret.to_owned(),
            request_id,
        };
        let answer = self.insist("RotateSigningSecret", async |channel| {
            SubscriptionServiceClient::new(channel).rotate_signing_secret(request.clone()).await
        });
        answer.await.map(drop)
    }
}
