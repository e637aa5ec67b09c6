//! Claims and take-overs: one owner at a time, and a dead one loses everything.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use sea_orm::ConnectionTrait;

use super::on_both_engines;
use super::world::{Draft, World, acme, attempt, entry};
use crate::domain::attempt::AttemptResult;
use crate::domain::delivery::{DeadReason, DeliveryState};
use crate::domain::event::Payload;
use crate::domain::id::{DeliveryKey, EventKey, SubscriptionKey};
use crate::domain::subscription::SubscriptionState;
use crate::store::{
    DisableCause, EndpointNote, Fence, LeaseSession, Next, Settlement, Store, StoreError,
};

on_both_engines! {
    claims_made_at_once_never_overlap,
    a_claim_takes_the_oldest_of_each_subscription_up_to_its_share,
    a_dead_replica_loses_everything_it_held_and_can_write_no_more,
    a_replica_that_shows_life_is_not_taken_over,
    a_session_that_was_cut_off_does_not_pass_for_life,
    what_was_settled_is_not_taken_over,
    a_claim_that_was_given_back_cannot_be_settled_by_its_first_owner,
    a_spilled_delivery_is_settled_like_any_claimed_one,
    a_cancelled_delivery_is_not_put_back_in_line_by_its_attempt,
    claims_of_lost_answers_can_be_given_back,
    the_waiting_of_an_ended_subscription_end_in_batches,
    the_waiting_of_a_subscription_that_takes_events_are_kept,
    a_cancelled_delivery_does_not_come_back_when_it_is_spilled,
    a_settlement_sent_again_changes_nothing_that_came_after_it,
    a_replica_that_was_taken_over_recovers_nothing,
    a_claim_loads_no_more_bytes_than_it_may,
    a_backlog_of_large_payloads_leaves_room_for_others,
    an_attempt_of_before_a_cancellation_changes_nothing_of_the_retry,
    claims_of_lost_answers_are_given_back_by_who_leaves,
    a_delivery_that_is_cancelled_during_its_take_over_stays_cancelled,
}

async fn claims_made_at_once_never_overlap(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    for _ in 0..20 {
        world.publish(&Draft::parked(&[subscription])).await;
    }
    let claims = (0..10).map(|_| {
        let (store, fence) = (world.store.clone(), world.fence);
        tokio::spawn(async move {
            store.claim(fence, &[(subscription, 3)], u64::MAX).await.expect("claims")
        })
    });
    let mut seen = HashSet::new();
    for claims in futures_util::future::join_all(claims).await {
        for claim in claims.expect("no panic") {
            assert!(seen.insert(claim.delivery()), "claimed twice: {:?}", claim.delivery());
        }
    }
    assert_eq!(seen.len(), 20);
    assert_eq!(world.store.owned(world.fence).await.expect("tells").len(), 20);
}

async fn a_claim_takes_the_oldest_of_each_subscription_up_to_its_share(store: Store) {
    let world = World::new(store).await;
    let busy = world.subscribe(&acme()).await.key;
    let calm = world.subscribe(&acme()).await.key;
    let mut busy_events = Vec::new();
    for _ in 0..5 {
        busy_events.push(world.publish(&Draft::parked(&[busy])).await);
    }
    let calm_event = world.publish(&Draft::parked(&[calm])).await;
    let waiting = world.store.waiting().await.expect("tells");
    assert_eq!(waiting.iter().map(|one| one.subscription).collect::<Vec<_>>(), [busy, calm]);
    let claims =
        world.store.claim(world.fence, &[(busy, 2), (calm, 2)], u64::MAX).await.expect("claims");
    let mut of_busy: Vec<EventKey> = claims
        .iter()
        .filter(|claim| claim.subscription == busy)
        .map(|claim| claim.event.summary.key)
        .collect();
    of_busy.sort_unstable();
    assert_eq!(of_busy, busy_events[..2]);
    assert!(claims.iter().any(|claim| claim.event.summary.key == calm_event));
    assert!(claims.iter().all(|claim| claim.number == 1 && claim.attempts == 0));
}

