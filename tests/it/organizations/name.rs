//! What the texts of requests name, by their fields.

use tonic::Code;

use super::Class;
use crate::harness::rpc::Field;

/// What the text of a field names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// Whom the whole request is for.
    Organization,
    /// Whom a part of it says that it is for.
    InnerOrganization,
    Account,
    Delivery,
    Event,
    SigningSecret,
    Subscription,
    /// Whom an event is about.
    Subject,
    Etag,
    PageToken,
    RequestId,
}

/// How the names of fields that name something end.
const ENDS: [&str; 6] = ["id", "ids", "key", "token", "cursor", "etag"];

impl Name {
    /// `None` for a field that names nothing.
    ///
    /// # Panics
    ///
    /// When it looks as if it did, and nobody has said what.
    pub(super) fn of(field: &Field) -> Option<Name> {
        let name = match (field.name.as_str(), field.message.as_str()) {
            ("organization_id", _) if field.path.len() == 1 => Name::Organization,
            ("organization_id", _) => Name::InnerOrganization,
            ("account_id", _) => Name::Account,
            ("delivery_id", _) => Name::Delivery,
            ("event_id", _) | ("id", ".hookward.v1.Event") => Name::Event,
            ("signing_secret_id", _) => Name::SigningSecret,
            ("subscription_id", _) | ("id", ".hookward.v1.Subscription") => Name::Subscription,
            ("subject", _) => Name::Subject,
            ("etag", _) => Name::Etag,
            ("page_token", _) => Name::PageToken,
            ("request_id", _) => Name::RequestId,
            // By this key nobody finds anything.
            ("client_private_key", ".hookward.v1.ReceiverTls") => return None,
            (other, message) => {
                let named = other.rsplit('_').next().is_some_and(|end| ENDS.contains(&end));
                assert!(!named, "say what {other} of {message} names");
                return None;
            }
        };
        Some(name)
    }

    /// Whether it names something that is one organization's.
    pub(super) fn is_an_object(self) -> bool {
        match self {
            Name::Delivery | Name::Event | Name::SigningSecret | Name::Subscription => true,
            Name::Organization
            | Name::InnerOrganization
            | Name::Account
            | Name::Subject
            | Name::Etag
            | Name::PageToken
            | Name::RequestId => false,
        }
    }

    /// A name of the same form and length that nothing ever had.
    pub(super) fn like(self, name: &str) -> String {
        // An etag ends with a quotation mark.
        let at = name.len() - if self == Name::Etag { 2 } else { 1 };
        let other = if name.as_bytes()[at] == b'1' { "2" } else { "1" };
        format!("{}{other}{}", &name[..at], &name[at + 1..])
    }

    /// How a method answers when it is another's.
    pub(super) fn answer(self, class: Class) -> Code {
        match self {
            Name::Organization => Code::PermissionDenied,
            Name::InnerOrganization | Name::PageToken => Code::InvalidArgument,
            // Each organization has its own, whatever others call theirs.
            Name::Account | Name::Subject | Name::RequestId => Code::Ok,
            // What is yet to be made has no version.
            Name::Etag if class.makes() => Code::Ok,
            Name::Etag => Code::Aborted,
            Name::Delivery | Name::Event | Name::SigningSecret | Name::Subscription => {
                if class.needs_ids() { Code::NotFound } else { Code::Ok }
            }
        }
    }
}
