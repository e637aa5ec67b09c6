//! Looking up the ids that publishers chose.

use std::sync::Arc;

use sea_orm::{ConnectionTrait, Value};

use super::engine::column;
use super::{Store, StoreError};
use crate::domain::id::{EventKey, OrganizationId};
use crate::keyring::{DataKey, Digested};

/// An event that a publisher's id names.
#[derive(Clone, Debug)]
pub struct Published {
    /// Whose.
    pub organization: OrganizationId,
    /// The publisher's id.
    pub event_id: String,
    /// Its key.
    pub key: EventKey,
    /// What tells a repetition of it from another event.
    pub content: ContentHash,
    /// Subscriptions it went to.
    pub delivery_count: u32,
}

/// The stored form of an event's content hash.
#[derive(Clone, Debug)]
pub struct ContentHash {
    bytes: Vec<u8>,
    key: HashKey,
}

#[derive(Clone, Debug)]
enum HashKey {
    /// It is a plain hash.
    None,
    /// It is a digest of the plain hash.
    Key(Arc<DataKey>),
    /// The same, and nobody can tell any more what of.
    Gone,
}

impl ContentHash {
    /// Whether it is that of the content with this SHA-256. Of one whose data key is gone
    /// it is not: the id is taken, and by what cannot be told.
    #[must_use]
    pub fn is_of(&self, hash: &[u8; 32]) -> bool {
        match &self.key {
            HashKey::None => self.bytes == hash,
            HashKey::Key(key) => self.bytes == key.digest(Digested::EventContent, hash),
            HashKey::Gone => false,
        }
    }
}

impl Store {
    /// The events that the publishers' ids name, of those asked for.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn published(
        &self,
        ids: &[(OrganizationId, String)],
    ) -> Result<Vec<Published>, StoreError> {
        let mut found = Vec::new();
        for chunk in ids.chunks(500) {
            // `(…, …) IN (VALUES …)` would make SQLite scan the table; CROSS JOIN fixes
            // the order of the loops there.
            let sql = format!(
                "WITH wanted (o, i) AS ({}) SELECT event_key.* FROM wanted CROSS JOIN event_key
                 WHERE organization_id = o AND event_id = i",
                Store::pairs(chunk.len())
            );
            let pair = |(organization, id): &(OrganizationId, String)| {
                [Value::from(organization.as_str()), Value::from(id.as_str())]
            };
            let values = chunk.iter().flat_map(pair).collect();
            let rows = self.write().query_all_raw(self.statement(&sql, values)).await?;
            self.learn_keys_of(self.write(), &rows, "hash_key_id").await?;
            for row in rows {
                let key = match column(&row, "hash_key_id")? {
                    0 => HashKey::None,
                    id => self.inner.vault.key(id).map_or(HashKey::Gone, HashKey::Key),
                };
                found.push(Published {
                    organization: OrganizationId::stored(&column::<String>(
                        &row,
                        "organization_id",
                    )?),
                    event_id: column(&row, "event_id")?,
                    key: EventKey(column(&row, "event_key")?),
                    content: ContentHash { bytes: column(&row, "content_hash")?, key },
                    delivery_count: u32::try_from(column::<i32>(&row, "delivery_count")?)
                        .map_err(|_| StoreError::Corrupt("delivery_count"))?,
                });
            }
        }
        Ok(found)
    }
}
