//! How a subscription goes from state to state when its owner asks.

use super::subscription::SubscriptionState;

/// What an owner may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Hold the deliveries.
    Pause,
    /// Send what was held.
    Resume,
    /// Switch on what was off.
    Activate,
    /// Switch off.
    Deactivate,
}

impl Transition {
    /// The state that follows `from`; the same one when there is nothing to do.
    ///
    /// # Errors
    ///
    /// A sentence for people when this does not lead out of `from`.
    pub fn apply(self, from: SubscriptionState) -> Result<SubscriptionState, &'static str> {
        use SubscriptionState::{Active, Disabled, Inactive, Paused};
        let off = "the subscription is inactive or disabled; call ActivateSubscription";
        match (self, from) {
            (Transition::Pause, Active | Paused) => Ok(Paused),
            (Transition::Resume, Active | Paused)
            | (Transition::Activate, Active | Inactive | Disabled) => Ok(Active),
            (Transition::Pause | Transition::Resume, Inactive | Disabled) => Err(off),
            (Transition::Activate, Paused) => {
                Err("the subscription is paused; call ResumeSubscription")
            }
            (Transition::Deactivate, Active | Paused | Inactive | Disabled) => Ok(Inactive),
        }
    }

    /// Whether the endpoint, which must consent before it gets anything, is asked anew:
    /// when it was switched off, since much may have changed, and when it has not
    /// consented yet and its owner says that it would now.
    #[must_use]
    pub fn asks_anew(self, from: SubscriptionState, unproven: bool) -> bool {
        match self {
            Transition::Activate => from != SubscriptionState::Active || unproven,
            Transition::Pause | Transition::Resume | Transition::Deactivate => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SubscriptionState::{Active, Disabled, Inactive, Paused};
    use super::*;

    /// By [`SubscriptionState::ALL`]; `None` is a refusal.
    fn row(transition: Transition) -> Vec<Option<SubscriptionState>> {
        SubscriptionState::ALL.iter().map(|from| transition.apply(*from).ok()).collect()
    }

    #[test]
    fn every_state_answers_every_request_as_the_api_says() {
        assert_eq!(SubscriptionState::ALL, [Active, Paused, Inactive, Disabled]);
        assert_eq!(row(Transition::Pause), [Some(Paused), Some(Paused), None, None]);
        assert_eq!(row(Transition::Resume), [Some(Active), Some(Active), None, None]);
        assert_eq!(row(Transition::Activate), [Some(Active), None, Some(Active), Some(Active)]);
        assert_eq!(row(Transition::Deactivate), [Some(Inactive); 4]);
    }

    #[test]
    fn an_endpoint_is_asked_anew_by_activation_alone() {
        for (from, unproven, asks) in [
            (Active, false, false),
            (Active, true, true),
            (Inactive, false, true),
            (Disabled, false, true),
        ] {
            assert_eq!(Transition::Activate.asks_anew(from, unproven), asks, "{from:?}");
        }
        for other in [Transition::Pause, Transition::Resume, Transition::Deactivate] {
            assert!(!other.asks_anew(Active, true), "{other:?}");
        }
    }
}
