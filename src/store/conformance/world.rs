//! A registered replica with subscriptions and events, for the cases to act on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sea_orm::{ConnectionTrait, Value};

use crate::domain::attempt::{Attempt, AttemptResult, Fault};
use crate::domain::audit::{Chain, NewAuditEntry};
use crate::domain::event::{Event, EventSummary, Payload, TraceContext};
use crate::domain::id::{
    AccountId, DeliveryKey, EventKey, KeyMaker, OrganizationId, SecretKey, SubscriptionKey,
};
use crate::domain::payload_mode::PayloadMode;
use crate::domain::receiver_tls::ReceiverTls;
use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionState};
use crate::domain::timestamp::Timestamp;
use crate::store::{
    Answer, Commit, Committed, EndpointNote, Fence, LeaseSession, NewEventRow, NewSubscription,
    Next, RequestRecord, Settlement, Stale, Store, StoreError,
};

/// When the first event of a test is taken in.
pub(super) const NOON: Timestamp = Timestamp(1_750_000_000_000_000);

pub(super) struct World {
    pub(super) store: Store,
    pub(super) fence: Fence,
    keys: KeyMaker,
}

/// An event to be.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) organization: OrganizationId,
    pub(super) account: Option<AccountId>,
    pub(super) event_type: &'static str,
    pub(super) id: Option<&'static str>,
    pub(super) payload: Payload,
    pub(super) at: Timestamp,
    pub(super) targets: Vec<SubscriptionKey>,
    pub(super) parked: Vec<SubscriptionKey>,
}

