//! One organization's caller: makes calls, judges the answers, and knows what must be
//! there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::audit_service_client::AuditServiceClient;
use pb::delivery_service_client::DeliveryServiceClient;
use pb::event_service_client::EventServiceClient;
use pb::event_type_service_client::EventTypeServiceClient;
use pb::subscription_service_client::SubscriptionServiceClient;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use super::call::{Call, Draft, EventDraft, Filter, Method, Payload, Switch, Text, Time};

/// Longest call on a machine that does other things as well.
const CALL_MAX: Duration = Duration::from_secs(10);

/// Largest request that may be answered, and largest that every method reads: one of
/// publish has no more than the first, others keep their own limits up to the second.
const REQUEST_BYTES_MAX: usize = 4 << 20;
const MESSAGE_BYTES_MAX: usize = 5 << 20;

const INVALID: Code = Code::InvalidArgument;
const MISSING: Code = Code::NotFound;
const STATE: Code = Code::FailedPrecondition;
const FULL: Code = Code::ResourceExhausted;

pub struct Caller {
    channel: Channel,
    organization: String,
    subscriptions: Vec<String>,
    deleted: BTreeSet<String>,
    secrets: Vec<String>,
    events: Vec<String>,
    deliveries: Vec<String>,
    tokens: Vec<String>,
    etags: Vec<String>,
    /// By event id: what was accepted, and how many deliveries it made.
    published: BTreeMap<String, (Option<pb::event::Payload>, u32)>,
    pings: usize,
    /// Events that were purged by their ids.
    purged: BTreeSet<String>,
    /// How many events were purged by their subjects.
    purges_by_subject: u64,
}

/// The answer to a request of so many bytes, unless it is an error that the method may
/// give: any may say that the request is too large, if it is.
fn judge<T>(
    method: &str,
    codes: &[Code],
    bytes: usize,
    began: Instant,
    answer: Result<Response<T>, Status>,
) -> Option<T> {
    assert!(began.elapsed() < CALL_MAX, "{method} took {:?}", began.elapsed());
    match answer {
        Ok(answer) => {
            assert!(bytes <= REQUEST_BYTES_MAX, "{method} took {bytes} bytes");
            Some(answer.into_inner())
        }
        Err(status) => {
            let info = status.get_details_error_info().expect("every error has an ErrorInfo");
            assert_eq!(info.domain, "hookward.v1");
            if info.reason == "REQUEST_TOO_LARGE" {
                assert!(bytes > REQUEST_BYTES_MAX, "{method}: {bytes} bytes: {status:?}");
                assert_eq!(status.code(), FULL, "{method}");
                return None;
            }
            assert!(bytes <= MESSAGE_BYTES_MAX, "{method} read {bytes} bytes: {status:?}");
            assert!(codes.contains(&status.code()), "{method}: {status:?}");
            let violations = status.get_details_bad_request().map(|bad| bad.field_violations);
            if status.code() == INVALID {
                assert!(
                    violations.is_some_and(|fields| !fields.is_empty()),
                    "{method}: {status:?}"
                );
            }
            None
        }
    }
}

macro_rules! ask {
    ($self:ident, $client:ident, $method:ident, $codes:expr, $request:expr) => {{
        let request = $request;
        let bytes = request.encoded_len();
        let began = Instant::now();
        let answer = $client::new($self.channel.clone()).$method(request).await;
        judge(stringify!($method), &$codes, bytes, began, answer)
    }};
}

impl Caller {
    pub fn new(channel: Channel, organization: String) -> Caller {
        Caller {
            channel,
            organization,
            subscriptions: Vec::new(),
            deleted: BTreeSet::new(),
            secrets: Vec::new(),
            events: Vec::new(),
            deliveries: Vec::new(),
            tokens: Vec::new(),
            etags: Vec::new(),
            published: BTreeMap::new(),
            pings: 0,
            purged: BTreeSet::new(),
            purges_by_subject: 0,
        }
    }

