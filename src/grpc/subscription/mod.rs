//! `SubscriptionService`: who receives which events, where, and how.

mod create;
mod draft;
mod lifecycle;
mod list;
mod message;
mod ping;
mod profile;
mod secret;
mod update;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use self::message::current_message;
use super::delivery::required;
use super::pb::subscription_service_server::SubscriptionService;
use super::status::Object;
use super::trail::Trail;
use super::{Context, access, pb, status};
use crate::domain::id::{OrganizationId, SubscriptionKey};
use crate::domain::lifecycle::Transition;
use crate::domain::page::parse_etag;
use crate::domain::scope::Scope;
use crate::domain::subscription::Subscription;
use crate::store::StoreError;

/// Serves `SubscriptionService`.
pub(super) struct Subscriptions(pub(super) Arc<Context>);

#[tonic::async_trait]
impl SubscriptionService for Subscriptions {
    async fn create_subscription(
        &self,
        request: Request<pb::CreateSubscriptionRequest>,
    ) -> Result<Response<pb::CreateSubscriptionResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[])?;
        let organization =
            access::organization(&extensions, Scope::SubscriptionsWrite, &request.organization_id)?;
        create::create(&self.0, organization, request, trail).await.map(Response::new)
    }

    async fn get_subscription(
        &self,
        request: Request<pb::GetSubscriptionRequest>,
    ) -> Result<Response<pb::GetSubscriptionResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let organization =
            access::organization(&extensions, Scope::SubscriptionsRead, &request.organization_id)?;
        let found = find(&self.0, &organization, &request.subscription_id).await?;
        let subscription = Some(current_message(&self.0, &found));
        Ok(Response::new(pb::GetSubscriptionResponse { subscription }))
    }

    async fn list_subscriptions(
        &self,
        request: Request<pb::ListSubscriptionsRequest>,
    ) -> Result<Response<pb::ListSubscriptionsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let organization =
            access::organization(&extensions, Scope::SubscriptionsRead, &request.organization_id)?;
        list::list(&self.0, &organization, request).await.map(Response::new)
    }

    async fn update_subscription(
        &self,
        request: Request<pb::UpdateSubscriptionRequest>,
    ) -> Result<Response<pb::UpdateSubscriptionResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[update::id_of(&request)])?;
        let organization =
            access::organization(&extensions, Scope::SubscriptionsWrite, &request.organization_id)?;
        update::update(&self.0, &organization, request, trail).await.map(Response::new)
    }

    async fn delete_subscription(
        &self,
        request: Request<pb::DeleteSubscriptionRequest>,
    ) -> Result<Response<pb::DeleteSubscriptionResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.subscription_id])?;
        let organization =
            access::organization(&extensions, Scope::SubscriptionsWrite, &request.organization_id)?;
        self.delete(&organization, &request, trail).await?;
        Ok(Response::new(pb::DeleteSubscriptionResponse {}))
    }

    async fn pause_subscription(
        &self,
        request: Request<pb::PauseSubscriptionRequest>,
    ) -> Result<Response<pb::PauseSubscriptionResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.subscription_id])?;
        let organization =
            access::organization(&extensions, Scope::SubscriptionsWrite, &request.organization_id)?;
        let id = &request.subscription_id;
        let subscription =
            lifecycle::apply(&self.0, &organization, id, Transition::Pause, trail).await?;
        Ok(Response::new(pb::PauseSubscriptionResponse { subscription: Some(subscription) }))
    }

    async fn resume_subscription(
        &self,
        request: Request<pb::ResumeSubscriptionRequest>,
    ) -> Result<Response<pb::ResumeSubscriptionResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.subscription_id])?;
        let organization =
            access::organization(&extensions, Scope::SubscriptionsWrite, &request.organization_id)?;
        let id = &request.subscription_id;
        let subscription =
            lifecycle::apply(&self.0, &organization, id, Transition::Resume, trail).await?;
        Ok(Response::new(pb::ResumeSubscriptionResponse { subscription: Some(subscription) }))
    }

    async fn activate_subscription(
        &self,
        request: Request<pb::ActivateSubscriptionRequest>,
    ) -> Result<Response<pb::ActivateSubscriptionResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.subscription_id])?;
        let organization =
            access::organization(&extensions, Scope::SubscriptionsWrite, &request.organization_id)?;
        let id = &request.subscription_id;
        let transition = Transition::Activate;
        let subscription = lifecycle::apply(&self.0, &organization, id, transition, trail).await?;
        Ok(Response::new(pb::ActivateSubscriptionResponse { subscription: Some(subscription) }))
    }

    async fn deactivate_subscription(
        &self,
        request: Request<pb::DeactivateSubscriptionRequest>,
    ) -> Result<Response<pb::DeactivateSubscriptionResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.subscription_id])?;
        let organization =
            access::organization(&extensions, Scope::SubscriptionsWrite, &request.organization_id)?;
        let id = &request.subscription_id;
        let transition = Transition::Deactivate;
        let subscription = lifecycle::apply(&self.0, &organization, id, transition, trail).await?;
        Ok(Response::new(pb::DeactivateSubscriptionResponse { subscription: Some(subscription) }))
    }

    async fn ping_subscription(
        &self,
        request: Request<pb::PingSubscriptionRequest>,
    ) -> Result<Response<pb::PingSubscriptionResponse>, Status> {
        ping::ping(&self.0, request).await.map(Response::new)
    }

    async fn rotate_signing_secret(
        &self,
        request: Request<pb::RotateSigningSecretRequest>,
    ) -> Result<Response<pb::RotateSigningSecretResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail = Trail::of(&extensions, &[&request.subscription_id])?;
        let organization =
            access::organization(&extensions, Scope::SubscriptionsWrite, &request.organization_id)?;
        secret::rotate(&self.0, &organization, request, trail).await.map(Response::new)
    }

    async fn list_signing_secrets(
        &self,
        request: Request<pb::ListSigningSecretsRequest>,
    ) -> Result<Response<pb::ListSigningSecretsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let organization =
            access::organization(&extensions, Scope::SubscriptionsRead, &request.organization_id)?;
        secret::list(&self.0, &organization, &request).await.map(Response::new)
    }

    async fn revoke_signing_secret(
        &self,
        request: Request<pb::RevokeSigningSecretRequest>,
    ) -> Result<Response<pb::RevokeSigningSecretResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let trail =
            Trail::of(&extensions, &[&request.subscription_id, &request.signing_secret_id])?;
        let organization =
            access::organization(&extensions, Scope::SubscriptionsWrite, &request.organization_id)?;
        secret::revoke(&self.0, &organization, &request, trail).await?;
        Ok(Response::new(pb::RevokeSigningSecretResponse {}))
    }

    async fn list_profiles(
        &self,
        request: Request<pb::ListProfilesRequest>,
    ) -> Result<Response<pb::ListProfilesResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        access::organization(&extensions, Scope::SubscriptionsRead, &request.organization_id)?;
        let profiles = self.0.routing.profiles();
        let profiles = profiles.iter().map(|one| profile::message(one)).collect();
        Ok(Response::new(pb::ListProfilesResponse { profiles }))
    }
}

