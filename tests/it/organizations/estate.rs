//! What an organization has, and its requests for it: made from the descriptors, so that
//! one for a new method needs little more than the method's class.

use std::collections::BTreeMap;

use bytes::Bytes;
use hookward::grpc::pb;
use pb::delivery::State;
use prost::Message;
use prost_types::field_descriptor_proto::Type;
use tonic::Status;
use tonic::transport::Channel;

use super::name::Name;
use super::{Class, METHODS};
use crate::harness::caller::api_key;
use crate::harness::client::{draft, event, event_with_id};
use crate::harness::engine::Engine;
use crate::harness::eventually::eventually;
use crate::harness::receiver::Receiver;
use crate::harness::rpc::{self, Protocol};
use crate::harness::service::Service;

/// An organization with something of everything, and somebody with its key.
pub(super) struct Estate {
    caller: Caller,
    receiver: Receiver,
    names: BTreeMap<Name, Vec<String>>,
    /// Of the second page, by method.
    page_tokens: BTreeMap<&'static str, String>,
    /// Catalogue and name of some event type, which is everybody's.
    event_type: (String, String),
    /// What others must not see.
    pub(super) secrets: Vec<String>,
}

struct Caller {
    organization: String,
    authorization: String,
    channel: Channel,
}

impl Caller {
    /// One with a new key, as soon as it is known.
    async fn of(organization: &str, service: &Service, engine: &Engine) -> Caller {
        let key = api_key(engine, organization, &["admin"], &[]);
        let (organization, authorization) = (organization.to_owned(), format!("Bearer {key}"));
        let caller = Caller { organization, authorization, channel: service.channel() };
        let organization_id = caller.organization.clone();
        let request = pb::ListProfilesRequest { organization_id }.encode_to_vec();
        eventually("the key is known", async || {
            caller.call("SubscriptionService/ListProfiles", request.clone()).await.ok()
        })
        .await;
        caller
    }

    async fn call(&self, method: &str, message: Vec<u8>) -> Result<Bytes, Status> {
        rpc::call(&self.channel, method, message, Some(&self.authorization)).await
    }

    /// What a good request is answered.
    async fn ask<A: Message + Default>(&self, method: &str, request: &impl Message) -> A {
        let answer = self.call(method, request.encode_to_vec()).await;
        let answer = answer.unwrap_or_else(|status| panic!("{method}: {status:?}"));
        A::decode(answer).expect("the method's answer")
    }

    /// Something of the organization's own, by a name that says so.
    fn own(&self, what: &str) -> String {
        format!("{what}-of-{}", self.organization)
    }

    /// A request id that the organization has used. Each method has one of its own, since a
    /// stranger as well may use one for one request only.
    fn request_id(&self, method: &str) -> String {
        let number = |number: u64, byte| number.wrapping_mul(31).wrapping_add(u64::from(byte));
        let number = self.organization.bytes().chain(method.bytes()).fold(0, number);
        format!("8a0f7a5e-9b1c-4c4e-8a57-{:012x}", number & 0xffff_ffff_ffff)
    }

    async fn subscribe(
        &self,
        subscription: pb::Subscription,
        request_id: String,
    ) -> (pb::Subscription, pb::SigningSecret) {
        let request = pb::CreateSubscriptionRequest {
            organization_id: self.organization.clone(),
            subscription: Some(subscription),
            request_id,
            ..pb::CreateSubscriptionRequest::default()
        };
        let made: pb::CreateSubscriptionResponse =
            self.ask("SubscriptionService/CreateSubscription", &request).await;
        (made.subscription.expect("always there"), made.signing_secret.expect("it signs"))
    }