async fn a_dead_replica_loses_everything_it_held_and_can_write_no_more(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let fresh = world.publish(&Draft::to(&[subscription])).await;
    let parked = world.publish(&Draft::parked(&[subscription])).await;
    let claims =
        world.store.claim(world.fence, &[(subscription, 9)], u64::MAX).await.expect("claims");
    assert_eq!(claims.len(), 1);

    let dead = world.store.replicas().await.expect("tells")[0];
    let heir = world.store.register().await.expect("registers").fence;
    assert_eq!(world.store.take_over(&dead).await.expect("takes over"), Some(2));
    assert_eq!(world.store.take_over(&dead).await.expect("answers"), None, "once");

    let late = settlement(fresh, subscription, Next::Succeeded);
    let settled = world.store.settle(world.fence, &[late]).await;
    assert!(matches!(settled, Err(StoreError::Fenced)));
    let mixed = Settlement { in_due: true, ..settlement(parked, subscription, Next::Succeeded) };
    let settled = world.store.settle(world.fence, &[mixed]).await;
    assert!(matches!(settled, Err(StoreError::Fenced)));
    let stale = world.store.claim(world.fence, &[(subscription, 9)], u64::MAX).await;
    assert!(
        matches!(stale, Err(StoreError::Fenced)) || stale.is_ok_and(|claims| claims.is_empty())
    );
    let beat = world.store.heartbeat(&mut LeaseSession::default(), world.fence, EventKey(0)).await;
    assert!(matches!(beat, Err(StoreError::Fenced)));

    let claims = world.store.claim(heir, &[(subscription, 9)], u64::MAX).await.expect("claims");
    let events: HashSet<EventKey> = claims.iter().map(|claim| claim.event.summary.key).collect();
    assert_eq!(events, HashSet::from([fresh, parked]));
    assert!(claims.iter().all(|claim| claim.takeovers == 1 && claim.attempts == 0));
}

async fn a_replica_that_shows_life_is_not_taken_over(store: Store) {
    let world = World::new(store).await;
    let seen = world.store.replicas().await.expect("tells")[0];
    world.execute("UPDATE replica SET heartbeat_at = heartbeat_at + 1", vec![]).await;
    assert_eq!(world.store.take_over(&seen).await.expect("answers"), None);
    assert_eq!(world.store.replicas().await.expect("tells").len(), 1);
}

async fn a_session_that_was_cut_off_does_not_pass_for_life(store: Store) {
    let world = World::new(store).await;
    let beat = async |session: &mut LeaseSession| {
        world.store.heartbeat(session, world.fence, EventKey(0)).await?;
        world.store.hold_session(session, world.fence).await
    };
    let is_held = async || world.store.replicas().await.expect("tells")[0].session_held;
    let mut cut_off = LeaseSession::default();
    beat(&mut cut_off).await.expect("beats");
    assert_eq!(is_held().await, world.store.is_shared());
    if !world.store.is_shared() {
        return;
    }
    // PostgreSQL does not know that nobody speaks over it any more.
    let mut session = LeaseSession::default();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let _ = beat(&mut session).await;
        if world.store.heartbeat(&mut cut_off, world.fence, EventKey(0)).await.is_err() {
            break;
        }
        assert!(Instant::now() < end, "it is ended");
    }
    drop(cut_off);
    while beat(&mut session).await.is_err() || !is_held().await {
        assert!(Instant::now() < end, "the new one holds the lock");
    }
    drop(session);
    while is_held().await {
        assert!(Instant::now() < end, "with its end the lock is gone");
    }
}

