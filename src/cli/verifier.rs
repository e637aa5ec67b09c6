//! Whether a request is signed as its profile says, as its receiver would check it.

use std::sync::Arc;

use http::HeaderName;
use time::Duration;

use crate::domain::invalid::InvalidField;
use crate::domain::profile::Profile;
use crate::domain::signature::SignatureRule;
use crate::domain::signature::SignedMessage;
use crate::domain::signature::SignedRequest;
use crate::domain::signature::SigningKey;

use super::receiver::Received;

/// How far a signed time may be from the receiver's, as the libraries of Standard
/// Webhooks have it (<https://www.standardwebhooks.com/>, "Verifying webhook
/// authenticity").
const TOLERANCE: Duration = Duration::minutes(5);

/// Checks the requests of one profile.
#[derive(Debug)]
pub struct Verifier {
    profile: Arc<Profile>,
    keys: Vec<SigningKey>,
}

/// What is to be said about a signature. The words are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is right; says which header.
    Verified(String),
    /// It was not looked at; says why.
    NotChecked(String),
    /// It is wrong or missing; says how.
    Refused(String),
}

impl Verifier {
    /// A verifier that accepts each of these secrets; without any, it checks nothing.
    ///
    /// # Errors
    ///
    /// When one is no secret of the profile, or the profile knows none.
    pub fn new(profile: Arc<Profile>, secrets: &[String]) -> Result<Verifier, InvalidField> {
        let Some(rule) = profile.secret() else {
            let why = format!("profile {} knows no signature", profile.name());
            let refused = InvalidField::new("secret", "SIGNING_UNSUPPORTED", why);
            let none = Verifier { profile, keys: Vec::new() };
            return if secrets.is_empty() { Ok(none) } else { Err(refused) };
        };
        let keys = secrets.iter().map(|secret| rule.key(secret)).collect::<Result<_, _>>()?;
        Ok(Verifier { profile, keys })
    }

    /// The profile that it goes by.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Looks at one request.
    #[must_use]
    pub fn check(&self, received: &Received) -> Verdict {
        let Some(rule) = self.profile.signature() else {
            return Verdict::NotChecked(format!("{} knows no signature", self.profile.name()));
        };
        let signature = received.headers.iter().any(|(name, _)| *name == rule.header);
        if self.keys.is_empty() {
            return Verdict::NotChecked(if signature {
                format!("{} is there; give --secret to check it", rule.header)
            } else {
                "the request is not signed".to_owned()
            });
        }
        match self.verify(rule, received) {
            Ok(()) => Verdict::Verified(rule.header.to_string()),
            Err(why) => Verdict::Refused(why),
        }
    }

    fn verify(&self, rule: &SignatureRule, received: &Received) -> Result<(), String> {
        let body = received.body.as_ref().ok_or("the body is too long to check")?;
        let header = one(received, Some(&rule.header))?;
        let (id, timestamp) = match rule.message {
            SignedMessage::Body => ("", ""),
            SignedMessage::Standard => (
                one(received, self.profile.id_header())?,
                one(received, self.profile.timestamp_header())?,
            ),
        };
        let request = SignedRequest { id, timestamp, body };
        if !self.keys.iter().any(|key| rule.verify(key, request, header)) {
            let secrets = if self.keys.len() == 1 { "the secret" } else { "any of the secrets" };
            return Err(format!("{} was not made with {secrets}", rule.header));
        }
        match rule.message {
            SignedMessage::Body => Ok(()),
            SignedMessage::Standard => timely(received, timestamp),
        }
    }
}

fn one<'a>(received: &'a Received, name: Option<&HeaderName>) -> Result<&'a str, String> {
    let name = name.ok_or("the profile signs a header that it does not name")?;
    match received.headers.iter().filter(|(header, _)| header == name).count() {
        0 => Err(format!("there is no {name} header")),
        1 => received.header(name.as_str()).ok_or_else(|| format!("{name} is not text")),
        _ => Err(format!("there are several {name} headers")),
    }
}

