//! `UpdateSubscription`: reads, merges, checks the whole, and writes if nobody else
//! has in between.

use tonic::Status;

use super::draft::{Checked, Draft, of_request};
use super::key_of;
use super::message::current_message;
use super::secret::live;
use crate::domain::id::{OrganizationId, SubscriptionKey};
use crate::domain::page::parse_etag;
use crate::domain::subscription::Subscription;
use crate::grpc::delivery::required;
use crate::grpc::field_mask::{Field, fields};
use crate::grpc::status::Object;
use crate::grpc::trail::Trail;
use crate::grpc::{Context, pb, status};
use crate::store::{Change, ChangeError, StoreError};

/// How often a change is tried anew when others come in between and the caller does
/// not ask to be told of them.
const TRIES: usize = 5;

/// A valid request.
struct Update<'a> {
    context: &'a Context,
    organization: &'a OrganizationId,
    key: SubscriptionKey,
    etag: Option<i64>,
    fields: Vec<Field>,
    sent: pb::Subscription,
    trail: &'a Trail,
}

/// Which subscription is meant.
pub(super) fn id_of(request: &pb::UpdateSubscriptionRequest) -> &str {
    request.subscription.as_ref().map_or("", |sent| sent.id.as_str())
}

pub(super) async fn update(
    context: &Context,
    organization: &OrganizationId,
    request: pb::UpdateSubscriptionRequest,
    trail: &Trail,
) -> Result<pb::UpdateSubscriptionResponse, Status> {
    let sent = of_request(request.subscription, organization)?;
    required("subscription.id", &sent.id)?;
    let etag = parse_etag(context.store.ids(), &sent.etag);
    let etag = etag.map_err(|invalid| invalid.within("subscription"))?;
    let fields = fields(request.update_mask.as_ref(), &sent)?;
    let key = key_of(context, &sent.id)?;
    let update = Update { context, organization, key, etag, fields, sent, trail };
    for _ in 0..TRIES {
        let (current, wanted) = update.merge().await?;
        let changed = if request.validate_only {
            let audited = trail.unchanged(&context.store).await;
            audited.map_err(|error| status::store(error, update.object()))?;
            wanted
        } else {
            match update.write(current, wanted).await {
                Err(StoreError::Stale) if etag.is_none() => continue,
                written => written.map_err(|error| status::store(error, update.object()))?,
            }
        };
        let subscription = Some(current_message(context, &changed));
        return Ok(pb::UpdateSubscriptionResponse { subscription });
    }
    Err(status::stale())
}

impl Update<'_> {
    fn object(&self) -> Object<'_> {
        Object::subscription(&self.sent.id)
    }

    /// The subscription as it is, and as it would be.
    async fn merge(&self) -> Result<(Subscription, Subscription), Status> {
        let current = self.context.store.subscription(self.organization, self.key).await;
        let current = current.map_err(|error| status::store(error, self.object()))?;
        if self.etag.is_some_and(|etag| etag != current.version) {
            return Err(status::stale());
        }
        let mut draft = Draft::stored(current.spec.clone());
        draft.write(&self.fields, &self.sent)?;
        let checked = draft.check(self.context, self.organization, Some(&current.spec))?;
        self.check_secrets(&current, &checked).await?;
        let wanted = Subscription { spec: checked.spec, ..current.clone() };
        Ok((current, wanted))
    }

    /// Signing needs a live secret, and each one must be a secret of the profile.
    /// Secrets change only with the subscription's version, so that the write fails if
    /// this is no longer true.
    async fn check_secrets(&self, current: &Subscription, new: &Checked) -> Result<(), Status> {
        let was = (current.spec.signing_enabled, &current.spec.profile);
        if !new.spec.signing_enabled || was == (true, &new.spec.profile) {
            return Ok(());
        }
        let live = live(self.context, self.organization, current).await?;
        if live.is_empty() {
            let why = "there is no secret to sign with: call RotateSigningSecret first";
            return Err(status::precondition(self.object(), "NO_SIGNING_SECRET", why));
        }
        let rule = new.profile.secret();
        let fits = |secret: &str| rule.is_some_and(|rule| rule.check(secret).is_ok());
        if !live.iter().all(|secret| secret.secret.as_deref().is_some_and(fits)) {
            let why = "a live secret is none that the profile signs with: switch signing off, \
                       change the profile, rotate with an overlap of 0, switch signing on";
            return Err(status::precondition(self.object(), "SIGNING_SECRET_UNSUITABLE", why));
        }
        Ok(())
    }

    async fn write(
        &self,
        current: Subscription,
        wanted: Subscription,
    ) -> Result<Subscription, StoreError> {
        if wanted.spec == current.spec {
            self.trail.unchanged(&self.context.store).await?;
            return Ok(current);
        }
        let differs = |field: &&Field| field.differs(&current.spec, &wanted.spec);
        let changed = self.fields.iter().filter(differs).map(|field| field.name());
        let entry = self.trail.entry(changed);
        let write = |_| Ok::<_, std::convert::Infallible>(Change::Write(Box::new(wanted)));
        let version = Some(current.version);
        let store = &self.context.store;
        let (organization, key) = (self.organization, self.key);
        match store.change_subscription(organization, key, version, &entry, write).await {
            Ok(changed) => {
                self.context.refresh_routing().await;
                Ok(changed)
            }
            Err(ChangeError::Store(error)) => Err(error),
        }
    }
}