    /// The ids of an event and of its delivery, which has arrived.
    async fn publish(&self, event: pb::Event) -> (String, String) {
        let account_id = self.own("account");
        let event = pb::Event { account_id, subject: self.own("subject"), ..event };
        let organization_id = self.organization.clone();
        let request = pb::PublishEventsRequest { organization_id, events: vec![event] };
        let published: pb::PublishEventsResponse =
            self.ask("EventService/PublishEvents", &request).await;
        let event_id = published.results[0].event_id.clone();
        let list = pb::ListDeliveriesRequest {
            organization_id: self.organization.clone(),
            event_id: event_id.clone(),
            ..pb::ListDeliveriesRequest::default()
        };
        let delivery = eventually("a delivery", async || {
            let page: pb::ListDeliveriesResponse =
                self.ask("DeliveryService/ListDeliveries", &list).await;
            page.deliveries.into_iter().find(|one| one.state() == State::Succeeded)
        })
        .await;
        (event_id, delivery.id)
    }

    async fn event_type(&self) -> (String, String) {
        let request = pb::ListEventTypesRequest {
            organization_id: self.organization.clone(),
            page_size: 1,
            ..pb::ListEventTypesRequest::default()
        };
        let page: pb::ListEventTypesResponse =
            self.ask("EventTypeService/ListEventTypes", &request).await;
        let first = page.event_types.into_iter().next().expect("there are some");
        (first.catalog, first.name)
    }
}

impl Estate {
    /// Two subscriptions, an event under an id of its publisher's and one under the
    /// server's, and a delivery that took two attempts: two pages of everything.
    pub(super) async fn of(
        organization: &str,
        service: &Service,
        engine: &Engine,
        protocol: &Protocol,
    ) -> Estate {
        let caller = Caller::of(organization, service, engine).await;
        let receiver = Receiver::answering([503, 200]).await;
        let subscription = pb::Subscription {
            name: caller.own("name"),
            account_id: caller.own("account"),
            url: receiver.url_at(&format!("/{}", caller.own("path"))),
            ..draft(&receiver, "standard", "*")
        };
        let (subscription, secret) = caller.subscribe(subscription, String::new()).await;
        let mut request_ids = Vec::new();
        for (method, _) in METHODS {
            let fields = protocol.request(method);
            if fields.iter().any(|field| Name::of(field) == Some(Name::RequestId)) {
                let id = caller.request_id(method);
                caller.subscribe(draft(&receiver, "standard", "nothing"), id.clone()).await;
                request_ids.push(id);
            }
        }
        let payload = format!("{:?}", caller.own("payload"));
        let chosen = event_with_id(&caller.own("event"), "invoice.paid", &payload);
        let (chosen, first) = caller.publish(chosen).await;
        let (made, second) = caller.publish(event("invoice.paid", "{}")).await;

        let names = BTreeMap::from([
            (Name::Organization, vec![organization.to_owned()]),
            (Name::InnerOrganization, vec![organization.to_owned()]),
            (Name::Account, vec![caller.own("account")]),
            (Name::Subscription, vec![subscription.id]),
            (Name::SigningSecret, vec![secret.id]),
            (Name::Event, vec![chosen, made]),
            (Name::Delivery, vec![first, second]),
            (Name::Subject, vec![caller.own("subject")]),
            (Name::Etag, vec![subscription.etag]),
            (Name::RequestId, request_ids),
        ]);
        let mut secrets: Vec<String> = names.values().flatten().cloned().collect();
        secrets.extend([secret.secret, subscription.name, subscription.url]);
        secrets.push(caller.own("payload"));
        let (event_type, page_tokens) = (caller.event_type().await, BTreeMap::new());
        let mut estate = Estate { caller, receiver, names, page_tokens, event_type, secrets };
        estate.turn_pages(protocol).await;
        estate
    }

    /// Takes the token of each list's second page. A purge has one only after twenty
    /// thousand events.
    async fn turn_pages(&mut self, protocol: &Protocol) {
        for (method, class) in METHODS.into_iter().filter(|(_, class)| *class != Class::Purges) {
            let Some(number) = protocol.answer_field(method, "next_page_token") else { continue };
            let page = self.call(method, self.request(protocol, method, class)).await;
            let token = rpc::text(&page.expect("a first page"), number);
            assert_ne!(token, "", "{method} has a second page");
            self.page_tokens.insert(method, token);
        }
    }

