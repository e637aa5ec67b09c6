//! The event types of the four platforms, embedded: what they are called, what
//! their payloads look like, an example of each. Where they come from is in
//! `catalog/README.md`.

use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::value::RawValue;

/// An event type of a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventType {
    /// The platform; also the name of its wire profile.
    pub catalog: &'static str,
    /// Such as `medical-encounters.create`.
    pub name: &'static str,
    /// One line for people.
    pub description: String,
    /// JSON Schema, draft 2020-12.
    pub schema_json: &'static str,
    /// A synthetic payload that the schema accepts, compact; `None` when events of
    /// this type have no payload.
    pub example_json: Option<String>,
    /// What the schema describes.
    pub applies_to: AppliesTo,
}

/// What a schema describes. The example is the event's payload either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppliesTo {
    /// The HTTP body, which is the payload itself.
    Body,
    /// The payload inside the body.
    Payload,
}

/// Embeds `catalog/<platform>/<name>.json` for each name.
macro_rules! embed {
    ($($catalog:literal: [$($name:literal,)*],)*) => {
        &[$($((
            $catalog,
            $name,
            include_str!(concat!("../../catalog/", $catalog, "/", $name, ".json")),
        ),)*)*]
    };
}

/// Event types by platform and name.
#[derive(Debug)]
pub struct Catalog {
    /// Ordered by platform and name.
    types: Vec<EventType>,
}

impl Catalog {
    /// The embedded catalogue, read once.
    ///
    /// # Panics
    ///
    /// Never: a test reads all of it.
    pub fn built_in() -> &'static Catalog {
        static CATALOG: OnceLock<Catalog> = OnceLock::new();
        CATALOG.get_or_init(|| {
            let read = EMBEDDED
                .iter()
                .map(|&(catalog, name, schema)| EventType::read(catalog, name, schema));
            let mut types: Vec<EventType> = read.collect();
            types.sort_by_key(|event_type| (event_type.catalog, event_type.name));
            Catalog { types }
        })
    }

    /// The event type of that platform and name.
    #[must_use]
    pub fn get(&self, catalog: &str, name: &str) -> Option<&EventType> {
        let key =
            |event_type: &EventType| (event_type.catalog, event_type.name).cmp(&(catalog, name));
        self.types.binary_search_by(key).ok().map(|at| &self.types[at])
    }

    /// Every event type, ordered by platform and name.
    pub fn iter(&self) -> impl Iterator<Item = &EventType> {
        self.types.iter()
    }
}

/// What is read of a schema beside the schema.
#[derive(Deserialize)]
struct Annotations<'a> {
    description: String,
    #[serde(rename = "x-applies-to")]
    applies_to: AppliesTo,
    #[serde(rename = "x-payload-presence", default)]
    presence: Presence,
    #[serde(borrow)]
    examples: Vec<&'a RawValue>,
}

#[derive(Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Presence {
    #[default]
    Always,
    Optional,
    Absent,
}

impl EventType {
    fn read(catalog: &'static str, name: &'static str, schema: &'static str) -> EventType {
        let schema = schema.trim_end();
        let notes: Annotations<'_> =
            serde_json::from_str(schema).expect("embedded schemas have their annotations");
        let example = notes.examples.first().expect("embedded schemas have an example");
        EventType {
            catalog,
            name,
            description: notes.description,
            schema_json: schema,
            example_json: (notes.presence != Presence::Absent).then(|| compact(example.get())),
            applies_to: notes.applies_to,
        }
    }
}

/// A JSON text without the whitespace between its tokens; keys stay in order and
/// numbers as they are spelt.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for letter in json.chars() {
        if in_string || !letter.is_ascii_whitespace() {
            out.push(letter);
        }
        if letter == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && letter == '\\' && !escaped;
    }
    out
}

/// Platform, name and schema of each file under `catalog/`.
const EMBEDDED: &[(&str, &str, &str)] = embed! {
    "azodha": [
        "AppointmentToCareTaskActivityLog",
        "AssessmentResponseToWellbeingScore",
        "BookAppointment",
        "HealthProgramActivated",
        "HealthRecordCounter",
        "InferenceToCareTasks",
        "InferenceToKeyFindings",
        "InferenceToObservations",
        "Notification",
        "OpenTele",
        "SurveyAssessment",
        "UploadedFileAndTest",
    ],
    "hapihub": [
        "medical-encounters.create",
        "medical-encounters.remove",
        "medical-encounters.update",
        "ping",
    ],
    "meetinglawyers": [
        "app_opened",
        "app_uninstalled",
        "installation_created",
        "message_read",
        "message_sent",
        "user_first_logged_in",
        "user_logged_in",
        "user_status_changed",
    ],
    "telegramd": [
        "affiliate_admin_was_assigned",
        "external_questionnaire_instance_synchronization_attempt",
        "message-from-admin-practitioner-received",
        "new_status_set_to_request",
        "order_created",
        "order_expedited",
        "order_payment_collected",
        "order_product_variation_transitioned",
        "order_submitted",
        "order_updated",
        "patient_communication_answered_call",
        "patient_communication_follow_up_required",
        "patient_communication_text_message_sent",
        "patient_communication_unanswered_call",
        "pharmacy_bundle_fax_sent",
        "prescription_approved_by_practitioner",
        "prescription_sent_to_pharmacy",
        "shipping_details_set",
        "visit_type_overridden",
        "visit_type_updated",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry {
        system: String,
        event: String,
        applies_to: AppliesTo,
    }

    #[test]
    fn what_is_embedded_is_what_the_index_lists() {
        let index = include_str!("../../catalog/index.json");
        let mut listed: Vec<Entry> = serde_json::from_str(index).expect("an index");
        listed.sort_by(|one, other| (&one.system, &one.event).cmp(&(&other.system, &other.event)));
        let listed: Vec<_> = listed.iter().map(|e| (&*e.system, &*e.event, e.applies_to)).collect();
        let embedded: Vec<_> =
            Catalog::built_in().iter().map(|e| (e.catalog, e.name, e.applies_to)).collect();
        assert_eq!(embedded, listed);
        assert_eq!(embedded.len(), 44);
    }

    #[test]
    fn every_schema_accepts_its_example() {
        for event_type in Catalog::built_in().iter() {
            let schema = serde_json::from_str(event_type.schema_json).expect("JSON");
            let validator = jsonschema::validator_for(&schema).expect("a schema");
            if let Some(example) = &event_type.example_json {
                let example = serde_json::from_str(example).expect("JSON");
                assert!(validator.is_valid(&example), "{}", event_type.name);
            }
        }
    }

    #[test]
    fn an_example_is_compact_and_keeps_its_order() {
        let found = Catalog::built_in().get("hapihub", "medical-encounters.create");
        let example = found.and_then(|event_type| event_type.example_json.as_deref());
        let expected = r#"{"id":"64f0c3a1b2d4e5f60718293a","facility":"5d1e2f3a4b5c6d7e8f901234","patient":"60a1b2c3d4e5f60718293a4b","createdAt":1772637631412}"#;
        assert_eq!(example, Some(expected));
        let ping = Catalog::built_in().get("hapihub", "ping").expect("in the catalogue");
        assert_eq!(ping.example_json, None);
        assert_eq!(Catalog::built_in().get("azodha", "ping"), None);
    }

    #[test]
    fn whitespace_inside_strings_stays() {
        let json = "{ \"a b\" : \"\\\" \\\\\" ,\n\t\"c\":[ 1.0 , \" } \" ] }";
        assert_eq!(compact(json), "{\"a b\":\"\\\" \\\\\",\"c\":[1.0,\" } \"]}");
    }
}
