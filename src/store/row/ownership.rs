//! Rows of `ownership`.

use super::optional_time;
use crate::domain::ownership::{Fingerprint, OwnershipRecord, OwnershipState};
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::entity::ownership;

/// What is known of an endpoint; not who checks it.
pub(in crate::store) fn ownership(found: ownership::Model) -> Result<OwnershipRecord, StoreError> {
    let asked: [u8; 32] = found.asked.try_into().map_err(|_| StoreError::Corrupt("asked"))?;
    Ok(OwnershipRecord {
        asked: Fingerprint(asked),
        state: OwnershipState::stored(found.state).ok_or(StoreError::Corrupt("state"))?,
        failures: u32::try_from(found.failures).map_err(|_| StoreError::Corrupt("failures"))?,
        reason: found.reason,
        check_time: optional_time(found.check_time),
        due_time: Timestamp(found.due_time),
    })
}