async fn what_was_settled_is_not_taken_over(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(world.publish(&Draft::to(&[subscription])).await);
    }
    let of = |event| DeliveryKey { event, subscription };
    let failed = || attempt(1, AttemptResult::HttpStatus);
    world.settle(of(events[0]), attempt(1, AttemptResult::Succeeded), Next::Succeeded).await;
    world.settle(of(events[1]), failed(), Next::RetryIn(Duration::ZERO)).await;
    world.settle(of(events[2]), failed(), Next::Cancelled).await;
    let dead = world.store.replicas().await.expect("tells")[0];
    assert_eq!(world.store.take_over(&dead).await.expect("takes over"), Some(1));
    let mut states = Vec::new();
    for event in events {
        states.push(world.store.delivery(&acme(), of(event)).await.expect("is there").state);
    }
    let (pending, ended) = (DeliveryState::Pending, DeliveryState::Cancelled);
    assert_eq!(states, [DeliveryState::Succeeded, pending, ended, pending]);
}

async fn a_claim_that_was_given_back_cannot_be_settled_by_its_first_owner(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let event = world.publish(&Draft::parked(&[subscription])).await;
    let first =
        world.store.claim(world.fence, &[(subscription, 1)], u64::MAX).await.expect("claims");
    let delivery = DeliveryKey { event, subscription };
    world.store.disown(world.fence, &[(delivery, first[0].number)]).await.expect("gives back");
    let second =
        world.store.claim(world.fence, &[(subscription, 1)], u64::MAX).await.expect("claims");
    assert_eq!(second[0].number, first[0].number + 1);
    let release = |claim| Settlement {
        claim,
        in_due: true,
        attempt: None,
        attempts: 0,
        ..settlement(event, subscription, Next::Release)
    };
    world.store.settle(world.fence, &[release(first[0].number)]).await.expect("changes nothing");
    assert_eq!(world.store.owned(world.fence).await.expect("tells").len(), 1);
    world.store.settle(world.fence, &[release(second[0].number)]).await.expect("gives back");
    assert_eq!(world.store.owned(world.fence).await.expect("tells"), []);
}

async fn a_spilled_delivery_is_settled_like_any_claimed_one(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let event = world.publish(&Draft::to(&[subscription])).await;
    let delivery = DeliveryKey { event, subscription };
    world.store.spill(world.fence, &[delivery]).await.expect("spills");
    assert_eq!(world.store.owned(world.fence).await.expect("tells"), [(delivery, 0)]);
    let state = world.store.delivery(&acme(), delivery).await.expect("is there").state;
    assert_eq!(state, DeliveryState::InFlight);
    let one = Settlement { in_due: true, ..settlement(event, subscription, Next::Succeeded) };
    world.store.settle(world.fence, &[one]).await.expect("settles");
    let state = world.store.delivery(&acme(), delivery).await.expect("is there").state;
    assert_eq!(state, DeliveryState::Succeeded);
    assert_eq!(world.store.owned(world.fence).await.expect("tells"), []);
}

async fn a_cancelled_delivery_is_not_put_back_in_line_by_its_attempt(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let event = world.publish(&Draft::to(&[subscription])).await;
    let delivery = DeliveryKey { event, subscription };
    world.store.cancel_delivery(&acme(), delivery, &entry()).await.expect("cancels");
    let failed = attempt(1, AttemptResult::Timeout);
    world.settle(delivery, failed, Next::RetryIn(Duration::ZERO)).await;
    let now = world.store.delivery(&acme(), delivery).await.expect("is there");
    assert_eq!((now.state, now.attempt_count), (DeliveryState::Cancelled, 1));
    assert_eq!(world.store.waiting().await.expect("tells"), []);
}

async fn claims_of_lost_answers_can_be_given_back(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    world.publish(&Draft::parked(&[subscription])).await;
    world.store.claim(world.fence, &[(subscription, 1)], u64::MAX).await.expect("claims");
    let lost = world.store.owned(world.fence).await.expect("tells");
    let stranger = Fence { incarnation: world.fence.incarnation + 1, ..world.fence };
    world.store.disown(stranger, &lost).await.expect("changes nothing");
    assert_eq!(world.store.waiting().await.expect("tells"), []);
    world.store.disown(world.fence, &lost).await.expect("gives back");
    assert_eq!(world.store.waiting().await.expect("tells").len(), 1);
}

