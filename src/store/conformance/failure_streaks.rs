//! Endpoints that fail: from the first failure to a success, a change, or the end.

use std::time::Duration;

use super::on_both_engines;
use super::world::{Draft, World, acme, attempt};
use crate::domain::attempt::{Attempt, AttemptResult, Fault};
use crate::domain::delivery::DeadReason;
use crate::domain::failure_streak::{Mark, Rule, Stage};
use crate::domain::id::{DeliveryKey, SubscriptionKey};
use crate::domain::subscription::{Subscription, SubscriptionState};
use crate::domain::timestamp::micros;
use crate::store::{
    DisableCause, EndpointNote, FailingEndpoint, HEAD_START, Next, Settlement, Store,
};

on_both_engines! {
    a_streak_begins_with_a_failure_counts_and_ends_with_a_success,
    what_is_settled_twice_counts_once,
    a_delivery_that_failed_by_our_own_fault_too_is_no_volume,
    another_version_of_the_subscription_starts_anew,
    time_goes_on_while_somebody_sends_and_no_longer,
    a_warning_is_noted_once_for_each_stage,
    a_subscription_is_disabled_when_its_streak_is_still_beyond_the_rule,
    a_success_in_a_batch_outweighs_its_failures,
}

const DEAD: Next = Next::Dead(DeadReason::AttemptsExhausted);
const LATER: Next = Next::RetryIn(Duration::from_hours(1));
const DAYS: Duration = Duration::from_hours(5 * 24);

/// A settlement of a new event's first attempt, by which its endpoint is marked.
async fn marked(world: &World, of: &Subscription, mark: Mark, next: Next) -> Settlement {
    let event = world.publish(&Draft::to(&[of.key])).await;
    let result =
        if next == Next::Succeeded { AttemptResult::Succeeded } else { AttemptResult::HttpStatus };
    Settlement {
        delivery: DeliveryKey { event, subscription: of.key },
        organization: acme(),
        claim: 0,
        in_due: false,
        attempt: Some(attempt(1, result)),
        attempts: 1,
        next,
        note: EndpointNote { mark, version: of.version, audience: None },
    }
}

async fn settle(world: &World, of: &Subscription, mark: Mark, next: Next) {
    let one = marked(world, of, mark, next).await;
    world.store.settle(world.fence, &[one]).await.expect("settles");
}

/// The one endpoint that fails, if one does.
async fn failing(world: &World) -> Option<FailingEndpoint> {
    let mut all = world.store.failing_endpoints().await.expect("tells");
    assert!(all.len() <= 1, "{all:?}");
    all.pop()
}

async fn pass(world: &World, time: Duration) {
    let sql = "UPDATE sending_clock SET micros = micros + $1";
    world.execute(sql, vec![micros(time).into()]).await;
}

async fn a_streak_begins_with_a_failure_counts_and_ends_with_a_success(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    settle(&world, &of, Mark::Nothing, Next::Succeeded).await;
    assert_eq!(failing(&world).await, None);
    settle(&world, &of, Mark::Failure, LATER).await;
    let first = failing(&world).await.expect("it has begun");
    assert_eq!((first.subscription, first.version), (of.key, of.version));
    assert_eq!((first.streak.exhausted, first.streak.told), (0, 0));
    for expected in 1..4 {
        settle(&world, &of, Mark::Exhausted, DEAD).await;
        let streak = failing(&world).await.expect("it goes on").streak;
        assert_eq!(streak.exhausted, expected);
        assert_eq!(streak.begin_time, first.streak.begin_time);
        assert_eq!(streak.failing, Duration::ZERO, "the head start");
    }
    settle(&world, &of, Mark::Success, Next::Succeeded).await;
    assert_eq!(failing(&world).await, None);
}

async fn what_is_settled_twice_counts_once(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    let batch = [
        marked(&world, &of, Mark::Exhausted, DEAD).await,
        marked(&world, &of, Mark::Exhausted, DEAD).await,
    ];
    for _ in 0..3 {
        world.store.settle(world.fence, &batch).await.expect("settles");
        assert_eq!(failing(&world).await.expect("fails").streak.exhausted, 2);
    }
}

async fn a_delivery_that_failed_by_our_own_fault_too_is_no_volume(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    let results = [
        (AttemptResult::NotSent, Fault::Receiver),
        (AttemptResult::BlockedAddress, Fault::Receiver),
        (AttemptResult::DnsError, Fault::Ours),
        (AttemptResult::Timeout, Fault::Ours),
    ];
    for ours in results {
        let mut first = marked(&world, &of, Mark::Nothing, Next::RetryIn(Duration::ZERO)).await;
        first.attempt = Some(Attempt { fault: ours.1, ..attempt(1, ours.0) });
        world.store.settle(world.fence, &[first]).await.expect("settles");
        let claims = world.store.claim(world.fence, &[(of.key, 1)], u64::MAX).await;
        let claim = claims.expect("claims").remove(0);
        let last = Settlement {
            delivery: claim.delivery(),
            organization: acme(),
            claim: claim.number,
            in_due: true,
            attempt: Some(attempt(2, AttemptResult::HttpStatus)),
            attempts: 2,
            next: DEAD,
            note: EndpointNote { mark: Mark::Exhausted, version: of.version, audience: None },
        };
        world.store.settle(world.fence, &[last]).await.expect("settles");
        let streak = failing(&world).await.expect("the last attempt failed").streak;
        assert_eq!(streak.exhausted, 0, "{ours:?}");
    }
}

