//! All profiles that a server knows: the built-in ones and the operator's folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Profile;

/// The profiles that are always there, in order of their names.
pub const BUILT_IN_NAMES: [&str; 5] =
    ["azodha", "hapihub", "meetinglawyers", "standard", "telegramd"];

const BUILT_IN: [(&str, &str); 5] = [
    ("azodha.toml", include_str!("../../../profiles/azodha.toml")),
    ("hapihub.toml", include_str!("../../../profiles/hapihub.toml")),
    ("meetinglawyers.toml", include_str!("../../../profiles/meetinglawyers.toml")),
    ("standard.toml", include_str!("../../../profiles/standard.toml")),
    ("telegramd.toml", include_str!("../../../profiles/telegramd.toml")),
];

/// Profiles by name.
#[derive(Clone, Debug)]
pub struct Profiles {
    by_name: BTreeMap<String, Arc<Profile>>,
}

/// A profile file that cannot be used. Names the file and the key, never the value of
/// a fixed header: it may be a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile file {file}: {key}: {why}")]
pub struct ProfileError {
    /// Name of the file.
    pub file: String,
    /// The key that is wrong, such as `signature.format`, or the line it is on.
    pub key: String,
    /// What is allowed.
    pub why: String,
}

impl Profiles {
    /// The built-in profiles.
    ///
    /// # Panics
    ///
    /// Never: a test reads every one of them.
    #[must_use]
    pub fn built_in() -> Profiles {
        let mut profiles = Profiles { by_name: BTreeMap::new() };
        for (file, text) in BUILT_IN {
            profiles.add(file, text).expect("built-in profiles are right");
        }
        profiles
    }

    /// The built-in profiles and those of an operator's folder, given as file names
    /// and texts.
    ///
    /// # Errors
    ///
    /// The first file that is no profile, or takes a name that is taken.
    pub fn with_folder(entries: Vec<(String, String)>) -> Result<Profiles, ProfileError> {
        let mut profiles = Profiles::built_in();
        for (file, text) in entries {
            profiles.add(&file, &text)?;
        }
        Ok(profiles)
    }

    /// The profile of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Profile>> {
        self.by_name.get(name)
    }

    /// Every profile, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.by_name.values()
    }

    fn add(&mut self, file: &str, text: &str) -> Result<(), ProfileError> {
        let profile = Profile::parse(file, text)?;
        let name = profile.name().to_owned();
        if self.by_name.contains_key(&name) {
            let owner = if BUILT_IN_NAMES.contains(&name.as_str()) {
                "a built-in profile"
            } else {
                "another file's profile"
            };
            let why = format!("`{name}` is the name of {owner}");
            return Err(ProfileError { file: file.to_owned(), key: "name".to_owned(), why });
        }
        self.by_name.insert(name, Arc::new(profile));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEETINGDOCTORS: &str = r#"
        name = "meetingdoctors"
        description = "MeetingDoctors: static credentials"
        content_type = "application/json"
        [headers]
        Accept = "application/json"
        apiKey = "hunter2"
        [body]
        kind = "envelope"
        fields = [["type", "event.type"], ["occurred_on", "event.occur_time"], ["payload", "event.payload"]]
        time_format = "unix-seconds"
        payload = "object"
    "#;

    fn entry(text: &str) -> Vec<(String, String)> {
        vec![("own.toml".to_owned(), text.to_owned())]
    }

    #[test]
    fn the_built_in_profiles_are_listed_by_name() {
        let profiles = Profiles::built_in();
        let names: Vec<&str> = profiles.iter().map(|profile| profile.name()).collect();
        assert_eq!(names, BUILT_IN_NAMES);
        assert!(profiles.get("Standard").is_none());
    }

    #[test]
    fn an_operators_profile_joins_them() {
        let profiles = Profiles::with_folder(entry(MEETINGDOCTORS)).expect("a profile");
        let profile = profiles.get("meetingdoctors").expect("joined");
        let names: Vec<&str> =
            profile.fixed_headers().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["accept", "apikey"]);
        assert!(!profile.signed_by_default());
        assert!(!format!("{profile:?}").contains("hunter2"), "values are sensitive");
    }

    #[test]
    fn a_name_can_be_taken_once() {
        let again = MEETINGDOCTORS.replace("meetingdoctors", "azodha");
        let error = Profiles::with_folder(entry(&again)).expect_err("built in");
        let text = "profile file own.toml: name: `azodha` is the name of a built-in profile";
        assert_eq!(error.to_string(), text);

        let twice = [entry(MEETINGDOCTORS), entry(MEETINGDOCTORS)].concat();
        let error = Profiles::with_folder(twice).expect_err("taken");
        assert!(error.why.contains("another file's"), "{error}");
    }
}