fn timely(received: &Received, timestamp: &str) -> Result<(), String> {
    let signed: i64 = timestamp.parse().map_err(|_| "the signed time is no number")?;
    let apart = received.at.unix_timestamp().saturating_sub(signed).unsigned_abs();
    if TOLERANCE.whole_seconds().unsigned_abs() < apart {
        return Err(format!("signed correctly, but {apart} s away from now"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;
    use time::OffsetDateTime;

    use crate::domain::profile::Profiles;

    use super::*;

    const SECRET: &str = "0123456789abcdef";
    const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn verifier(profile: &str, secrets: &[&str]) -> Verifier {
        let profile = Arc::clone(Profiles::built_in().get(profile).expect("built in"));
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        Verifier::new(profile, &secrets).expect("secrets of the profile")
    }

    fn request(headers: &[(&'static str, &str)], body: &'static [u8]) -> Received {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("ASCII"))
        };
        Received {
            at: OffsetDateTime::from_unix_timestamp(1_614_265_330).expect("in range"),
            method: "POST".to_owned(),
            path: "/".to_owned(),
            headers: headers.iter().map(header).collect(),
            body: Some(Bytes::from_static(body)),
            answer: 200,
        }
    }

    /// The vector of the Standard Webhooks libraries, signed at 1614265330.
    fn standard() -> Received {
        let headers = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ];
        request(&headers, br#"{"test": 2432232314}"#)
    }

    #[test]
    fn a_right_signature_is_verified_with_any_of_the_secrets() {
        let verdict = Verdict::Verified("webhook-signature".to_owned());
        assert_eq!(verifier("standard", &[STANDARD_SECRET]).check(&standard()), verdict);
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let both = verifier("standard", &[other, STANDARD_SECRET]);
        assert_eq!(both.check(&standard()), verdict);
        let refused = verifier("standard", &[other]).check(&standard());
        assert!(matches!(refused, Verdict::Refused(_)), "{refused:?}");
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        let check =
            |received: &Received| match verifier("standard", &[STANDARD_SECRET]).check(received) {
                Verdict::Refused(why) => why,
                other => panic!("{other:?}"),
            };
        let mut late = standard();
        late.at += Duration::minutes(6);
        assert_eq!(check(&late), "signed correctly, but 360 s away from now");
        let mut changed = standard();
        changed.body = Some(Bytes::from_static(b"{}"));
        assert_eq!(check(&changed), "webhook-signature was not made with the secret");
        let mut twice = standard();
        twice.headers.push(twice.headers[0].clone());
        assert_eq!(check(&twice), "there are several webhook-id headers");
        let mut without = standard();
        without.headers.clear();
        assert_eq!(check(&without), "there is no webhook-signature header");
    }

    #[test]
    fn every_profile_has_a_verdict() {
        for profile in ["azodha", "hapihub", "meetinglawyers", "telegramd"] {
            let verifier = verifier(profile, &[SECRET]);
            let rule = verifier.profile().signature().expect("all of them sign");
            let body = b"{}";
            let signed = SignedRequest { id: "", timestamp: "", body };
            let value = rule.sign(&verifier.keys, signed);
            let mut received = request(&[], body);
            received.headers.push((rule.header.clone(), value));
            assert_eq!(verifier.check(&received), Verdict::Verified(rule.header.to_string()));
        }
    }

    #[test]
    fn without_a_secret_nothing_is_checked() {
        let unsigned = verifier("telegramd", &[]).check(&request(&[], b"{}"));
        assert_eq!(unsigned, Verdict::NotChecked("the request is not signed".to_owned()));
        let signed = verifier("standard", &[]).check(&standard());
        assert!(matches!(signed, Verdict::NotChecked(why) if why.contains("--secret")));
    }

    #[test]
    fn a_secret_of_another_profile_is_refused_without_its_value() {
        let profile = Arc::clone(Profiles::built_in().get("standard").expect("built in"));
        let error = Verifier::new(profile, &["hunter2".to_owned()]).expect_err("no whsec_");
        assert!(!error.to_string().contains("hunter2"));
    }
}
