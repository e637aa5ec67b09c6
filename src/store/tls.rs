//! Certificates of subscriptions towards their receivers: a row for those that have any,
//! written and deleted with the subscription.

use sea_orm::{ActiveValue, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};

use super::entity::{subscription, subscription_tls};
use super::link::Transaction;
use super::vault::Form;
use super::{Store, StoreError, row};
use crate::domain::id::{OrganizationId, SubscriptionKey};
use crate::domain::receiver_tls::ReceiverTls;
use crate::domain::subscription::Subscription;
use crate::keyring::DataKey;

/// Subscriptions that are looked up with one statement.
const CHUNK: usize = 500;

impl Store {
    /// The subscriptions of these rows, in their order, with what another table holds of
    /// them.
    pub(super) async fn whole(
        &self,
        connection: &impl ConnectionTrait,
        found: Vec<subscription::Model>,
    ) -> Result<Vec<Subscription>, StoreError> {
        let mut subscriptions = Vec::with_capacity(found.len());
        let mut rest = found.into_iter();
        loop {
            let chunk: Vec<_> = rest.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return Ok(subscriptions);
            }
            let keys = chunk.iter().map(|row| row.key);
            let mut tls = subscription_tls::Entity::find()
                .filter(subscription_tls::Column::SubscriptionKey.is_in(keys))
                .all(connection)
                .await?;
            let data_keys = chunk.iter().map(|row| row.headers_key_id);
            let data_keys = data_keys.chain(tls.iter().map(|row| row.secret_key_id));
            self.learn_keys(connection, data_keys).await?;
            let vault = &self.inner.vault;
            for found in chunk {
                let own = tls.iter().position(|row| row.subscription_key == found.key);
                let own = own.map(|place| {
                    let organization = OrganizationId::stored(&found.organization_id);
                    row::tls(vault, &organization, tls.swap_remove(place))
                });
                subscriptions.push(row::subscription(vault, found, own.unwrap_or_default())?);
            }
        }
    }

    /// Writes the row, or none; the private key sealed, if there is a key for it.
    pub(super) async fn add_tls(
        &self,
        transaction: &Transaction,
        (organization, key): (&OrganizationId, SubscriptionKey),
        tls: &ReceiverTls,
        sealing: Option<&DataKey>,
    ) -> Result<(), StoreError> {
        if tls.is_default() {
            return Ok(());
        }
        let unreadable = || StoreError::Corrupt("subscription_tls.secret");
        let (certificate, pem) = match &tls.client {
            Some(client) => (client.chain.clone(), client.key.pem().ok_or_else(unreadable)?),
            None => (String::new(), ""),
        };
        let (secret, form) = match sealing.filter(|_| !pem.is_empty()) {
            Some(sealing) => {
                let place = row::tls_place(organization, key);
                (sealing.seal(&place, pem.as_bytes()), Form::of(sealing))
            }
            None => (pem.as_bytes().to_vec(), Form::PLAIN),
        };
        let row = subscription_tls::ActiveModel {
            subscription_key: ActiveValue::Set(key.0),
            certificate: ActiveValue::Set(certificate),
            secret: ActiveValue::Set(secret),
            secret_key_id: ActiveValue::Set(form.key_id),
            secret_version: ActiveValue::Set(form.version),
            authorities: ActiveValue::Set(tls.authorities.clone()),
        };
        subscription_tls::Entity::insert(row).exec_without_returning(transaction).await?;
        Ok(())
    }

    /// Puts `tls` in the place of what there is.
    pub(super) async fn change_tls(
        &self,
        transaction: &Transaction,
        place: (&OrganizationId, SubscriptionKey),
        tls: &ReceiverTls,
        sealing: Option<&DataKey>,
    ) -> Result<(), StoreError> {
        self.delete_of(transaction, "subscription_tls", place.1).await?;
        self.add_tls(transaction, place, tls, sealing).await
    }
}
