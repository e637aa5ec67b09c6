//! Wire profiles as callers see them, and as the rules of subscriptions see them.

use crate::domain::profile::{BUILT_IN_NAMES, Profile, Profiles, Statuses};
use crate::domain::subscription_rules::ProfileRules;
use crate::grpc::pb;

pub(super) fn message(profile: &Profile) -> pb::Profile {
    let signature = profile.signature();
    pb::Profile {
        name: profile.name().to_owned(),
        description: profile.description().to_owned(),
        built_in: BUILT_IN_NAMES.contains(&profile.name()),
        content_type: content_type(profile),
        signature_header: signature.map_or("", |rule| rule.header.as_str()).to_owned(),
        signed_by_default: profile.signed_by_default(),
        success_statuses: success_statuses(profile),
        ping_supported: profile.ping().is_some(),
    }
}

/// What a subscription of this profile must keep.
pub(super) fn rules(profile: &Profile, profiles: &Profiles) -> ProfileRules {
    let names = profiles.iter().flat_map(|one| one.signature_header_names());
    ProfileRules {
        name: profile.name().to_owned(),
        signed_by_default: profile.signed_by_default(),
        content_type: content_type(profile),
        signature_headers: names.map(|name| name.as_str().to_owned()).collect(),
        service_patterns: profile.service_patterns(),
        organization_code: profile.body().organization_code.is_some(),
    }
}

fn content_type(profile: &Profile) -> String {
    String::from_utf8_lossy(profile.content_type().as_bytes()).into_owned()
}

fn success_statuses(profile: &Profile) -> String {
    let every = |statuses: std::ops::Range<u16>| statuses.filter(|one| profile.is_success(*one));
    if every(200..300).eq((200..300).filter(|one| Statuses::SUCCESSFUL.contains(*one))) {
        return "2xx".to_owned();
    }
    every(200..300).map(|status| status.to_string()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_profile_can_be_shown() {
        let profiles = Profiles::built_in();
        let shown: Vec<_> = profiles.iter().map(|profile| message(profile)).collect();
        let names: Vec<_> = shown.iter().map(|profile| &*profile.name).collect();
        assert_eq!(names, BUILT_IN_NAMES);
        for profile in &shown {
            assert!(profile.built_in && !profile.description.is_empty(), "{}", profile.name);
            assert!(profile.content_type.contains("json"), "{}", profile.name);
            assert!(!profile.success_statuses.is_empty(), "{}", profile.name);
        }
        let standard = shown.iter().find(|profile| profile.name == "standard").expect("there");
        assert_eq!(standard.signature_header, "webhook-signature");
        assert_eq!(standard.success_statuses, "2xx");
        assert!(standard.signed_by_default);
    }
}
