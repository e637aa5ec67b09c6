//! Slots against naive lists of who holds what, under random traces.

use proptest::prelude::*;

use super::{InFlight, InFlightLimits, QueueSlots, QueueSlotsLimits, Start};
use crate::domain::id::{OrganizationId, SubscriptionKey};

/// Traces, unless `PROPTEST_CASES` says otherwise.
const TRACES: u32 = 2000;
const LIMITS: QueueSlotsLimits =
    QueueSlotsLimits { endpoint_rows: 5, endpoint_bytes: 60, replica_rows: 17, replica_bytes: 200 };
const ENDPOINTS: i64 = 5;

fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let asked = usual.cases != 256;
    ProptestConfig { cases: if asked { usual.cases } else { TRACES }, ..usual }
}

#[derive(Clone, Debug)]
enum Step {
    Take {
        endpoint: i64,
        bytes: usize,
    },
    /// Puts as many as are shown to be free, as a claim does.
    PutAll {
        endpoint: i64,
        bytes: usize,
    },
    GiveBack(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![0_usize..30, 0_usize..300];
    let step = prop_oneof![
        6 => (0..ENDPOINTS, bytes).prop_map(|(endpoint, bytes)| Step::Take { endpoint, bytes }),
        1 => (0..ENDPOINTS, 0_usize..20).prop_map(|(endpoint, bytes)| Step::PutAll { endpoint, bytes }),
        5 => any::<usize>().prop_map(Step::GiveBack),
    ];
    prop::collection::vec(step, 1..100)
}

/// Rows and bytes of one endpoint, or of all.
fn held(places: &[(i64, usize)], endpoint: Option<i64>) -> (usize, usize) {
    let of = |place: &&(i64, usize)| endpoint.is_none_or(|endpoint| endpoint == place.0);
    let found: Vec<_> = places.iter().filter(of).collect();
    (found.len(), found.iter().map(|place| place.1).sum())
}

fn organization(endpoint: i64) -> OrganizationId {
    OrganizationId::stored(if endpoint % 2 == 0 { "even" } else { "odd" })
}

/// What the organization of an endpoint may have more: of its three quarters, if there is
/// as much.
fn left(places: &[(i64, usize)], endpoint: i64) -> (usize, usize) {
    let own: Vec<_> = places.iter().copied().filter(|one| one.0 % 2 == endpoint % 2).collect();
    let (own, all) = (held(&own, None), held(places, None));
    let rows = (LIMITS.replica_rows / 4 * 3).saturating_sub(own.0);
    let bytes = (LIMITS.replica_bytes / 4 * 3).saturating_sub(own.1);
    let rows = rows.min(LIMITS.replica_rows - all.0);
    (rows, bytes.min(LIMITS.replica_bytes.saturating_sub(all.1)))
}

/// What one endpoint may have: its limit, and a quarter of what is left for its organization.
fn most(places: &[(i64, usize)], endpoint: i64) -> (usize, usize) {
    let (rows, bytes) = left(places, endpoint);
    (rows.div_ceil(4).min(LIMITS.endpoint_rows), bytes.div_ceil(4).min(LIMITS.endpoint_bytes))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn places_are_taken_and_given_back_as_in_a_list(steps in steps()) {
        let slots = QueueSlots::new(LIMITS);
        let mut places: Vec<(i64, usize)> = Vec::new();
        for step in steps {
            match step {
                Step::Take { endpoint, bytes } => {
                    let ((rows, used), most) = (held(&places, Some(endpoint)), most(&places, endpoint));
                    let fits = rows < most.0
                        && (rows == 0 || used + bytes <= most.1)
                        && bytes <= left(&places, endpoint).1;
                    prop_assert_eq!(slots.take(&organization(endpoint), SubscriptionKey(endpoint), bytes), fits);
                    places.extend(fits.then_some((endpoint, bytes)));
                }
                Step::PutAll { endpoint, bytes } => {
                    let free = slots.free(&organization(endpoint), SubscriptionKey(endpoint)).min(slots.free_in_all().0);
                    for _ in 0..free {
                        slots.put(&organization(endpoint), SubscriptionKey(endpoint), bytes);
                        places.push((endpoint, bytes));
                    }
                }
                Step::GiveBack(which) if !places.is_empty() => {
                    let (endpoint, bytes) = places.swap_remove(which % places.len());
                    slots.give_back(&organization(endpoint), SubscriptionKey(endpoint), bytes);
                }
                Step::GiveBack(_) => {}
            }
            let (rows, bytes) = held(&places, None);
            prop_assert_eq!(slots.waiting(), rows);
            prop_assert!(rows <= LIMITS.replica_rows);
            let left = (LIMITS.replica_rows - rows, LIMITS.replica_bytes.saturating_sub(bytes));
            prop_assert_eq!(slots.free_in_all(), left);
            for endpoint in 0..ENDPOINTS {
                let (rows, bytes) = held(&places, Some(endpoint));
                prop_assert!(rows <= LIMITS.endpoint_rows);
                let most = most(&places, endpoint);
                let free = if most.1 <= bytes { 0 } else { most.0.saturating_sub(rows) };
                prop_assert_eq!(slots.free(&organization(endpoint), SubscriptionKey(endpoint)), free);
            }
        }
        for (endpoint, bytes) in places {
            slots.give_back(&organization(endpoint), SubscriptionKey(endpoint), bytes);
        }
        prop_assert_eq!(slots.free_in_all(), (LIMITS.replica_rows, LIMITS.replica_bytes));
    }

    /// Permits in use are the requests under way, and all come back.
    #[test]
    fn permits_are_requests_under_way(
        steps in prop::collection::vec((any::<bool>(), 0_usize..3), 1..100),
        limits in (1_usize..5, 1_usize..8),
    ) {
        let organizations = ["north", "south", "west"].map(OrganizationId::stored);
        let limits = InFlightLimits { organization: limits.0, replica: limits.1 };
        let mut permits = InFlight::new(limits);
        let mut under_way: Vec<usize> = Vec::new();
        for (starts, which) in steps {
            let own = under_way.iter().filter(|one| **one == which).count();
            let has_room = own < limits.organization;
            prop_assert_eq!(permits.has_room(&organizations[which]), has_room);
            if starts {
                let expected = if under_way.len() == limits.replica {
                    Start::ReplicaFull
                } else if has_room {
                    Start::Started
                } else {
                    Start::OrganizationFull
                };
                prop_assert_eq!(permits.start(&organizations[which]), expected);
                under_way.extend((expected == Start::Started).then_some(which));
            } else if let Some(at) = under_way.iter().position(|one| *one == which) {
                under_way.swap_remove(at);
                permits.finish(&organizations[which]);
            }
            prop_assert_eq!(permits.count(), under_way.len());
        }
        for which in under_way {
            permits.finish(&organizations[which]);
        }
        prop_assert_eq!(permits.count(), 0);
        prop_assert!(organizations.iter().all(|one| permits.has_room(one)));
    }
}