async fn claims_of_lost_answers_are_given_back_by_who_leaves(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    world.publish(&Draft::parked(&[subscription])).await;
    world.store.claim(world.fence, &[(subscription, 1)], u64::MAX).await.expect("claims");
    world.store.leave(world.fence).await.expect("leaves");
    assert_eq!(world.store.waiting().await.expect("tells").len(), 1);
    let heir = world.store.register().await.expect("registers").fence;
    let claims = world.store.claim(heir, &[(subscription, 1)], u64::MAX).await.expect("claims");
    assert_eq!(claims.len(), 1);
}

async fn a_delivery_that_is_cancelled_during_its_take_over_stays_cancelled(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let event = world.publish(&Draft::to(&[subscription])).await;
    let other = world.subscribe(&acme()).await.key;
    world.publish(&Draft::parked(&[other])).await;
    world.store.claim(world.fence, &[(other, 1)], u64::MAX).await.expect("claims");

    let dead = world.store.replicas().await.expect("tells")[0];
    // The take-over frees this row last.
    let blocking = world.store.begin().await.expect("begins");
    if world.store.is_shared() {
        let lock = world.store.statement("SELECT claim FROM due FOR UPDATE", vec![]);
        assert_eq!(blocking.query_all_raw(lock).await.expect("locks").len(), 1);
    }
    let store = world.store.clone();
    let taking = tokio::spawn(async move { store.take_over(&dead).await });
    until_blocked(&world.store, 1, || taking.is_finished()).await;
    let (store, delivery) = (world.store.clone(), DeliveryKey { event, subscription });
    let cancelling =
        tokio::spawn(async move { store.cancel_delivery(&acme(), delivery, &entry()).await });
    until_blocked(&world.store, 2, || cancelling.is_finished()).await;
    blocking.commit().await.expect("commits");
    assert_eq!(taking.await.expect("no panic").expect("takes over"), Some(2));
    cancelling.await.expect("no panic").expect("cancels");

    let now = world.store.delivery(&acme(), delivery).await.expect("is there");
    assert_eq!(now.state, DeliveryState::Cancelled);
    let waiting = world.store.waiting().await.expect("tells");
    assert_eq!(waiting.iter().map(|one| one.subscription).collect::<Vec<_>>(), [other]);
}

/// Waits until so many statements wait for locks of PostgreSQL, or `ended`. On SQLite they
/// wait for the connection, where nobody sees them.
async fn until_blocked(store: &Store, count: i64, ended: impl Fn() -> bool) {
    let sql = "SELECT count(*) AS count FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while store.is_shared() && !ended() {
        let row = store.read().query_one_raw(store.statement(sql, vec![])).await.expect("tells");
        let blocked: i64 = row.expect("a row").try_get("", "count").expect("a number");
        if count <= blocked {
            return;
        }
    }
}

async fn the_waiting_of_an_ended_subscription_end_in_batches(store: Store) {
    let world = World::new(store).await;
    let made = world.subscribe(&acme()).await;
    let subscription = made.key;
    let mut events = Vec::new();
    for _ in 0..5 {
        events.push(world.publish(&Draft::parked(&[subscription])).await);
    }
    let disable = async |version| {
        let gone = DisableCause::Gone;
        let done = world.store.disable(&acme(), subscription, version, gone, None).await;
        assert_eq!(done.expect("answers"), version == made.version);
        world.store.subscription(&acme(), subscription).await.expect("is there").state
    };
    let before = disable(made.version - 1).await;
    assert_eq!(before, SubscriptionState::Active, "it was changed since");
    assert_eq!(disable(made.version).await, SubscriptionState::Disabled);
    let end = || world.store.end_waiting(subscription, 3);
    assert_eq!(end().await.expect("ends"), 3);
    assert_eq!(end().await.expect("ends"), 2);
    assert_eq!(end().await.expect("ends"), 0);
    for event in events {
        let key = DeliveryKey { event, subscription };
        let delivery = world.store.delivery(&acme(), key).await.expect("is there");
        assert_eq!(delivery.state, DeliveryState::Dead);
        assert_eq!(delivery.dead_reason, Some(DeadReason::SubscriptionDisabled));
    }
}