impl Subscriptions {
    async fn delete(
        &self,
        organization: &OrganizationId,
        request: &pb::DeleteSubscriptionRequest,
        trail: &Trail,
    ) -> Result<(), Status> {
        let id = &request.subscription_id;
        required("subscription_id", id)?;
        let (store, entry) = (&self.0.store, trail.entry([]));
        let etag = parse_etag(store.ids(), &request.etag)?;
        let deleted = match store.ids().parse_subscription(id) {
            Some(key) => store.delete_subscription(organization, key, etag, &entry).await,
            None => Err(StoreError::NotFound),
        };
        match deleted {
            Ok(()) => {
                self.0.refresh_routing().await;
                Ok(())
            }
            Err(StoreError::NotFound) if request.allow_missing => {
                let audited = trail.unchanged(store).await;
                audited.map_err(|error| status::store(error, Object::subscription(id)))
            }
            Err(error) => Err(status::store(error, Object::subscription(id))),
        }
    }
}

/// The key of a subscription's id. What is no id names nothing.
fn key_of(context: &Context, id: &str) -> Result<SubscriptionKey, Status> {
    required("subscription_id", id)?;
    let key = context.store.ids().parse_subscription(id);
    key.ok_or_else(|| status::not_found(Object::subscription(id)))
}

async fn find(
    context: &Context,
    organization: &OrganizationId,
    id: &str,
) -> Result<Subscription, Status> {
    let key = key_of(context, id)?;
    let found = context.store.subscription(organization, key).await;
    found.map_err(|error| status::store(error, Object::subscription(id)))
}