    pub async fn make(&mut self, call: Call) {
        let own = call.organization.is_none();
        let organization = match &call.organization {
            None => self.organization.clone(),
            Some(text) => text.one_of(&["stranger", "nobody", ".", "a/b", " "]),
        };
        let known = own.then_some(());
        match call.method {
            Method::CreateSubscription { draft, secret, request_id, validate_only } => {
                let request = pb::CreateSubscriptionRequest {
                    organization_id: organization,
                    subscription: Some(self.subscription(&draft)),
                    signing_secret: secret.one_of(&SECRETS),
                    request_id: request_id.one_of(&REQUEST_IDS),
                    validate_only,
                };
                let made = self.create(request).await;
                self.know(known.and(made));
            }
            Method::Subscribe => {
                let subscription = pb::Subscription {
                    url: "https://example.com/hook".to_owned(),
                    event_patterns: vec!["*".to_owned()],
                    ..pb::Subscription::default()
                };
                let request = pb::CreateSubscriptionRequest {
                    organization_id: self.organization.clone(),
                    subscription: Some(subscription),
                    ..pb::CreateSubscriptionRequest::default()
                };
                let made = self.create(request).await;
                assert!(made.is_some(), "it keeps the rules");
                self.know(made);
            }
            Method::GetSubscription(id) => {
                let subscription_id = id.of(&self.subscriptions);
                let request =
                    pb::GetSubscriptionRequest { organization_id: organization, subscription_id };
                let found = ask!(
                    self,
                    SubscriptionServiceClient,
                    get_subscription,
                    [INVALID, MISSING],
                    request
                );
                self.learn(own, found.and_then(|found| found.subscription));
            }
            Method::UpdateSubscription { draft, mask, validate_only } => {
                let paths = |mask: Vec<Text>| prost_types::FieldMask {
                    paths: mask.iter().map(|path| path.one_of(&PATHS)).collect(),
                };
                let request = pb::UpdateSubscriptionRequest {
                    organization_id: organization,
                    subscription: Some(self.subscription(&draft)),
                    update_mask: mask.map(paths),
                    validate_only,
                };
                let codes = [INVALID, MISSING, STATE, Code::Aborted];
                let changed =
                    ask!(self, SubscriptionServiceClient, update_subscription, codes, request);
                self.learn(own, changed.and_then(|changed| changed.subscription));
            }
            Method::DeleteSubscription { id, etag, allow_missing } => {
                let subscription_id = id.of(&self.subscriptions);
                let request = pb::DeleteSubscriptionRequest {
                    organization_id: organization,
                    subscription_id: subscription_id.clone(),
                    etag: etag.of(&self.etags),
                    allow_missing,
                };
                let codes = [INVALID, MISSING, Code::Aborted];
                let deleted =
                    ask!(self, SubscriptionServiceClient, delete_subscription, codes, request);
                if own && deleted.is_some() {
                    self.deleted.insert(subscription_id);
                }
            }
            Method::Switch(switch, id) => self.switch(organization, switch, &id, own).await,
            Method::Publish(drafts) => self.publish(organization, &drafts, own).await,
            other => self.read_or_end(organization, other, own).await,
        }
    }

    async fn create(
        &self,
        request: pb::CreateSubscriptionRequest,
    ) -> Option<pb::CreateSubscriptionResponse> {
        let validate_only = request.validate_only;
        let made =
            ask!(self, SubscriptionServiceClient, create_subscription, [INVALID, FULL], request);
        made.filter(|_| !validate_only)
    }

    fn know(&mut self, made: Option<pb::CreateSubscriptionResponse>) {
        let Some(made) = made else { return };
        let subscription = made.subscription.expect("always there");
        if !self.subscriptions.contains(&subscription.id) {
            self.subscriptions.push(subscription.id.clone());
        }
        self.secrets.extend(made.signing_secret.map(|secret| secret.id));
        self.learn(true, Some(subscription));
    }

    fn learn(&mut self, own: bool, subscription: Option<pb::Subscription>) {
        let Some(subscription) = subscription else { return };
        assert_eq!(subscription.organization_id == self.organization, own, "whose is it?");
        self.etags.push(subscription.etag);
    }

