//! The fair queues, told as stories and under random loads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::queue::{Queue, Turn};
use crate::domain::event::{Event, EventSummary, Payload, TraceContext};
use crate::domain::id::{EventKey, OrganizationId, SubscriptionKey};
use crate::domain::timestamp::Timestamp;
use crate::permits::InFlightLimits;
use crate::store::{Claim, Fence};

pub(super) fn claim(organization: &str, endpoint: i64, event: i64) -> Claim {
    let summary = EventSummary {
        key: EventKey(event),
        id: String::new(),
        organization: OrganizationId::stored(organization),
        account: None,
        event_type: "order_created".into(),
        occur_time: Timestamp(0),
        publish_time: Timestamp(0),
        expire_time: None,
        content_type: "application/json".into(),
        payload_bytes: 0,
        attributes: BTreeMap::new(),
        subject: String::new(),
        trace: TraceContext::default(),
        purge_time: None,
        publisher: "".into(),
    };
    Claim {
        event: Arc::new(Event { summary, payload: Payload::Json(Bytes::new()) }),
        subscription: SubscriptionKey(endpoint),
        fence: Fence { replica: 0, incarnation: 1 },
        number: 0,
        attempts: 0,
        takeovers: 0,
        last_chance: false,
        since: std::time::Instant::now(),
    }
}

pub(super) fn queue(organization: usize, replica: usize) -> Queue {
    Queue::new(InFlightLimits { organization, replica })
}

fn endpoints(queue: &mut Queue, count: usize) -> Vec<i64> {
    (0..count).map_while(|_| queue.next()).map(|turn| turn.claim.subscription.0).collect()
}

#[test]
fn raised_limits_count_for_all_that_waits_and_lowered_ones_for_what_comes() {
    let mut queue = queue(1, 100);
    for endpoint in 1..=4 {
        for event in 0..3 {
            queue.push(claim("clinic", endpoint, 10 * endpoint + event), 1);
        }
    }
    assert_eq!(endpoints(&mut queue, 9), [1]);
    queue.set_limits(InFlightLimits { organization: 3, replica: 100 });
    assert_eq!(endpoints(&mut queue, 9), [2, 3]);
    queue.set_limits(InFlightLimits { organization: 1, replica: 100 });
    for endpoint in [1, 2] {
        queue.finished(SubscriptionKey(endpoint), None);
        assert_eq!(endpoints(&mut queue, 9), [0; 0], "three and then two are under way");
    }
    queue.finished(SubscriptionKey(3), None);
    assert_eq!(endpoints(&mut queue, 9), [4]);
}

#[test]
fn endpoints_are_served_in_turn_however_long_their_queues() {
    let mut queue = queue(100, 100);
    for event in 0..50 {
        queue.push(claim("clinic", 1, event), 100);
    }
    queue.push(claim("clinic", 2, 90), 100);
    queue.push(claim("other", 3, 91), 100);
    assert_eq!(endpoints(&mut queue, 5), [1, 2, 3, 1, 1]);
}

#[test]
fn an_endpoint_holds_no_more_than_its_own_permits() {
    let mut queue = queue(100, 100);
    for event in 0..5 {
        queue.push(claim("clinic", 1, event), 2);
    }
    assert_eq!(endpoints(&mut queue, 10), [1, 1]);
    queue.finished(SubscriptionKey(1), None);
    assert_eq!(endpoints(&mut queue, 10), [1]);
}

#[test]
fn a_full_organization_leaves_the_others_alone_and_goes_on_when_it_can() {
    let mut queue = queue(1, 100);
    queue.push(claim("clinic", 1, 1), 9);
    queue.push(claim("clinic", 2, 2), 9);
    queue.push(claim("other", 3, 3), 9);
    assert_eq!(endpoints(&mut queue, 10), [1, 3]);
    queue.finished(SubscriptionKey(3), None);
    assert_eq!(endpoints(&mut queue, 10), [0; 0], "another organization's permit is no use");
    queue.finished(SubscriptionKey(1), None);
    assert_eq!(endpoints(&mut queue, 10), [2]);
}

#[test]
fn whoever_waits_for_a_permit_of_its_organization_keeps_its_place() {
    let mut queue = queue(1, 100);
    queue.push(claim("clinic", 1, 1), 9);
    assert_eq!(endpoints(&mut queue, 10), [1]);
    queue.push(claim("clinic", 2, 2), 9);
    queue.push(claim("clinic", 3, 3), 9);
    assert_eq!(endpoints(&mut queue, 10), [0; 0]);
    queue.push(claim("clinic", 4, 4), 9);
    queue.finished(SubscriptionKey(1), None);
    assert_eq!(endpoints(&mut queue, 10), [4], "it stood there when the permit came");
    queue.finished(SubscriptionKey(4), None);
    assert_eq!(endpoints(&mut queue, 10), [2]);
}

