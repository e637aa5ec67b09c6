//! Wire profiles as callers see them, and as the rules of subscriptions see them.

use crate::domain::ownership::OwnershipRule;
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
        id_only_supported: profile.sends_ids_only(),
        ownership: profile.ownership().map_or("", OwnershipRule::as_str).to_owned(),
        omit_trace_context: profile.omits_trace_context(),
    }
}

/// What a subscription of this profile must keep. Of the other profiles only the
/// signature's header is reserved: their fixed headers may be what this receiver asks for.
pub(super) fn rules(profile: &Profile, profiles: &Profiles) -> ProfileRules {
    let signatures = profiles.iter().filter_map(|one| one.signature()).map(|rule| &rule.header);
    let mut names: Vec<_> = profile.signature_header_names().iter().chain(signatures).collect();
    names.sort_unstable_by_key(|name| name.as_str());
    names.dedup();
    ProfileRules {
        name: profile.name().to_owned(),
        signed_by_default: profile.signed_by_default(),
        content_type: content_type(profile),
        signature_headers: names.iter().map(|name| name.as_str().to_owned()).collect(),
        service_patterns: profile.service_patterns(),
        organization_code: profile.body().organization_code.is_some(),
        operational_events: profile.operational_events(),
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
    fn the_fixed_headers_of_another_profile_are_free() {
        let text = r#"
        name = "meetingdoctors"
        description = "MeetingDoctors: static credentials"
        content_type = "application/json"
        omit_trace_context = true
        [headers]
        Accept = "application/json"
        apiKey = "hunter2"
        [body]
        kind = "envelope"
        fields = [["type", "event.type"], ["occurred_on", "event.occur_time"], ["payload", "event.payload"]]
        time_format = "unix-seconds"
        payload = "object"
    "#;
        let profiles = Profiles::with_folder(vec![("own.toml".to_owned(), text.to_owned())]);
        let profiles = profiles.expect("a profile");
        assert!(message(profiles.get("meetingdoctors").expect("there")).omit_trace_context);
        let reserved =
            |name| rules(profiles.get(name).expect("there"), &profiles).signature_headers;
        let signatures = ["telegramd-signature", "webhook-signature", "x-azodha-signature"];
        for name in ["meetingdoctors", "azodha"] {
            let reserved = reserved(name);
            assert_eq!(reserved.contains(&"apikey".to_owned()), name == "meetingdoctors");
            assert!(signatures.iter().all(|one| reserved.contains(&(*one).to_owned())), "{name}");
        }
    }

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
            assert!(profile.ownership.is_empty(), "{} asks nobody", profile.name);
            assert!(!profile.omit_trace_context, "{} goes on with traces", profile.name);
        }
        let standard = shown.iter().find(|profile| profile.name == "standard").expect("there");
        assert_eq!(standard.signature_header, "webhook-signature");
        assert_eq!(standard.success_statuses, "2xx");
        assert!(standard.signed_by_default);
    }
}