impl Draft {
    pub(super) fn to(targets: &[SubscriptionKey]) -> Draft {
        let mut targets = targets.to_vec();
        targets.sort_unstable();
        Draft {
            organization: acme(),
            account: None,
            event_type: "notes.create",
            id: None,
            payload: Payload::Json(Bytes::from_static(br#"{"a":1}"#)),
            at: NOON,
            targets,
            parked: Vec::new(),
        }
    }

    pub(super) fn parked(targets: &[SubscriptionKey]) -> Draft {
        Draft { parked: targets.to_vec(), ..Draft::to(targets) }
    }
}

impl World {
    pub(super) async fn new(store: Store) -> World {
        let fence = store.register().await.expect("registers").fence;
        // Events here are older than the watermark that a new replica starts with.
        store.heartbeat(&mut LeaseSession::default(), fence, EventKey(0)).await.expect("beats");
        World { store, fence, keys: KeyMaker::new(Timestamp(0)) }
    }

    pub(super) fn key(&self) -> i64 {
        self.keys.next(self.fence.replica, NOON)
    }

    pub(super) fn new_subscription(&self, organization: &OrganizationId) -> NewSubscription {
        NewSubscription {
            key: SubscriptionKey(self.key()),
            organization: organization.clone(),
            spec: spec(),
            state: SubscriptionState::Active,
            secret: Some((SecretKey(self.key()), "whsec_first".into())),
        }
    }

    pub(super) async fn subscribe(&self, organization: &OrganizationId) -> Subscription {
        let new = self.new_subscription(organization);
        match self
            .store
            .create_subscription(new, None, &entry_of(organization), |_| Vec::new())
            .await
            .expect("creates")
        {
            Answer::Now(created) => created.subscription,
            Answer::Before { .. } => unreachable!("there was no request id"),
        }
    }

    pub(super) fn row(&self, draft: &Draft) -> NewEventRow {
        let key = EventKey(self.keys.next(self.fence.replica, draft.at));
        let id = draft.id.map_or_else(|| self.store.ids().event(key), str::to_owned);
        let summary = EventSummary {
            key,
            id,
            organization: draft.organization.clone(),
            account: draft.account.clone(),
            event_type: draft.event_type.into(),
            occur_time: draft.at,
            publish_time: draft.at,
            expire_time: None,
            content_type: "application/json".into(),
            payload_bytes: draft.payload.bytes().len() as u64,
            attributes: BTreeMap::from([("k".into(), "v".into())]),
            subject: "patient-1".into(),
            trace: TraceContext::default(),
            purge_time: None,
            publisher: "".into(),
        };
        NewEventRow {
            event: Arc::new(Event { summary, payload: draft.payload.clone() }),
            content_hash: draft.id.map(|_| [7; 32]),
            targets: draft.targets.clone(),
            parked: draft.parked.clone(),
        }
    }

    pub(super) async fn commit(&self, events: &[NewEventRow]) -> Result<Committed, StoreError> {
        let routing_version = self.store.routing_version().await?;
        self.commit_at(routing_version, Stale::ByAnyChange, events).await
    }

    /// Commits events that were matched at this version.
    pub(super) async fn commit_at(
        &self,
        routing_version: i64,
        stale: Stale,
        events: &[NewEventRow],
    ) -> Result<Committed, StoreError> {
        let fence = self.fence;
        self.store.commit(&Commit { fence, routing_version, stale, events }).await
    }

    pub(super) async fn publish(&self, draft: &Draft) -> EventKey {
        let row = self.row(draft);
        let key = row.event.summary.key;
        assert_eq!(self.commit(&[row]).await.expect("commits"), Committed::Stored);
        key
    }

    /// Settles a delivery that was claimed by its commit.
    pub(super) async fn settle(&self, delivery: DeliveryKey, attempt: Attempt, next: Next) {
        let one = Settlement {
            delivery,
            organization: acme(),
            claim: 0,
            in_due: false,
            attempts: attempt.number,
            attempt: Some(attempt),
            next,
            note: EndpointNote::default(),
        };
        self.store.settle(self.fence, &[one]).await.expect("settles");
    }

    /// Claims what is due of a subscription and settles it.
    pub(super) async fn settle_due(&self, key: SubscriptionKey, result: AttemptResult, next: Next) {
        for claim in self.store.claim(self.fence, &[(key, 100)], u64::MAX).await.expect("claims") {
            let one = Settlement {
                delivery: claim.delivery(),
                organization: claim.event.summary.organization.clone(),
                claim: claim.number,
                in_due: true,
                attempts: claim.attempts + 1,
                attempt: Some(attempt(claim.attempts + 1, result)),
                next,
                note: EndpointNote::default(),
            };
            self.store.settle(self.fence, &[one]).await.expect("settles");
        }
    }

    /// Says something to the database behind the store's back.
    pub(super) async fn execute(&self, sql: &str, values: Vec<Value>) {
        let statement = self.store.statement(sql, values);
        self.store.write().execute_raw(statement).await.expect("executes");
    }
}

pub(super) fn acme() -> OrganizationId {
    OrganizationId::stored("acme")
}

pub(super) fn other() -> OrganizationId {
    OrganizationId::stored("other")
}

pub(super) fn spec() -> SubscriptionSpec {
    SubscriptionSpec {
        account: Some(AccountId::stored("account-1")),
        name: "to the lab".into(),
        url: "https://example.com/hook".into(),
        event_patterns: vec!["notes.*".into(), "ping".into()],
        profile: "standard".into(),
        signing_enabled: true,
        headers: BTreeMap::from([("X-Key".into(), "ünï\"code".into())]),
        attributes: BTreeMap::new(),
        send_organization_code: true,
        retry_waits: vec![Duration::from_millis(1500), Duration::from_hours(24)],
        attempt_timeout: Duration::from_secs(15),
        max_in_flight: 16,
        tls: ReceiverTls::default(),
        payload_mode: PayloadMode::Full,
        omit_trace_context: true,
    }
}

pub(super) fn attempt(number: u32, result: AttemptResult) -> Attempt {
    let succeeded = result == AttemptResult::Succeeded;
    Attempt {
        number,
        result,
        http_status: Some(if succeeded { 200 } else { 503 }),
        error: if succeeded { String::new() } else { "status 503".into() },
        response_body: if succeeded { Bytes::new() } else { Bytes::from_static(b"\xffbusy") },
        start_time: NOON.plus(Duration::from_mins(u64::from(number))),
        duration: Duration::from_millis(20),
        trace_id: [9; 16],
        fault: Fault::Receiver,
    }
}

/// An entry of `acme`, whoever changes what.
pub(super) fn entry() -> NewAuditEntry {
    entry_of(&acme())
}

/// An entry of an organization.
pub(super) fn entry_of(organization: &OrganizationId) -> NewAuditEntry {
    NewAuditEntry::of_service(Chain::Organization(organization.clone()), "test")
}

pub(super) fn request(id: &str, hash: u8) -> RequestRecord {
    RequestRecord { id: id.into(), hash: [hash; 32] }
}