    async fn switch(&mut self, organization_id: String, switch: Switch, id: &Text, own: bool) {
        let subscription_id = id.of(&self.subscriptions);
        let codes = [INVALID, MISSING, STATE];
        macro_rules! ask_for {
            ($method:ident, $request:ident, $codes:expr) => {{
                let request = pb::$request { organization_id, subscription_id };
                let switched = ask!(self, SubscriptionServiceClient, $method, $codes, request);
                switched.and_then(|switched| switched.subscription)
            }};
        }
        let subscription = match switch {
            Switch::Pause => ask_for!(pause_subscription, PauseSubscriptionRequest, codes),
            Switch::Resume => ask_for!(resume_subscription, ResumeSubscriptionRequest, codes),
            Switch::Activate => ask_for!(activate_subscription, ActivateSubscriptionRequest, codes),
            Switch::Deactivate => {
                ask_for!(deactivate_subscription, DeactivateSubscriptionRequest, codes[..2])
            }
            Switch::Ping => {
                let request = pb::PingSubscriptionRequest { organization_id, subscription_id };
                // There are ten a minute.
                let codes = [INVALID, MISSING, STATE, FULL];
                let sent = ask!(self, SubscriptionServiceClient, ping_subscription, codes, request);
                if let Some(sent) = sent {
                    assert!(own);
                    self.pings += 1;
                    self.deliveries.push(sent.delivery_id);
                    self.events.push(sent.event_id);
                }
                None
            }
        };
        self.learn(own, subscription);
    }

    async fn publish(&mut self, organization_id: String, drafts: &[EventDraft], own: bool) {
        let events: Vec<pb::Event> = drafts.iter().map(|draft| self.event(draft)).collect();
        let request = pb::PublishEventsRequest { organization_id, events: events.clone() };
        let codes = [INVALID, FULL, Code::AlreadyExists];
        let Some(answer) = ask!(self, EventServiceClient, publish_events, codes, request) else {
            return;
        };
        assert_eq!(answer.results.len(), events.len());
        if !own {
            return;
        }
        for (event, result) in events.into_iter().zip(answer.results) {
            if !event.id.is_empty() {
                assert_eq!(event.id, result.event_id);
            }
            let new = (event.payload, result.delivery_count);
            if result.duplicate {
                assert_eq!(self.published.get(&result.event_id), Some(&new), "as the first");
            } else {
                self.events.push(result.event_id.clone());
                let before = self.published.insert(result.event_id, new);
                assert_eq!(before, None, "a new one");
            }
        }
    }

    async fn read_or_end(&mut self, organization_id: String, method: Method, own: bool) {
        match method {
            Method::ListSubscriptions { filter, event_type, profile } => {
                let request = pb::ListSubscriptionsRequest {
                    organization_id,
                    states: filter.states.clone(),
                    event_type: event_type.one_of(&TYPES),
                    account_id: filter.account.one_of(&ACCOUNTS),
                    profile: profile.one_of(&PROFILES),
                    page_size: filter.page.size,
                    page_token: filter.page.token.of(&self.tokens),
                };
                let list =
                    ask!(self, SubscriptionServiceClient, list_subscriptions, [INVALID], request);
                if let Some(list) = list {
                    self.tokens.push(list.next_page_token);
                    list.subscriptions.into_iter().for_each(|one| self.learn(own, Some(one)));
                }
            }
            Method::RotateSecret { id, overlap, secret, request_id } => {
                let request = pb::RotateSigningSecretRequest {
                    organization_id,
                    subscription_id: id.of(&self.subscriptions),
                    overlap: overlap.as_ref().map(Time::duration),
                    signing_secret: secret.one_of(&SECRETS),
                    request_id: request_id.one_of(&REQUEST_IDS),
                };
                let codes = [INVALID, MISSING, STATE];
                let made =
                    ask!(self, SubscriptionServiceClient, rotate_signing_secret, codes, request);
                self.secrets.extend(made.and_then(|made| made.signing_secret).map(|one| one.id));
            }
            Method::ListSecrets(id) => {
                let subscription_id = id.of(&self.subscriptions);
                let request = pb::ListSigningSecretsRequest { organization_id, subscription_id };
                let codes = [INVALID, MISSING];
                let list =
                    ask!(self, SubscriptionServiceClient, list_signing_secrets, codes, request);
                for one in list.map(|list| list.signing_secrets).unwrap_or_default() {
                    assert!(one.secret.is_empty(), "shown once only");
                }
            }
            Method::RevokeSecret { id, secret } => {
                let request = pb::RevokeSigningSecretRequest {
                    organization_id,
                    subscription_id: id.of(&self.subscriptions),
                    signing_secret_id: secret.of(&self.secrets),
                };
                let codes = [INVALID, MISSING, STATE];
                ask!(self, SubscriptionServiceClient, revoke_signing_secret, codes, request);
            }
            Method::ListProfiles => {
                let request = pb::ListProfilesRequest { organization_id };
                ask!(self, SubscriptionServiceClient, list_profiles, [INVALID], request);
            }
            Method::GetEvent { id, with_payload } => {
                let request = pb::GetEventRequest {
                    organization_id,
                    event_id: id.of(&self.events),
                    include_payload: with_payload,
                };
                let found = ask!(self, EventServiceClient, get_event, [INVALID, MISSING], request);
                let found = found.and_then(|found| found.event);
                assert!(
                    found.is_none_or(|event| own == (event.organization_id == self.organization))
                );
            }
            Method::ListEvents { filter, with_payload } => {
                let request = pb::ListEventsRequest {
                    organization_id,
                    account_id: filter.account.one_of(&ACCOUNTS),
                    event_type_pattern: filter.pattern.one_of(&PATTERNS),
                    publish_time: range(&filter),
                    include_payload: with_payload,
                    page_size: filter.page.size,
                    page_token: filter.page.token.of(&self.tokens),
                };
                let list = ask!(self, EventServiceClient, list_events, [INVALID], request);
                self.tokens.extend(list.map(|list| list.next_page_token));
            }
            Method::PurgeEvent(_) | Method::PurgeSubject { .. } => {
                self.purge(organization_id, method, own).await;
            }
            Method::ListAuditEntries { filter } => {
                let request = pb::ListAuditEntriesRequest {
                    organization_id,
                    time: range(&filter),
                    page_size: filter.page.size,
                    page_token: filter.page.token.of(&self.tokens),
                };
                let list = ask!(self, AuditServiceClient, list_audit_entries, [INVALID], request);
                self.tokens.extend(list.map(|list| list.next_page_token));
            }
            Method::GetEventType { catalog, name } => {
                let (catalog, name) = (catalog.one_of(&CATALOGS), name.one_of(&TYPES));
                let request = pb::GetEventTypeRequest { organization_id, catalog, name };
                ask!(self, EventTypeServiceClient, get_event_type, [INVALID, MISSING], request);
            }
            Method::ListEventTypes { catalog, page } => {
                let request = pb::ListEventTypesRequest {
                    organization_id,
                    catalog: catalog.one_of(&CATALOGS),
                    page_size: page.size,
                    page_token: page.token.of(&self.tokens),
                };
                let list = ask!(self, EventTypeServiceClient, list_event_types, [INVALID], request);
                self.tokens.extend(list.map(|list| list.next_page_token));
            }
            other => self.act_on_delivery(organization_id, other, own).await,
        }
    }