async fn the_waiting_of_a_subscription_that_takes_events_are_kept(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    world.publish(&Draft::parked(&[subscription])).await;
    assert_eq!(world.store.end_waiting(subscription, 9).await.expect("answers"), 0);
    assert_eq!(world.store.waiting().await.expect("tells").len(), 1);
}

async fn a_cancelled_delivery_does_not_come_back_when_it_is_spilled(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let event = world.publish(&Draft::to(&[subscription])).await;
    let delivery = DeliveryKey { event, subscription };
    world.store.cancel_delivery(&acme(), delivery, &entry()).await.expect("cancels");
    world.store.spill(world.fence, &[delivery]).await.expect("answers");
    let state = world.store.delivery(&acme(), delivery).await.expect("is there").state;
    assert_eq!(state, DeliveryState::Cancelled);
    assert_eq!(world.store.owned(world.fence).await.expect("tells"), []);
}

async fn a_settlement_sent_again_changes_nothing_that_came_after_it(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let event = world.publish(&Draft::to(&[subscription])).await;
    let delivery = DeliveryKey { event, subscription };
    let failed = || attempt(1, AttemptResult::HttpStatus);
    world.settle(delivery, failed(), Next::RetryIn(Duration::ZERO)).await;
    world.settle_due(subscription, AttemptResult::Succeeded, Next::Succeeded).await;
    world.settle(delivery, failed(), Next::RetryIn(Duration::ZERO)).await;
    let now = world.store.delivery(&acme(), delivery).await.expect("is there");
    assert_eq!((now.state, now.attempt_count), (DeliveryState::Succeeded, 2));
}

async fn a_replica_that_was_taken_over_recovers_nothing(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let row = world.row(&Draft::to(&[subscription]));
    world.commit(std::slice::from_ref(&row)).await.expect("commits");
    let dead = world.store.replicas().await.expect("tells")[0];
    world.store.take_over(&dead).await.expect("takes over");
    let recovered = world.store.recover_commit(world.fence, &[row], EventKey(world.key())).await;
    assert!(matches!(recovered, Err(StoreError::Fenced)));
}

/// Bytes of a payload beside which its attributes, sealed or not, weigh little.
const LARGE: u16 = 10_000;

fn large(subscription: SubscriptionKey) -> Draft {
    let text = format!("{:?}", "a".repeat(LARGE.into()));
    Draft { payload: Payload::Json(text.into()), ..Draft::parked(&[subscription]) }
}

async fn a_claim_loads_no_more_bytes_than_it_may(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    for _ in 0..4 {
        world.publish(&large(subscription)).await;
    }
    let most = u64::from(2 * LARGE + LARGE / 2);
    let claims = world.store.claim(world.fence, &[(subscription, 9)], most).await.expect("claims");
    assert_eq!(claims.len(), 2);
    assert_eq!(world.store.owned(world.fence).await.expect("tells").len(), 2);
    let claims = world.store.claim(world.fence, &[(subscription, 9)], 1).await.expect("claims");
    assert_eq!(claims.len(), 1, "one is claimed, however large");
}

async fn a_backlog_of_large_payloads_leaves_room_for_others(store: Store) {
    let world = World::new(store).await;
    let busy = world.subscribe(&acme()).await.key;
    let calm = world.subscribe(&acme()).await.key;
    for _ in 0..10 {
        world.publish(&large(busy)).await;
    }
    world.publish(&large(calm)).await;
    let most = u64::from(3 * LARGE + LARGE / 2);
    let claims = world.store.claim(world.fence, &[(busy, 9), (calm, 9)], most).await;
    let of = claims.expect("claims").iter().map(|claim| claim.subscription).collect::<Vec<_>>();
    assert_eq!(of, [busy, busy, calm], "oldest first");
    assert_eq!(world.store.owned(world.fence).await.expect("tells").len(), 3);
}