    /// Calls with the organization's key, whatever the message says.
    pub(super) async fn call(&self, method: &str, message: Vec<u8>) -> Result<Bytes, Status> {
        self.caller.call(method, message).await
    }

    /// Names of this kind that may stand in this method's requests.
    pub(super) fn names(&self, name: Name, method: &str, class: Class) -> Vec<String> {
        if name == Name::PageToken {
            // A list's is as foreign to a purge as another's own would be.
            let list = if class == Class::Purges { "EventService/ListEvents" } else { method };
            return vec![self.page_tokens[list].clone()];
        }
        if name == Name::RequestId {
            return vec![self.caller.request_id(method)];
        }
        let mut names = self.names[&name].clone();
        if class == Class::Publishes {
            // The form of the server's ids is refused there, whoever's they are.
            names.truncate(1);
        }
        names
    }

    /// A request of this organization for something of its own: one item a page, with
    /// everything that may be left out.
    pub(super) fn request(&self, protocol: &Protocol, method: &str, class: Class) -> Vec<u8> {
        let mut message = self.content(method);
        for field in protocol.request(method) {
            match Name::of(&field) {
                Some(Name::Organization) => {
                    message = rpc::set(&message, &field.path, &self.caller.organization);
                }
                Some(name) if name.is_an_object() && class.needs_ids() => {
                    message = rpc::set(&message, &field.path, &self.names[&name][0]);
                }
                None if field.kind == Type::Bool && field.name.starts_with("include_") => {
                    prost::encoding::bool::encode(field.path[0], &true, &mut message);
                }
                None if field.name == "page_size" => {
                    prost::encoding::int32::encode(field.path[0], &1, &mut message);
                }
                Some(_) | None => {}
            }
        }
        message
    }

    /// What a request holds besides names.
    fn content(&self, method: &str) -> Vec<u8> {
        match method {
            "EventService/PublishEvents" => {
                let events = vec![event("invoice.paid", "{}")];
                pb::PublishEventsRequest { events, ..Default::default() }.encode_to_vec()
            }
            "EventService/PurgeSubject" => {
                let subject = self.caller.own("subject");
                pb::PurgeSubjectRequest { subject, ..Default::default() }.encode_to_vec()
            }
            "EventTypeService/GetEventType" => {
                let (catalog, name) = self.event_type.clone();
                pb::GetEventTypeRequest { catalog, name, ..Default::default() }.encode_to_vec()
            }
            "SubscriptionService/CreateSubscription" => {
                let subscription = Some(draft(&self.receiver, "standard", "created"));
                pb::CreateSubscriptionRequest { subscription, ..Default::default() }.encode_to_vec()
            }
            "SubscriptionService/UpdateSubscription" => {
                let name = self.caller.own("name");
                let subscription = Some(pb::Subscription { name, ..Default::default() });
                let update_mask = Some(prost_types::FieldMask { paths: vec!["name".to_owned()] });
                pb::UpdateSubscriptionRequest { subscription, update_mask, ..Default::default() }
                    .encode_to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// Everything of it that a stranger could have changed, as its owner sees it.
    pub(super) async fn standing(&self, protocol: &Protocol) -> Vec<Vec<u8>> {
        let mut standing = Vec::new();
        for (method, class) in METHODS.into_iter().filter(|(_, class)| *class == Class::ReadsOne) {
            let answer = self.call(method, self.request(protocol, method, class)).await;
            let answer = answer.unwrap_or_else(|status| panic!("{method}: {status:?}"));
            let lasting = if method == "SubscriptionService/GetSubscription" {
                let answer = pb::GetSubscriptionResponse::decode(answer).expect("its answer");
                let subscription = answer.subscription.expect("always there");
                // A circuit's times are told anew each time.
                pb::Subscription { circuit: None, ..subscription }.encode_to_vec()
            } else {
                answer.into()
            };
            standing.push(lasting);
        }
        standing
    }
}