async fn another_version_of_the_subscription_starts_anew(store: Store) {
    let world = World::new(store).await;
    let before = world.subscribe(&acme()).await;
    let after = Subscription { version: before.version + 1, ..before.clone() };
    settle(&world, &before, Mark::Exhausted, DEAD).await;
    settle(&world, &before, Mark::Exhausted, DEAD).await;
    settle(&world, &after, Mark::Exhausted, DEAD).await;
    let anew = failing(&world).await.expect("fails");
    assert_eq!((anew.version, anew.streak.exhausted), (after.version, 1));
    settle(&world, &before, Mark::Exhausted, DEAD).await;
    settle(&world, &before, Mark::Success, Next::Succeeded).await;
    assert_eq!(failing(&world).await, Some(anew), "what is late says nothing of it");
    let forget = async |version| {
        world.store.forget_streaks(&[(before.key, version)]).await.expect("forgets");
    };
    forget(before.version).await;
    assert_eq!(failing(&world).await, Some(anew));
    forget(after.version).await;
    assert_eq!(failing(&world).await, None);
}

async fn time_goes_on_while_somebody_sends_and_no_longer(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    world.store.keep_sending_clock().await.expect("sets it");
    settle(&world, &of, Mark::Failure, LATER).await;
    pass(&world, DAYS + HEAD_START).await;
    settle(&world, &of, Mark::Failure, LATER).await;
    let streak = async || failing(&world).await.expect("fails").streak;
    assert_eq!(streak().await.failing, Duration::ZERO, "nothing was exhausted");
    settle(&world, &of, Mark::Exhausted, DEAD).await;
    let so_far = streak().await.failing;
    assert!((DAYS..DAYS + Duration::from_secs(30)).contains(&so_far), "{so_far:?}");
    // Nobody has set the clock for a day: nobody has sent.
    let day = micros(Duration::from_hours(24));
    let sql = "UPDATE sending_clock SET looked_at = looked_at - $1";
    world.execute(sql, vec![day.into()]).await;
    for _ in 0..2 {
        settle(&world, &of, Mark::Exhausted, DEAD).await;
        let now = streak().await.failing;
        assert!((so_far..so_far + Duration::from_mins(1)).contains(&now), "{now:?}");
        world.store.keep_sending_clock().await.expect("sets it");
    }
    // Nor does it go back with the database's.
    let sql = "UPDATE sending_clock SET looked_at = looked_at + $1";
    world.execute(sql, vec![day.into()]).await;
    settle(&world, &of, Mark::Exhausted, DEAD).await;
    assert!(so_far <= streak().await.failing);
}

async fn a_warning_is_noted_once_for_each_stage(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    settle(&world, &of, Mark::Exhausted, DEAD).await;
    let one = failing(&world).await.expect("fails");
    let warn = async |stage| world.store.warn(&acme(), &one, stage, None).await.expect("answers");
    assert!(warn(Stage::Half).await);
    assert!(!warn(Stage::Half).await, "another replica was first");
    assert!(warn(Stage::ThreeQuarters).await);
    assert!(!warn(Stage::Half).await);
    assert_eq!(failing(&world).await.expect("fails").streak.told, 75);
    settle(&world, &of, Mark::Success, Next::Succeeded).await;
    assert!(!warn(Stage::ThreeQuarters).await, "it works again");
}

async fn a_subscription_is_disabled_when_its_streak_is_still_beyond_the_rule(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    let rule = Rule { after: DAYS, exhausted: 2 };
    let disable = async |key: SubscriptionKey, version| {
        let cause = DisableCause::Failing(rule);
        world.store.disable(&acme(), key, version, cause, None).await.expect("answers")
    };
    assert!(!disable(of.key, of.version).await, "it does not fail");
    settle(&world, &of, Mark::Exhausted, DEAD).await;
    pass(&world, DAYS + HEAD_START).await;
    settle(&world, &of, Mark::Success, Next::Succeeded).await;
    settle(&world, &of, Mark::Exhausted, DEAD).await;
    settle(&world, &of, Mark::Exhausted, DEAD).await;
    assert!(!disable(of.key, of.version).await, "not for so long since the success");
    pass(&world, DAYS + HEAD_START).await;
    settle(&world, &of, Mark::Exhausted, DEAD).await;
    assert!(!disable(of.key, of.version - 1).await, "it was changed since");
    assert!(disable(of.key, of.version).await);
    let now = world.store.subscription(&acme(), of.key).await.expect("is there");
    assert_eq!(now.state, SubscriptionState::Disabled);
    let why = "no delivery succeeded for 5 days, and 3 were given up after their last attempt";
    assert_eq!(now.state_reason, why);
    assert!(of.version < now.version, "routing hears of it");
    assert_eq!(now.spec, of.spec);
    assert_eq!(failing(&world).await, None, "what follows starts anew");
    assert!(!disable(of.key, now.version).await, "once");
}

async fn a_success_in_a_batch_outweighs_its_failures(store: Store) {
    let world = World::new(store).await;
    let of = world.subscribe(&acme()).await;
    settle(&world, &of, Mark::Failure, LATER).await;
    let batch = [
        marked(&world, &of, Mark::Exhausted, DEAD).await,
        marked(&world, &of, Mark::Success, Next::Succeeded).await,
        marked(&world, &of, Mark::Failure, LATER).await,
    ];
    world.store.settle(world.fence, &batch).await.expect("settles");
    assert_eq!(failing(&world).await, None);
}