    async fn purge(&mut self, organization_id: String, method: Method, own: bool) {
        match method {
            Method::PurgeEvent(id) => {
                let event_id = id.of(&self.events);
                let request = pb::PurgeEventRequest { organization_id, event_id: event_id.clone() };
                let codes = [INVALID, MISSING, STATE];
                let purged = ask!(self, EventServiceClient, purge_event, codes, request);
                if own && purged.is_some() {
                    self.purged.insert(event_id);
                }
            }
            Method::PurgeSubject { subject, token } => {
                let request = pb::PurgeSubjectRequest {
                    organization_id,
                    subject: subject.one_of(&SUBJECTS),
                    page_token: token.of(&self.tokens),
                };
                let codes = [INVALID, STATE];
                let purged = ask!(self, EventServiceClient, purge_subject, codes, request);
                if let Some(purged) = purged {
                    self.purges_by_subject += if own { purged.purged_count } else { 0 };
                    self.tokens.push(purged.next_page_token);
                }
            }
            _ => unreachable!("made elsewhere"),
        }
    }

    async fn act_on_delivery(&mut self, organization_id: String, method: Method, own: bool) {
        let found = match method {
            Method::GetDelivery(id) => {
                let delivery_id = id.of(&self.deliveries);
                let request = pb::GetDeliveryRequest { organization_id, delivery_id };
                let found =
                    ask!(self, DeliveryServiceClient, get_delivery, [INVALID, MISSING], request);
                found.and_then(|found| found.delivery)
            }
            Method::ListDeliveries { filter, subscription, event } => {
                let request = pb::ListDeliveriesRequest {
                    organization_id,
                    subscription_id: subscription.of(&self.subscriptions),
                    account_id: filter.account.one_of(&ACCOUNTS),
                    event_id: event.of(&self.events),
                    event_type_pattern: filter.pattern.one_of(&PATTERNS),
                    states: filter.states.clone(),
                    create_time: range(&filter),
                    page_size: filter.page.size,
                    page_token: filter.page.token.of(&self.tokens),
                };
                let list = ask!(self, DeliveryServiceClient, list_deliveries, [INVALID], request);
                if let Some(list) = list {
                    self.tokens.push(list.next_page_token);
                    self.deliveries.extend(list.deliveries.into_iter().map(|one| one.id));
                }
                None
            }
            Method::ListAttempts { id, with_body, page } => {
                let request = pb::ListDeliveryAttemptsRequest {
                    organization_id,
                    delivery_id: id.of(&self.deliveries),
                    include_response_body: with_body,
                    page_size: page.size,
                    page_token: page.token.of(&self.tokens),
                };
                let codes = [INVALID, MISSING];
                let list =
                    ask!(self, DeliveryServiceClient, list_delivery_attempts, codes, request);
                self.tokens.extend(list.map(|list| list.next_page_token));
                None
            }
            Method::Retry { id, request_id } => {
                let request = pb::RetryDeliveryRequest {
                    organization_id,
                    delivery_id: id.of(&self.deliveries),
                    request_id: request_id.one_of(&REQUEST_IDS),
                };
                let codes = [INVALID, MISSING, STATE];
                let again = ask!(self, DeliveryServiceClient, retry_delivery, codes, request);
                again.and_then(|again| again.delivery)
            }
            Method::Cancel(id) => {
                let delivery_id = id.of(&self.deliveries);
                let request = pb::CancelDeliveryRequest { organization_id, delivery_id };
                let codes = [INVALID, MISSING, STATE, Code::Aborted];
                let ended = ask!(self, DeliveryServiceClient, cancel_delivery, codes, request);
                ended.and_then(|ended| ended.delivery)
            }
            _ => unreachable!("made elsewhere"),
        };
        assert!(found.is_none_or(|one| own == (one.organization_id == self.organization)));
    }