async fn an_attempt_of_before_a_cancellation_changes_nothing_of_the_retry(store: Store) {
    let world = World::new(store).await;
    let subscription = world.subscribe(&acme()).await.key;
    let event = world.publish(&Draft::parked(&[subscription])).await;
    let delivery = DeliveryKey { event, subscription };
    let wanted = [(subscription, 1)];
    let first = world.store.claim(world.fence, &wanted, u64::MAX).await.expect("claims");
    world.store.cancel_delivery(&acme(), delivery, &entry()).await.expect("cancels");
    world
        .store
        .retry_delivery(&acme(), delivery, None, &entry(), |_| Vec::new())
        .await
        .expect("again");
    let second = world.store.claim(world.fence, &wanted, u64::MAX).await.expect("claims");
    assert_ne!(first[0].number, second[0].number);
    let settle = async |claim: i32, number: u32, next: Next| {
        let attempt = Some(attempt(number, AttemptResult::Succeeded));
        let one =
            Settlement { claim, in_due: true, attempt, ..settlement(event, subscription, next) };
        world.store.settle(world.fence, &[one]).await.expect("settles");
    };
    settle(first[0].number, first[0].attempts + 1, Next::RetryIn(Duration::ZERO)).await;
    assert_eq!(world.store.owned(world.fence).await.expect("tells").len(), 1, "still the retry's");
    settle(second[0].number, second[0].attempts + 1, Next::Succeeded).await;
    let now = world.store.delivery(&acme(), delivery).await.expect("is there");
    assert_eq!((now.state, now.attempt_count), (DeliveryState::Succeeded, 2));
}

/// With a long backlog of one subscription, a claim reads only what it takes: the
/// plan is an index scan of `due_waiting` for each subscription, without a sort.
#[tokio::test]
async fn a_claim_does_not_scan_the_backlog_on_postgres() {
    super::on_postgres("claim_plan", async |store: Store| {
        let world = World::new(store).await;
        let fill = "INSERT INTO due (subscription_key, event_key, due_at, owner, claim, attempts,
                takeovers, last_chance)
            SELECT 1 + n % 3, n, n, 0, 0, 0, 0, false FROM generate_series(1, 50000) n";
        world.execute(fill, vec![]).await;
        world.execute("ANALYZE due", vec![]).await;
        let sql = "EXPLAIN SELECT d.* FROM unnest(ARRAY[1, 2]::int8[], ARRAY[5, 5]::int8[])
                wanted (subscription, rows)
            CROSS JOIN LATERAL (
                SELECT subscription_key, event_key FROM due
                WHERE owner = 0 AND subscription_key = wanted.subscription AND due_at <= 1000000
                ORDER BY due_at LIMIT wanted.rows FOR UPDATE SKIP LOCKED) d";
        let rows = world.store.write().query_all_raw(world.store.statement(sql, vec![])).await;
        let line = |row: &sea_orm::QueryResult| row.try_get_by_index::<String>(0).expect("text");
        let plan: Vec<String> = rows.expect("explains").iter().map(line).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("Index Scan using due_waiting"), "{plan}");
        assert!(!plan.contains("Sort"), "{plan}");
    })
    .await;
}

fn settlement(event: EventKey, subscription: SubscriptionKey, next: Next) -> Settlement {
    Settlement {
        delivery: DeliveryKey { event, subscription },
        organization: acme(),
        claim: 0,
        in_due: false,
        attempt: Some(attempt(1, AttemptResult::Succeeded)),
        attempts: 1,
        next,
        note: EndpointNote::default(),
    }
}
