//! Asks endpoints whether they want events, where their profile demands it, before they
//! get any.
//!
//! Each endpoint is asked by one replica at a time: whoever claims the check. Nothing is
//! open in the database meanwhile. What comes of it is recorded under the claim and seen by
//! all replicas through the routing clock; then what was held is sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::domain::id::{OrganizationId, SubscriptionKey};
use crate::domain::ownership::{
    Asking, Check, CheckEnd, CheckResult, Finding, OwnershipRule, OwnershipState, lasts,
};
use crate::domain::profile::Profile;
use crate::egress::{Inquiry, Target};
use crate::routing::Route;
use crate::store::OwnershipClaim;

/// How often somebody to ask is looked for.
const LOOK: Duration = Duration::from_millis(250);
/// Most checks under way at once.
const CHECKS_MAX: usize = 64;
/// The same of one organization: its silent endpoints hold up its own checks only.
const CHECKS_PER_ORGANIZATION_MAX: usize = 8;
/// How long a check is left alone whose claim was refused: another replica is at it.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// The checks of this process.
#[derive(Default)]
struct Checks {
    tasks: JoinSet<Ended>,
    /// Whose endpoint each of them asks.
    under_way: HashMap<Id, (SubscriptionKey, OrganizationId)>,
    /// Not to be tried before.
    refused: HashMap<SubscriptionKey, Instant>,
    /// How often in a row somebody could not be asked by a fault of this side.
    put_offs: HashMap<SubscriptionKey, u32>,
    /// Where the next look begins, so that nobody waits for ever behind others.
    turn: usize,
}

/// How the check of an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It had no claim: another replica is at it.
    Refused,
    /// It could not ask, by a fault of this side.
    PutOff,
    /// Otherwise.
    Done,
}

/// Asks whoever is due, until `stop`; then the checks under way are given up.
pub(super) async fn run(parts: &Parts, stop: CancellationToken) {
    let mut rhythm = tokio::time::interval(LOOK);
    rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut checks = Checks::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = checks.tasks.join_next_with_id() => checks.ended(ended),
            _ = rhythm.tick() => checks.begin(parts, &stop),
        }
    }
    while checks.tasks.join_next().await.is_some() {}
}

impl Checks {
    fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        // One that panicked keeps its claim until it lapses.
        let (id, ended) = ended.unwrap_or_else(|error| (error.id(), Ended::Refused));
        let Some((key, _)) = self.under_way.remove(&id) else { return };
        match ended {
            Ended::Refused => {
                self.refused.insert(key, Instant::now() + REFUSED_PAUSE);
            }
            Ended::PutOff => {
                let count = self.put_offs.entry(key).or_default();
                *count = count.saturating_add(1);
            }
            Ended::Done => {
                self.put_offs.remove(&key);
            }
        }
    }

    /// Starts as many checks as there is room for.
    fn begin(&mut self, parts: &Parts, stop: &CancellationToken) {
        let now = Instant::now();
        self.refused.retain(|_, until| now < *until);
        self.put_offs.retain(|key, _| parts.routing.route(*key).is_some());
        if !is_certain(parts) {
            return;
        }
        let mut due = self.due(parts);
        let turn = self.turn.checked_rem(due.len()).unwrap_or_default();
        due.rotate_left(turn);
        for route in due {
            if CHECKS_MAX <= self.under_way.len() {
                return;
            }
            self.turn = self.turn.wrapping_add(1);
            let organization = &route.subscription.organization;
            let same = self.under_way.values().filter(|(_, other)| other == organization);
            if CHECKS_PER_ORGANIZATION_MAX <= same.count() {
                continue;
            }
            let whose = (route.key(), organization.clone());
            let put_offs = self.put_offs.get(&route.key()).copied().unwrap_or_default();
            let task = self.tasks.spawn(check(parts.clone(), route, put_offs, stop.clone()));
            self.under_way.insert(task.id(), whose);
        }
    }

    /// The subscriptions whose endpoints are to be asked now, by ascending key.
    fn due(&self, parts: &Parts) -> Vec<Arc<Route>> {
        let now = parts.lease.now();
        let is_free = |key: SubscriptionKey| {
            !self.refused.contains_key(&key)
                && self.under_way.values().all(|(under_way, _)| *under_way != key)
        };
        let table = parts.routing.table();
        let due = table.unproven().filter(|route| route.is_due_to_ask(now));
        due.filter(|route| is_free(route.key())).cloned().collect()
    }
}

