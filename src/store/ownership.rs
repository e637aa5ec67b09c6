//! Checks of endpoints that must consent before the first event: claimed by one replica at
//! a time, settled under the claim, asked for anew.
//!
//! A claim is a lease of its own by the database's clock, as long as the check may take:
//! no transaction is open while the endpoint is asked, and who dies or stalls with a claim
//! loses it without anybody's help. What is settled raises the routing clock, so that
//! every replica sees it; the subscription and its etag stay as they are.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::engine::column;
use super::link::Transaction;
use super::subscription::Tick;
use super::{Fence, Store, StoreError};
use crate::domain::id::SubscriptionKey;
use crate::domain::ownership::{CheckEnd, Fingerprint, GAP};
use crate::domain::timestamp::micros;

/// The right to check one endpoint, until it lapses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnershipClaim {
    /// Whose endpoint.
    pub subscription: SubscriptionKey,
    /// Who checks.
    pub fence: Fence,
    /// Its number.
    pub number: i32,
    /// Checks that have failed before.
    pub failures: u32,
}

/// Claims a check about `$2` for `$4` microseconds, if one is due: the endpoint has never
/// been asked, or about something else, or its next time has come.
///
/// - The row's lock puts all replicas that try at once into one order; the condition is
///   looked at again under it, so that one of them gets the claim. The first row of all is
///   made by whoever comes first; the others find it and its claim.
/// - `lapse_time`: nobody checks it now, or whoever did has been too slow.
/// - `$5`, the gap between two starts: no change of the subscription has somebody asked
///   more often.
const CLAIM: &str = "
    INSERT INTO ownership (subscription_key, asked, state, failures, reason, check_time, due_time,
        start_time, owner, claim, lapse_time, routing_version)
    VALUES ($1, $2, 1, 0, '', 0, 0, {now}, $3, 1, {now} + $4, 0)
    ON CONFLICT (subscription_key) DO UPDATE SET
        asked = $2,
        state = 1,
        failures = CASE WHEN ownership.asked = $2 THEN ownership.failures ELSE 0 END,
        reason = CASE WHEN ownership.asked = $2 THEN ownership.reason ELSE '' END,
        check_time = CASE WHEN ownership.asked = $2 THEN ownership.check_time ELSE 0 END,
        start_time = {now},
        owner = $3,
        claim = ownership.claim + 1,
        lapse_time = {now} + $4
    WHERE ownership.lapse_time <= {now} AND ownership.start_time <= {now} - $5
      AND (ownership.asked <> $2 OR (ownership.state = 1 AND ownership.due_time <= {now}))
    RETURNING claim, failures";

/// Records what came of a check, if the claim still holds: neither lapsed, nor another's by
/// now, nor made void by somebody who has it asked anew.
const SETTLE: &str = "
    UPDATE ownership SET state = $4, failures = $5, reason = $6, check_time = {now},
        due_time = {now} + $7, owner = 0, lapse_time = 0, routing_version = $8
    WHERE subscription_key = $1 AND owner = $2 AND claim = $3 AND lapse_time > {now}";

/// Gives a claim back with which nothing was done.
const GIVE_BACK: &str = "
    UPDATE ownership SET owner = 0, lapse_time = 0
    WHERE subscription_key = $1 AND owner = $2 AND claim = $3";

/// Forgets what was proven, and the claim of a check that is under way. What the last one
/// failed with stays to be read until the next has ended.
const ASK_ANEW: &str = "
    UPDATE ownership SET state = 1, failures = 0, due_time = 0, owner = 0, claim = claim + 1,
        lapse_time = 0, routing_version = $2
    WHERE subscription_key = $1";

impl Store {
    /// Claims the check of an endpoint, for `lasts` from now. `None`: none is due, or
    /// another replica has it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: it may have been claimed; then it lapses.
    pub async fn claim_ownership(
        &self,
        fence: Fence,
        subscription: SubscriptionKey,
        asked: Fingerprint,
        lasts: Duration,
    ) -> Result<Option<OwnershipClaim>, StoreError> {
        let values = vec![
            subscription.0.into(),
            asked.0.to_vec().into(),
            fence.incarnation.into(),
            micros(lasts).into(),
            micros(GAP).into(),
        ];
        let row = self.write().query_one_raw(self.statement(CLAIM, values)).await?;
        let claim = |row| {
            let failures: i32 = column(&row, "failures")?;
            Ok(OwnershipClaim {
                subscription,
                fence,
                number: column(&row, "claim")?,
                failures: u32::try_from(failures).map_err(|_| StoreError::Corrupt("failures"))?,
            })
        };
        row.map(claim).transpose()
    }

    /// Records what came of a check and tells routing. `false`: the claim holds no more,
    /// and nothing was recorded.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: if it was not recorded, the endpoint is asked again.
    pub async fn settle_ownership(
        &self,
        claim: OwnershipClaim,
        end: &CheckEnd,
    ) -> Result<bool, StoreError> {
        let transaction = self.begin().await?;
        let tick = self.raise(&transaction).await?;
        let mut values = keys(claim);
        values.extend([
            (end.state as i16).into(),
            i32::try_from(end.failures).unwrap_or(i32::MAX).into(),
            end.reason.as_str().into(),
            micros(end.wait).into(),
            tick.version.into(),
        ]);
        let settled = transaction.execute_raw(self.statement(SETTLE, values)).await?;
        if settled.rows_affected() == 0 {
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Gives a claim back unused, so that it need not lapse.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: it lapses.
    pub async fn give_back_ownership(&self, claim: OwnershipClaim) -> Result<(), StoreError> {
        self.write().execute_raw(self.statement(GIVE_BACK, keys(claim))).await?;
        Ok(())
    }

    /// Has an endpoint asked anew, whatever is known of it.
    pub(super) async fn ask_anew(
        &self,
        transaction: &Transaction,
        subscription: SubscriptionKey,
        tick: Tick,
    ) -> Result<(), StoreError> {
        let values = vec![subscription.0.into(), tick.version.into()];
        transaction.execute_raw(self.statement(ASK_ANEW, values)).await?;
        Ok(())
    }
}

/// `$1` to `$3`: subscription, owner, claim.
fn keys(claim: OwnershipClaim) -> Vec<sea_orm::Value> {
    vec![claim.subscription.0.into(), claim.fence.incarnation.into(), claim.number.into()]
}
