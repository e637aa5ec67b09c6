//! Whether the API tells what the ledger knows: every delivery of every organization.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hookward::grpc::pb;
use pb::delivery::State;

use crate::api::ORGANIZATIONS;
use crate::checker::must_get;
use crate::ledger::{Fate, Known};
use crate::world::World;

/// Every delivery is finished so long after the last fault.
const FINISHED_WITHIN: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Deliveries that are read one by one as well.
const SAMPLE: usize = 50;
/// Deliveries that are shown where something is wrong.
const SHOWN: usize = 6;

/// Waits until no delivery is open, and tells how long that took; notes it as broken when
/// some never end.
pub(crate) async fn finished(world: &World) -> Duration {
    let begin = Instant::now();
    loop {
        let mut open = Vec::new();
        for organization in ORGANIZATIONS {
            let filter = pb::ListDeliveriesRequest {
                organization_id: organization.to_owned(),
                states: vec![State::Pending.into(), State::InFlight.into()],
                ..pb::ListDeliveriesRequest::default()
            };
            open.extend(world.api.list(filter).await.unwrap_or_default());
        }
        if open.is_empty() {
            return begin.elapsed();
        }
        if FINISHED_WITHIN < begin.elapsed() {
            let some: Vec<_> = open.iter().take(5).map(|one| &one.id).collect();
            world.ledger.broken(format!("{} deliveries are still open: {some:?}", open.len()));
            return begin.elapsed();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Shows what the API tells of a few deliveries and what the ledger knows of them.
pub(crate) async fn explain(world: &World, deliveries: &[(usize, usize)]) {
    for (event, target) in deliveries.iter().take(SHOWN) {
        let (organization, event_id, lines) = {
            let book = world.ledger.book();
            let begin = book.events.first().map(|first| first.begun);
            let seconds = |at: Instant| {
                begin.map_or(0.0, |begin| at.saturating_duration_since(begin).as_secs_f64())
            };
            let all = book.requests.iter();
            let of = all.filter(|one| one.event == Some(*event) && one.target == *target);
            let lines = of.map(|one| {
                let (at, answered) = (seconds(one.at), one.answered.map(seconds));
                format!("at {at:.3} by {:?}: {} at {answered:.3?}", one.slot, one.status)
            });
            let lines: Vec<String> = lines.collect();
            (book.events[*event].organization, book.events[*event].id.clone(), lines)
        };
        let subscription_id = world.targets.all()[*target].state().id.clone();
        let organization_id = ORGANIZATIONS[organization].to_owned();
        let filter = pb::ListDeliveriesRequest {
            organization_id,
            event_id: event_id.clone(),
            subscription_id,
            ..pb::ListDeliveriesRequest::default()
        };
        let found = world.api.list(filter).await.unwrap_or_default();
        println!("  {event_id} to target {target}: requests {}", lines.join("; "));
        for delivery in found {
            for one in world.api.attempts(organization, &delivery.id).await {
                let took = one.duration.unwrap_or_default();
                println!(
                    "    attempt {}: {:?} {:?} from {:?} for {} ms {}",
                    one.number,
                    one.outcome(),
                    one.http_status,
                    one.start_time.map(|time| (time.seconds % 3600, time.nanos / 1_000_000)),
                    took.seconds * 1000 + i64::from(took.nanos / 1_000_000),
                    one.error_message,
                );
            }
        }
    }
}

/// Compares; gives how many deliveries there are.
pub(crate) async fn compare(world: &World, rng: &mut Rng) -> usize {
    let mut count = 0;
    for (number, organization) in ORGANIZATIONS.into_iter().enumerate() {
        let filter = pb::ListDeliveriesRequest {
            organization_id: organization.to_owned(),
            ..pb::ListDeliveriesRequest::default()
        };
        let Some(all) = world.api.list(filter).await else { continue };
        count += all.len();
        let mut wrongs = judge(world, number, &all);
        for _ in 0..SAMPLE.min(all.len()) {
            let one = &all[rng.usize(0..all.len())];
            if world.api.delivery(number, &one.id).await.as_ref() != Some(one) {
                wrongs.push(format!("{} reads otherwise than it is listed", one.id));
            }
        }
        if !wrongs.is_empty() {
            let some: Vec<_> = wrongs.iter().take(8).cloned().collect();
            let what = format!("the API disagrees {} times:", wrongs.len());
            world.ledger.broken(format!("{what}\n      {}", some.join("\n      ")));
        }
    }
    count
}

fn judge(world: &World, organization: usize, all: &[pb::Delivery]) -> Vec<String> {
    let mut wrongs = Vec::new();
    let targets = world.targets.all();
    let numbers: HashMap<String, usize> =
        targets.iter().map(|target| (target.state().id.clone(), target.number)).collect();
    let book = world.ledger.book();
    let events: HashMap<&str, usize> = book
        .events
        .iter()
        .enumerate()
        .filter(|(_, event)| event.organization == organization)
        .map(|(number, event)| (&*event.id, number))
        .collect();
    let mut succeeded: HashMap<(usize, usize), bool> = HashMap::new();
    for request in &book.requests {
        if let Some(event) = request.event {
            *succeeded.entry((request.target, event)).or_default() |= request.succeeded();
        }
    }
    let mut told = HashMap::new();
    for one in all {
        let (Some(target), Some(event)) =
            (numbers.get(&one.subscription_id), events.get(&*one.event_id))
        else {
            wrongs.push(format!("{} is of nothing that was published", one.id));
            continue;
        };
        let key = (*target, *event);
        if told.insert(key, one.state()).is_some() {
            wrongs.push(format!("{} is there twice", one.id));
        }
        let arrived = succeeded.get(&key).copied().unwrap_or_default();
        let deleted = targets[*target].state().leaving.is_some();
        let poison = book.events[*event].fate == Fate::NotSendable;
        let right = match one.state() {
            State::Succeeded => arrived,
            // A request under way at the deletion may have arrived all the same.
            State::Cancelled => deleted,
            State::Dead => poison,
            State::Pending | State::InFlight | State::Unspecified => false,
        };
        if !right {
            let (id, state) = (&one.event_id, one.state().as_str_name());
            let attempts = one.attempt_count;
            wrongs.push(format!(
                "{id} to target {target} is {state} after {attempts} attempts; arrived: {arrived}"
            ));
        }
    }
    for (number, event) in book.events.iter().enumerate() {
        if event.organization != organization || event.known != Known::Ok {
            continue;
        }
        for target in targets.iter().filter(|target| must_get(target, event)) {
            if !told.contains_key(&(target.number, number)) {
                wrongs.push(format!("{} has no delivery to target {}", event.id, target.number));
            }
        }
    }
    for ((target, event), _) in succeeded {
        let of_this = book.events[event].organization == organization;
        if of_this && !told.contains_key(&(target, event)) {
            let id = &book.events[event].id;
            wrongs.push(format!("{id} reached target {target} without a delivery"));
        }
    }
    wrongs
}
