//! `ListSubscriptions`.

use tonic::Status;

use super::message::current_message;
use crate::domain::event_type::is_event_type;
use crate::domain::id::{OrganizationId, SubscriptionKey};
use crate::domain::invalid::InvalidField;
use crate::domain::pattern::EventPattern;
use crate::domain::profile::Profiles;
use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionState};
use crate::grpc::event::optional_account;
use crate::grpc::page::{self, Filling, Page};
use crate::grpc::status::Object;
use crate::grpc::{Context, pb, status};
use crate::store::SubscriptionFilter;

pub(super) async fn list(
    context: &Context,
    organization: &OrganizationId,
    mut request: pb::ListSubscriptionsRequest,
) -> Result<pb::ListSubscriptionsResponse, Status> {
    let store = &context.store;
    let page = Page::read(&mut request, "ListSubscriptions", store.page_key())?;
    let event_type = &request.event_type;
    if !event_type.is_empty() && !is_event_type(event_type) {
        let why = "an event type, or nothing";
        return Err(InvalidField::new("event_type", "INVALID_EVENT_TYPE", why).into());
    }
    let filter = SubscriptionFilter {
        states: states(&request.states)?,
        account: optional_account(&request.account_id)?,
        profile: (!request.profile.is_empty()).then_some(request.profile),
    };
    let mut last = page.from.map(|[key, _]| SubscriptionKey(key));
    let mut filling = Filling::new(page.size);
    let profiles = context.routing.profiles();
    // Patterns are not matched by the database. All that an organization may have is
    // little enough to look through.
    let matches =
        |one: &Subscription| event_type.is_empty() || matches(&profiles, &one.spec, event_type);
    let mut before = last;
    let next = 'chunks: loop {
        let found = store.subscriptions(organization, &filter, before, page::CHUNK).await;
        let found = found.map_err(|error| status::store(error, Object::subscription("")))?;
        for one in found.iter().filter(|one| matches(one)) {
            if !filling.takes(current_message(context, one)) {
                break 'chunks last;
            }
            last = Some(one.key);
        }
        if found.len() < page::CHUNK {
            break None;
        }
        before = found.last().map(|one| one.key);
    };
    let (subscriptions, next_page_token) =
        (filling.items, page.token(next.map(|last| [last.0, 0])));
    Ok(pb::ListSubscriptionsResponse { subscriptions, next_page_token })
}

/// Whether one of the patterns matches, read as its profile reads them.
fn matches(profiles: &Profiles, spec: &SubscriptionSpec, event_type: &str) -> bool {
    let profile = profiles.get(&spec.profile);
    let service_names = profile.is_some_and(|profile| profile.service_patterns());
    let operational = profile.is_some_and(|profile| profile.operational_events());
    let pattern = |text: &String| EventPattern::stored(text, service_names, operational);
    spec.event_patterns.iter().filter_map(pattern).any(|pattern| pattern.matches(event_type))
}

fn states(sent: &[i32]) -> Result<Vec<SubscriptionState>, InvalidField> {
    let read = |(place, state): (usize, &i32)| {
        let state = match pb::subscription::State::try_from(*state) {
            Ok(pb::subscription::State::Active) => SubscriptionState::Active,
            Ok(pb::subscription::State::Paused) => SubscriptionState::Paused,
            Ok(pb::subscription::State::Inactive) => SubscriptionState::Inactive,
            Ok(pb::subscription::State::Disabled) => SubscriptionState::Disabled,
            Ok(pb::subscription::State::Unspecified) | Err(_) => {
                let field = format!("states[{place}]");
                return Err(InvalidField::new(field, "INVALID_STATE", "a state of a subscription"));
            }
        };
        Ok(state)
    };
    sent.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::subscription::message::state_message;

    #[test]
    fn states_of_a_filter_are_those_that_subscriptions_have() {
        for state in SubscriptionState::ALL {
            assert_eq!(states(&[state_message(state).into()]), Ok(vec![state]));
        }
        for unknown in [0, 5, -1] {
            assert_eq!(states(&[1, unknown]).expect_err("no state").field, "states[1]");
        }
    }
}
