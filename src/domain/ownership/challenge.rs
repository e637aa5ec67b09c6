//! What an endpoint must repeat to show that whoever answers there has read the question.
//!
//! Nobody can guess it: it holds 128 random bits and a seal over them. The seal binds it
//! to one subscription, one URL and a time, under the key that all replicas share.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::Serialize;
use subtle::ConstantTimeEq;

use crate::domain::signature::SigningKey;
use crate::domain::timestamp::Timestamp;

/// The `type` of the request's body: none that a publisher's event has.
const TYPE: &str = "hookward.challenge";
const NONCE_BYTES: usize = 16;

/// One challenge, for one request.
pub(super) struct Challenge {
    nonce: [u8; NONCE_BYTES],
    text: String,
    expire_time: Timestamp,
}

/// The body of the request.
#[derive(Serialize)]
struct Question<'a> {
    r#type: &'static str,
    subscription_id: &'a str,
    challenge: &'a str,
    /// In seconds since 1970.
    expire_time: i64,
}

/// An answer with its own form, and nothing else in it: who only sends back what came in
/// has not read it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    challenge: String,
}

impl Challenge {
    /// A new one, from the operating system's randomness.
    ///
    /// # Panics
    ///
    /// When there is none: what can be guessed proves nothing.
    pub(super) fn new(
        key: &[u8],
        subscription_id: &str,
        url: &str,
        expire_time: Timestamp,
    ) -> Challenge {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the operating system gives randomness");
        Challenge::sealed(key, subscription_id, url, expire_time, nonce)
    }

    fn sealed(
        key: &[u8],
        subscription_id: &str,
        url: &str,
        expire_time: Timestamp,
        nonce: [u8; NONCE_BYTES],
    ) -> Challenge {
        // Fixed lengths first, and no id has a line feed: the parts cannot be told apart in
        // two ways.
        let seal = SigningKey::new(key).sign(&[
            b"ownership challenge",
            &nonce,
            &expire_time.0.to_be_bytes(),
            subscription_id.as_bytes(),
            b"\n",
            url.as_bytes(),
        ]);
        let text = URL_SAFE_NO_PAD.encode([&nonce[..], &seal[..]].concat());
        Challenge { nonce, text, expire_time }
    }

    /// Names the request where the profile's requests have an id: the same letters as in
    /// other ids, no full stop.
    pub(super) fn id(&self) -> String {
        format!("chk_{}", URL_SAFE_NO_PAD.encode(self.nonce))
    }

    /// The request's body.
    pub(super) fn body(&self, subscription_id: &str) -> Vec<u8> {
        let question = Question {
            r#type: TYPE,
            subscription_id,
            challenge: &self.text,
            expire_time: self.expire_time.secs(),
        };
        serde_json::to_vec(&question).expect("texts and numbers are JSON")
    }

    /// Why an answer that has come by `now` is no consent; `None` when it is.
    pub(super) fn refusal(&self, body: &[u8], now: Timestamp) -> Option<&'static str> {
        if self.expire_time < now {
            return Some("The answer came after the challenge had expired.");
        }
        let body = body.trim_ascii();
        let is_object = body.starts_with(b"{");
        let answer = is_object.then(|| serde_json::from_slice::<Answer>(body).ok()).flatten();
        let given = answer.as_ref().map_or(body, |answer| answer.challenge.as_bytes());
        let repeated = bool::from(self.text.as_bytes().ct_eq(given));
        (!repeated).then_some("The answer does not repeat the challenge.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef";
    const URL: &str = "https://receiver.example/hook";
    const NOON: Timestamp = Timestamp(1_750_000_000_000_000);

    fn sealed(subscription_id: &str, url: &str, expire_time: Timestamp, nonce: u8) -> String {
        let nonce = [nonce; NONCE_BYTES];
        Challenge::sealed(KEY, subscription_id, url, expire_time, nonce).text
    }

    #[test]
    fn it_is_bound_to_its_subscription_url_and_time_and_is_never_the_same() {
        let one = sealed("sub_1", URL, NOON, 7);
        assert_eq!(one.len(), 64);
        let others = [
            sealed("sub_2", URL, NOON, 7),
            sealed("sub_1", "https://receiver.example/hooks", NOON, 7),
            sealed("sub_1", URL, Timestamp(NOON.0 + 1), 7),
            sealed("sub_1", URL, NOON, 8),
            Challenge::sealed(b"another key", "sub_1", URL, NOON, [7; NONCE_BYTES]).text,
        ];
        assert!(others.iter().all(|other| *other != one));
        let new = || Challenge::new(KEY, "sub_1", URL, NOON);
        assert_ne!(new().text, new().text);
    }

    #[test]
    fn the_body_says_what_is_asked_and_until_when() {
        let challenge = Challenge::sealed(KEY, "sub_1", URL, NOON, [7; NONCE_BYTES]);
        let body = String::from_utf8(challenge.body("sub_1")).expect("JSON");
        let expected = format!(
            r#"{{"type":"hookward.challenge","subscription_id":"sub_1","challenge":"{}","expire_time":1750000000}}"#,
            challenge.text
        );
        assert_eq!(body, expected);
        assert_eq!(challenge.id(), "chk_BwcHBwcHBwcHBwcHBwcHBw");
    }

    #[test]
    fn only_the_challenge_itself_is_an_answer() {
        let challenge = Challenge::sealed(KEY, "sub_1", URL, NOON, [7; NONCE_BYTES]);
        let text = &challenge.text;
        for good in [
            text.clone(),
            format!("{text}\r\n"),
            format!(r#"{{"challenge":"{text}"}}"#),
            format!("{{ \"challenge\": \"{text}\" }}\n"),
        ] {
            assert_eq!(challenge.refusal(good.as_bytes(), NOON), None, "{good:?}");
        }
        let echoed = String::from_utf8(challenge.body("sub_1")).expect("JSON");
        for wrong in [
            String::new(),
            "ok".to_owned(),
            echoed,
            text[..63].to_owned(),
            format!("{text}A"),
            text.to_lowercase(),
            sealed("sub_2", URL, NOON, 7),
            format!("[\"{text}\"]"),
            format!(r#"{{"challenge":"{text}","ok":true}}"#),
            format!(r#"{{"answer":"{text}"}}"#),
            format!("<p>{text}</p>"),
        ] {
            let refusal = challenge.refusal(wrong.as_bytes(), NOON);
            assert_eq!(refusal, Some("The answer does not repeat the challenge."), "{wrong:?}");
        }
        let late = challenge.refusal(text.as_bytes(), Timestamp(NOON.0 + 1));
        assert_eq!(late, Some("The answer came after the challenge had expired."));
    }
}