    /// Whether everything that was stored is there, and nothing else.
    pub async fn check(&self) {
        let organization_id = self.organization.clone();
        for subscription_id in &self.subscriptions {
            let subscription_id = subscription_id.clone();
            let missing = self.deleted.contains(&subscription_id);
            let request = pb::GetSubscriptionRequest {
                organization_id: organization_id.clone(),
                subscription_id,
            };
            let found = ask!(self, SubscriptionServiceClient, get_subscription, [MISSING], request);
            assert_eq!(found.is_none(), missing);
        }
        let (mut all, mut purged) = (self.pings, 0);
        for (event_id, (payload, count)) in &self.published {
            let request = pb::GetEventRequest {
                organization_id: organization_id.clone(),
                event_id: event_id.clone(),
                include_payload: true,
            };
            let found = ask!(self, EventServiceClient, get_event, [], request);
            let event = found.and_then(|found| found.event).expect("it was accepted");
            if event.payload.is_none() && event.payload_purge_time.is_some() {
                purged += u64::from(!self.purged.contains(event_id));
            } else {
                assert!(!self.purged.contains(event_id), "{event_id} is purged");
                assert_eq!(&event.payload, payload, "byte for byte");
            }
            assert_eq!(self.deliveries_of(event_id).await.len(), *count as usize, "{event_id}");
            all += *count as usize;
        }
        assert_eq!(self.deliveries_of("").await.len(), all, "and no others");
        assert!(purged <= self.purges_by_subject, "{purged} are purged and no more were asked for");
    }

    /// The subscriptions and events of the deliveries of an event, or of all.
    async fn deliveries_of(&self, event_id: &str) -> BTreeSet<(String, String)> {
        let (mut found, mut page_token) = (BTreeSet::new(), String::new());
        loop {
            let request = pb::ListDeliveriesRequest {
                organization_id: self.organization.clone(),
                event_id: event_id.to_owned(),
                page_size: 7,
                page_token: page_token.clone(),
                ..pb::ListDeliveriesRequest::default()
            };
            let list = ask!(self, DeliveryServiceClient, list_deliveries, [], request).expect("OK");
            for one in list.deliveries {
                assert_eq!(one.organization_id, self.organization);
                assert!(found.insert((one.subscription_id, one.event_id)), "once each");
            }
            if list.next_page_token.is_empty() {
                return found;
            }
            assert_ne!(page_token, list.next_page_token, "it goes on");
            page_token = list.next_page_token;
        }
    }