/// Whether this process knows of every pause and change that was answered a second ago.
fn is_certain(parts: &Parts) -> bool {
    parts.lease.is_trusted() && parts.routing.is_fresh()
}

/// Checks one endpoint, after so many times that were put off.
async fn check(parts: Parts, route: Arc<Route>, put_offs: u32, stop: CancellationToken) -> Ended {
    let (Some(asked), Some(question)) = (route.to_ask(), route.question()) else {
        return Ended::Done;
    };
    let lasts = lasts(route.subscription.spec.attempt_timeout);
    let fence = parts.lease.fence();
    let claim = match parts.store.claim_ownership(fence, route.key(), asked, lasts).await {
        Ok(Some(claim)) => claim,
        Ok(None) => return Ended::Refused,
        Err(error) => {
            tracing::debug!(%error, "cannot claim the check of an endpoint");
            return Ended::Refused;
        }
    };
    // The claim may have taken a while: a pause or another URL since then counts.
    let current = parts.routing.route(route.key());
    let wanted = current.is_some_and(|route| route.to_ask() == Some(asked));
    if !wanted || !is_certain(&parts) {
        give_back(&parts, claim).await;
        return Ended::Done;
    }
    let finding = tokio::select! {
        biased;
        () = stop.cancelled() => {
            give_back(&parts, claim).await;
            return Ended::Done;
        }
        finding = ask(&parts, &route, question, put_offs) => finding,
    };
    let ended = if finding.put_off.is_some() { Ended::PutOff } else { Ended::Done };
    settle(&parts, claim, finding).await;
    ended
}

/// Asks the endpoint. Cannot fail: whatever goes wrong is a finding.
async fn ask(
    parts: &Parts,
    route: &Route,
    (profile, rule, target): (&Profile, &OwnershipRule, &Arc<Target>),
    put_offs: u32,
) -> Finding {
    let now = parts.lease.now();
    let subscription_id = parts.store.ids().subscription(route.key());
    let keys = route.signing_keys(now);
    let asking = Asking {
        profile,
        subscription: &route.subscription.spec,
        subscription_id: &subscription_id,
        keys: &keys,
        seal_key: parts.store.page_key(),
        put_offs,
        now,
    };
    let check = match Check::new(rule, &asking) {
        Ok(check) => check,
        Err(why) => return Finding::not_sent(why),
    };
    let inquiry = Inquiry {
        target: Arc::clone(target),
        method: check.method.clone(),
        headers: check.headers.clone(),
        body: check.body.clone(),
        timeout: route.subscription.spec.attempt_timeout,
    };
    let reply = parts.egress.inquire(inquiry).await;
    let why = (reply.fault, reply.detail);
    check.judge(&reply.outcome, &reply.headers, why, parts.lease.now())
}

async fn settle(parts: &Parts, claim: OwnershipClaim, finding: Finding) {
    let result = finding.result;
    parts.metrics.ownership_check(result);
    let end = CheckEnd::of(finding, claim.failures, fastrand::f64());
    match parts.store.settle_ownership(claim, &end).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::debug!("the check of an endpoint was asked for anew, or came too late");
            return;
        }
        Err(error) => {
            tracing::debug!(%error, "cannot record a check; the endpoint is asked again");
            return;
        }
    }
    report(parts, claim, &end);
    if let Err(error) = parts.routing.refresh().await {
        tracing::debug!(%error, "the next poll sees the check");
    }
    if result == CheckResult::Proven {
        parts.due.notify_one();
    }
}

fn report(parts: &Parts, claim: OwnershipClaim, end: &CheckEnd) {
    let subscription = parts.store.ids().subscription(claim.subscription);
    match end.state {
        OwnershipState::Pending => {
            tracing::debug!(subscription, "an endpoint has not consented; it is asked again");
        }
        OwnershipState::Proven => {
            tracing::info!(subscription, "an endpoint has consented; its events are sent");
        }
        OwnershipState::Failed => {
            tracing::info!(
                subscription,
                failures = end.failures,
                "an endpoint does not consent; its events are held until it is asked anew"
            );
        }
    }
}

async fn give_back(parts: &Parts, claim: OwnershipClaim) {
    if let Err(error) = parts.store.give_back_ownership(claim).await {
        tracing::debug!(%error, "cannot give a check back; it lapses");
    }
}
