//! What a refused call says: the details that callers' programs branch on.

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Field and reason of the first violation of an `INVALID_ARGUMENT`.
pub(crate) fn violation(status: &Status) -> (String, String) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_details_bad_request().expect("BadRequest is there");
    let first = details.field_violations.first().expect("a violation").clone();
    assert!(!first.description.is_empty(), "a sentence for people: {first:?}");
    (first.field, first.reason)
}

/// Everything of a status that its caller sees.
pub(crate) fn seen(status: &Status) -> (Code, String, Vec<u8>) {
    (status.code(), status.message().to_owned(), status.details().to_vec())
}
