//! What a test's organizations have confided to its servers ([`Organization`]): secrets,
//! custom headers, the paths of URLs, and the first payloads, subjects and attributes. When a
//! server ends, whichever test it was for, what it wrote is searched for them; and so are the
//! errors to those who create, change or publish something.
//!
//! [`Organization`]: super::client::Organization

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hookward::grpc::pb;
use tonic::Status;

/// Shorter texts turn up by chance.
const LENGTH_MIN: usize = 12;
/// More events of one test say no more, and searching takes time.
const EVENT_TEXTS_MAX: usize = 200;

/// Texts that no log and no error may repeat.
#[derive(Debug, Default)]
pub(crate) struct Confided {
    of_events: Mutex<BTreeSet<String>>,
    of_subscriptions: Mutex<BTreeSet<String>>,
}

impl Confided {
    pub(crate) fn event(&self, event: &pb::Event) {
        let mut texts = locked(&self.of_events);
        let payload = match &event.payload {
            Some(pb::event::Payload::Json(text)) => text.clone(),
            Some(pb::event::Payload::Raw(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            None => String::new(),
        };
        let attributes = event.attributes.values().cloned();
        for text in attributes.chain([payload, event.subject.clone()]) {
            if texts.len() < EVENT_TEXTS_MAX {
                keep(&mut texts, text);
            }
        }
    }

    pub(crate) fn subscription(&self, subscription: &pb::Subscription) {
        let mut texts = locked(&self.of_subscriptions);
        let path = subscription.url.splitn(4, '/').nth(3).unwrap_or_default();
        let headers = subscription.headers.values().cloned();
        headers.chain([path.to_owned()]).for_each(|text| keep(&mut texts, text));
    }

    pub(crate) fn secret(&self, secret: &str) {
        keep(&mut locked(&self.of_subscriptions), secret.to_owned());
    }

    /// Panics when one of them is in `written`, or in the JSON of it.
    pub(crate) fn assert_absent(&self, place: &str, written: &str) {
        for texts in [&self.of_events, &self.of_subscriptions] {
            for text in locked(texts).iter() {
                let quoted = serde_json::Value::from(text.as_str()).to_string();
                let found = written.contains(text) || written.contains(quoted.trim_matches('"'));
                assert!(!found, "{text:?} was confided and is in {place}");
            }
        }
    }

    /// The same for an error.
    pub(crate) fn assert_not_told(&self, told: &Status) {
        self.assert_absent("an error", &format!("{told:?}"));
        self.assert_absent("an error", &String::from_utf8_lossy(told.details()));
    }
}

fn locked(texts: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    texts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(texts: &mut BTreeSet<String>, text: String) {
    if LENGTH_MIN <= text.len() {
        texts.insert(text);
    }
}

/// A search that finds nothing proves something only if it finds what is there.
#[test]
fn what_was_confided_is_found_where_it_is() {
    let confided = Confided::default();
    let json = "{\"patient\":\"4711\"}";
    confided.event(&super::client::event("noted", json));
    confided.subscription(&pb::Subscription {
        url: "https://receiver.example/hook?token=hunter2".to_owned(),
        headers: [("authorization".to_owned(), "Bearer hunter2".to_owned())].into(),
        ..pb::Subscription::default()
    });
    confided.secret("whsec_hunter2");
    let is_found = |written: &str| {
        let search = || confided.assert_absent("a test", written);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(search)).is_err()
    };
    for written in [
        format!("payload {json}"),
        format!("{json:?}"),
        "to https://receiver.example/hook?token=hunter2".to_owned(),
        "with Bearer hunter2".to_owned(),
        "by whsec_hunter2".to_owned(),
    ] {
        assert!(is_found(&written), "{written}");
    }
    assert!(!is_found("noted, to https://receiver.example, for patient"));
}
