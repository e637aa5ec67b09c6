//! The fair queues against a naive list of everything, under random traces.

use std::collections::HashMap;

use proptest::prelude::*;

use super::queue::{Queue, Turn};
use super::queue_tests::{claim, queue};
use crate::domain::id::SubscriptionKey;

const ENDPOINTS: i64 = 6;
/// Permits of an organization and of all, in the traces.
const ORGANIZATION: usize = 3;
const REPLICA: usize = 5;
/// How often an endpoint that could be served is passed by the same other one, at most;
/// and an organization by an endpoint of another.
const PASSES: usize = 5;
/// Traces, unless `PROPTEST_CASES` says otherwise.
const TRACES: u32 = 3000;

#[derive(Clone, Copy, Debug)]
enum Step {
    Push {
        endpoint: i64,
        in_flight_max: u32,
    },
    Next,
    /// One of the requests under way ends; its subscription may have another limit now.
    Finish {
        which: usize,
        in_flight_max: Option<u32>,
    },
    Drain,
}

fn traces() -> impl Strategy<Value = Vec<Step>> {
    let push = (0..ENDPOINTS, 0_u32..4)
        .prop_map(|(endpoint, in_flight_max)| Step::Push { endpoint, in_flight_max });
    let finish = (any::<usize>(), prop::option::of(0_u32..4))
        .prop_map(|(which, in_flight_max)| Step::Finish { which, in_flight_max });
    let step = prop_oneof![8 => push, 8 => Just(Step::Next), 6 => finish, 1 => Just(Step::Drain)];
    prop::collection::vec(step, 1..120)
}

fn organization(endpoint: i64) -> &'static str {
    ["north", "south"][usize::from(endpoint % 2 == 0)]
}

/// Everything, in lists.
#[derive(Default)]
struct Naive {
    /// Endpoint and event, oldest first.
    waiting: Vec<(i64, i64)>,
    under_way: Vec<i64>,
    in_flight_max: HashMap<i64, usize>,
    /// How often `.1` was served while `.0`, of the same organization, could have been.
    passed: HashMap<(i64, i64), usize>,
    /// How often `.1` was served since an endpoint of the organization `.0` was, while one
    /// of those could have been.
    passed_all: HashMap<(&'static str, i64), usize>,
}

impl Naive {
    fn count(&self, of: impl Fn(i64) -> bool) -> usize {
        self.under_way.iter().filter(|endpoint| of(**endpoint)).count()
    }

    /// Whether it has work, and a permit of its own.
    fn is_ready(&self, endpoint: i64) -> bool {
        let own = self.in_flight_max.get(&endpoint).copied().unwrap_or_default();
        self.waiting.iter().any(|(waiting, _)| *waiting == endpoint)
            && self.count(|one| one == endpoint) < own
    }

    /// Whether there are permits of its organization and of the process besides.
    fn may_start(&self, endpoint: i64) -> bool {
        self.is_ready(endpoint)
            && self.count(|one| organization(one) == organization(endpoint)) < ORGANIZATION
            && self.under_way.len() < REPLICA
    }

    fn limit(&mut self, endpoint: i64, in_flight_max: u32) {
        self.in_flight_max.insert(endpoint, usize::try_from(in_flight_max.max(1)).expect("small"));
    }

    /// Notes who was served while others could have been.
    fn serve(&mut self, endpoint: i64, event: i64) -> Result<(), TestCaseError> {
        prop_assert!(self.may_start(endpoint), "{endpoint} is served without a permit");
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == endpoint);
        let oldest = self.waiting.remove(at.expect("it may start"));
        prop_assert_eq!(oldest, (endpoint, event), "the oldest of its endpoint");
        let own = organization(endpoint);
        let could: Vec<i64> = (0..ENDPOINTS).filter(|other| self.may_start(*other)).collect();
        for other in could.iter().filter(|other| organization(**other) == own) {
            *self.passed.entry((*other, endpoint)).or_default() += 1;
        }
        if let Some(other) = could.iter().find(|other| organization(**other) != own) {
            *self.passed_all.entry((organization(*other), endpoint)).or_default() += 1;
        }
        self.passed.retain(|(passed, _), _| *passed != endpoint);
        self.passed_all.retain(|(passed, _), _| *passed != own);
        self.under_way.push(endpoint);
        Ok(())
    }
}

/// One step on both.
fn step(queue: &mut Queue, naive: &mut Naive, step: Step, event: i64) -> Result<(), TestCaseError> {
    match step {
        Step::Push { endpoint, in_flight_max } => {
            queue.push(claim(organization(endpoint), endpoint, event), in_flight_max);
            naive.waiting.push((endpoint, event));
            naive.limit(endpoint, in_flight_max);
        }
        Step::Next => {
            if let Some(Turn { claim, .. }) = queue.next() {
                naive.serve(claim.subscription.0, claim.event.summary.key.0)?;
            } else {
                let idle = (0..ENDPOINTS).find(|endpoint| naive.may_start(*endpoint));
                prop_assert_eq!(idle, None, "has work and permits, and is not served");
            }
        }
        Step::Finish { which, in_flight_max } if !naive.under_way.is_empty() => {
            let endpoint = naive.under_way.remove(which % naive.under_way.len());
            queue.finished(SubscriptionKey(endpoint), in_flight_max);
            if let Some(in_flight_max) = in_flight_max {
                naive.limit(endpoint, in_flight_max);
            }
        }
        Step::Finish { .. } => {}
        Step::Drain => {
            let key =
                |claim: crate::store::Claim| (claim.subscription.0, claim.event.summary.key.0);
            let mut drained: Vec<_> = queue.drain().into_iter().map(key).collect();
            let mut expected = std::mem::take(&mut naive.waiting);
            drained.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(drained, expected);
            naive.passed.clear();
            naive.passed_all.clear();
        }
    }
    // Who has nothing to send, or may not, waits for nobody.
    let ready: Vec<i64> = (0..ENDPOINTS).filter(|endpoint| naive.is_ready(*endpoint)).collect();
    naive.passed.retain(|(passed, _), _| ready.contains(passed));
    prop_assert_eq!(queue.waiting(), naive.waiting.len());
    prop_assert_eq!(queue.in_flight(), naive.under_way.len(), "permits are attempts under way");
    Ok(())
}

fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let asked = usual.cases != 256;
    ProptestConfig { cases: if asked { usual.cases } else { TRACES }, ..usual }
}

proptest! {
    #![proptest_config(config())]

    /// Whoever has work and permits is served; nobody is passed by another more than a few
    /// times; permits in use are attempts under way, and all come back.
    #[test]
    fn every_trace_is_served_as_a_list_would_be(steps in traces()) {
        let mut queue = queue(ORGANIZATION, REPLICA);
        let mut naive = Naive::default();
        for (one, event) in steps.into_iter().zip(0..) {
            step(&mut queue, &mut naive, one, event)?;
            let passes = naive.passed.values().chain(naive.passed_all.values());
            let most = passes.max().copied().unwrap_or_default();
            prop_assert!(most <= PASSES, "{:?} {:?}", naive.passed, naive.passed_all);
        }
        while 0 < queue.in_flight() + queue.waiting() {
            step(&mut queue, &mut naive, Step::Next, 0)?;
            step(&mut queue, &mut naive, Step::Finish { which: 0, in_flight_max: None }, 0)?;
        }
        prop_assert!(naive.waiting.is_empty() && naive.under_way.is_empty());
    }
}