#[test]
fn a_lowered_limit_leaves_the_permit_to_the_next_endpoint() {
    let mut queue = queue(2, 100);
    for event in 0..3 {
        queue.push(claim("clinic", 1, event), 3);
    }
    assert_eq!(endpoints(&mut queue, 10), [1, 1]);
    queue.push(claim("clinic", 2, 9), 3);
    assert_eq!(endpoints(&mut queue, 10), [0; 0]);
    queue.finished(SubscriptionKey(1), Some(1));
    assert_eq!(endpoints(&mut queue, 10), [2]);
}

#[test]
fn a_raised_limit_lets_more_than_the_next_one_go() {
    let mut queue = queue(100, 100);
    for event in 0..9 {
        queue.push(claim("clinic", 1, event), 1);
    }
    assert_eq!(endpoints(&mut queue, 10), [1]);
    assert!(!queue.finished(SubscriptionKey(1), None));
    assert_eq!(endpoints(&mut queue, 10), [1]);
    assert!(queue.finished(SubscriptionKey(1), Some(4)), "whoever asks must ask for more");
    assert_eq!(endpoints(&mut queue, 10), [1, 1, 1, 1]);
}

#[test]
fn what_is_drained_is_not_served() {
    let mut queue = queue(10, 1);
    for event in 0..3 {
        queue.push(claim("clinic", event, event), 1);
    }
    assert_eq!(endpoints(&mut queue, 10).len(), 1);
    assert_eq!(queue.drain().len(), 2);
    assert_eq!((queue.waiting(), queue.in_flight()), (0, 1));
    queue.finished(SubscriptionKey(0), None);
    assert!(queue.next().is_none());
}

#[test]
fn who_comes_when_an_endpoint_has_its_requests_under_way_has_waited_for_it() {
    let mut queue = queue(1, 10);
    for event in 0..3 {
        queue.push(claim("clinic", 1, event), 2);
    }
    queue.push(claim("clinic", 2, 3), 2);
    let mut waited = Vec::new();
    while let Some(Turn { claim, waited: one }) = queue.next() {
        waited.push((claim.event.summary.key.0, one));
        queue.finished(claim.subscription, None);
    }
    // The last one waited too, for a permit of its organization: that is no endpoint's doing.
    waited.sort_unstable();
    assert_eq!(waited, [(0, false), (1, false), (2, true), (3, false)]);
}

/// A step of a random load.
#[derive(Clone, Debug)]
enum Step {
    Push {
        endpoint: i64,
    },
    Start,
    /// The oldest request of those under way ends.
    Finish,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_i64..6).prop_map(|endpoint| Step::Push { endpoint }),
        Just(Step::Start),
        Just(Step::Finish),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// No permit is lost or invented, no limit is broken, nothing is served twice, and
    /// whatever is pushed is served in the end, in its endpoint's order.
    #[test]
    fn everything_is_served_once_in_order_within_the_limits(steps in steps()) {
        let organization = |endpoint: i64| ["north", "south"][usize::from(endpoint % 2 == 0)];
        let mut queue = queue(3, 4);
        let mut under_way: Vec<i64> = Vec::new();
        let mut served: HashMap<i64, Vec<i64>> = HashMap::new();
        let mut pushed = 0_i64;
        let finish: Vec<Step> =
            std::iter::repeat_n([Step::Start, Step::Finish], 400).flatten().collect();
        for step in steps.into_iter().chain(finish) {
            match step {
                Step::Push { endpoint } => {
                    queue.push(claim(organization(endpoint), endpoint, pushed), 2);
                    pushed += 1;
                }
                Step::Start => if let Some(Turn { claim, .. }) = queue.next() {
                    let endpoint = claim.subscription.0;
                    under_way.push(endpoint);
                    served.entry(endpoint).or_default().push(claim.event.summary.key.0);
                }
                Step::Finish => if !under_way.is_empty() {
                    queue.finished(SubscriptionKey(under_way.remove(0)), None);
                }
            }
            prop_assert_eq!(queue.in_flight(), under_way.len());
            prop_assert!(under_way.len() <= 4);
            for side in [0, 1] {
                prop_assert!(under_way.iter().filter(|one| *one % 2 == side).count() <= 3);
            }
            for endpoint in 0..6 {
                prop_assert!(under_way.iter().filter(|one| **one == endpoint).count() <= 2);
            }
        }
        let all: usize = served.values().map(Vec::len).sum();
        prop_assert_eq!(i64::try_from(all), Ok(pushed));
        prop_assert_eq!(queue.waiting(), 0);
        prop_assert!(served.values().all(|events| events.is_sorted()));
    }
}