    fn subscription(&self, draft: &Draft) -> pb::Subscription {
        let waits = |waits: &Vec<Time>| pb::RetryPolicy {
            waits: waits.iter().map(Time::duration).collect(),
        };
        pb::Subscription {
            id: draft.id.of(&self.subscriptions),
            organization_id: draft.organization.of(&[String::new(), self.organization.clone()]),
            account_id: draft.account.one_of(&ACCOUNTS),
            name: draft.name.one_of(&["", "to the lab", "läbchen"]),
            url: draft.url.one_of(&URLS),
            event_patterns: draft.patterns.iter().map(|one| one.one_of(&PATTERNS)).collect(),
            profile: draft.profile.one_of(&PROFILES),
            signing_enabled: draft.signing,
            headers: map(&draft.headers, &["X-Key", "x-key", "Authorization", "Host", "é"]),
            attributes: map(&draft.attributes, &["organizationCode", "k", "a b"]),
            send_organization_code: draft.sends_code,
            retry_policy: draft.waits.as_ref().map(waits),
            attempt_timeout: draft.timeout.as_ref().map(Time::duration),
            max_in_flight: draft.max_in_flight,
            state: draft.state,
            etag: draft.etag.of(&self.etags),
            ..pb::Subscription::default()
        }
    }

    fn event(&self, draft: &EventDraft) -> pb::Event {
        let payload = |payload: &Payload| match payload {
            Payload::Json(text) => {
                pb::event::Payload::Json(text.one_of(&["{}", r#"{"a":[1,{"b":null}]}"#, "1e400"]))
            }
            Payload::Raw(bytes) => pb::event::Payload::Raw(bytes.clone().into()),
        };
        pb::Event {
            id: draft.id.one_of(&["", "order-1", "order-2", "evt_1"]),
            organization_id: draft.organization.of(&[String::new(), self.organization.clone()]),
            account_id: draft.account.one_of(&ACCOUNTS),
            r#type: draft.event_type.one_of(&TYPES),
            occur_time: draft.occur_time.as_ref().map(Time::timestamp),
            payload: draft.payload.as_ref().map(payload),
            content_type: draft.content_type.one_of(&["", "application/json", "text/plain"]),
            attributes: map(&draft.attributes, &["k", "a.b", ""]),
            subject: draft.subject.one_of(&SUBJECTS),
            expire_time: draft.expire_time.as_ref().map(Time::timestamp),
            ..pb::Event::default()
        }
    }
}

const SECRETS: [&str; 4] =
    ["", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "0123456789abcdef", "whsec_"];
const REQUEST_IDS: [&str; 3] =
    ["", "8a0f7a5e-9b1c-4c4e-8a57-2f6f4d1f3c90", "8A0F7A5E-9B1C-4C4E-8A57-2F6F4D1F3C91"];
const ACCOUNTS: [&str; 3] = ["", "account-1", "account-2"];
const URLS: [&str; 5] = [
    "https://example.com/hook",
    "http://127.0.0.1:9000/",
    "https://10.0.0.1/",
    "https://[::1]:443/?a",
    "https://bücher.example/%20",
];
const SUBJECTS: [&str; 3] = ["", "patient-1", "patient-2"];
const PATTERNS: [&str; 6] = ["*", "notes.*", "notes.create", "notes", "ping", ""];
const TYPES: [&str; 5] = ["notes.create", "notes.patched", "ping", "message_sent", ""];
const PROFILES: [&str; 7] =
    ["", "standard", "telegramd", "azodha", "meetinglawyers", "hapihub", "none"];
const CATALOGS: [&str; 4] = ["", "telegramd", "hapihub", "none"];
const PATHS: [&str; 14] = [
    "url",
    "name",
    "event_patterns",
    "profile",
    "signing_enabled",
    "headers",
    "attributes",
    "retry_policy",
    "attempt_timeout",
    "max_in_flight",
    "send_organization_code",
    "*",
    "state",
    "account_id",
];

fn map(pairs: &[(Text, Text)], keys: &[&str]) -> BTreeMap<String, String> {
    let pair =
        |(key, value): &(Text, Text)| (key.one_of(keys), value.one_of(&["value", "***", ""]));
    pairs.iter().map(pair).collect()
}

fn range(filter: &Filter) -> Option<pb::TimeRange> {
    filter.range.as_ref().map(|(start, end)| pb::TimeRange {
        start_time: start.as_ref().map(Time::timestamp),
        end_time: end.as_ref().map(Time::timestamp),
    })
}
