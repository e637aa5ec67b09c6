//! Request ids: how a caller asks for a change twice and gets it once.

use prost::Message;

use crate::domain::invalid::InvalidField;
use crate::domain::page::arguments_hash;
use crate::store::RequestRecord;

/// What the store remembers of a request; `None` when its caller chose no id.
/// `content` is the request without the id. `key` is the deployment's, so that the
/// hash does not give away a secret that is part of the content.
///
/// # Errors
///
/// `INVALID_REQUEST_ID` for `request_id` when it is no UUID.
pub(super) fn record(
    request_id: &str,
    key: &[u8; 32],
    method: &'static str,
    content: &impl Message,
) -> Result<Option<RequestRecord>, InvalidField> {
    if request_id.is_empty() {
        return Ok(None);
    }
    let id = uuid(request_id).ok_or_else(|| {
        let why = "a UUID, such as 8a0f7a5e-9b1c-4c4e-8a57-2f6f4d1f3c90";
        InvalidField::new("request_id", "INVALID_REQUEST_ID", why)
    })?;
    let hash = arguments_hash(&[key, method.as_bytes(), &content.encode_to_vec()]);
    Ok(Some(RequestRecord { id, hash }))
}

/// In RFC 9562's own form and lower case; the other forms that the parser knows are
/// not the API's.
fn uuid(text: &str) -> Option<String> {
    let parsed = uuid::Uuid::try_parse(text).ok()?.to_string();
    parsed.eq_ignore_ascii_case(text).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::super::pb::RetryDeliveryRequest;
    use super::*;

    const ID: &str = "8a0f7a5e-9b1c-4c4e-8a57-2f6f4d1f3c90";
    const KEY: [u8; 32] = [7; 32];

    fn read(id: &str, delivery_id: &str, method: &'static str) -> Option<RequestRecord> {
        let delivery_id = delivery_id.to_owned();
        let content = RetryDeliveryRequest { delivery_id, ..RetryDeliveryRequest::default() };
        record(id, &KEY, method, &content).expect("an id of the right form, or none")
    }

    #[test]
    fn a_request_without_an_id_is_not_remembered() {
        assert!(read("", "dlv_1", "Retry").is_none());
    }

    #[test]
    fn the_same_request_in_another_case_is_the_same() {
        let one = read(ID, "dlv_1", "Retry").expect("has an id");
        let other = read(&ID.to_uppercase(), "dlv_1", "Retry").expect("has an id");
        assert_eq!((&*one.id, one.hash), (ID, other.hash));
        assert_eq!(one.id, other.id);
    }

    #[test]
    fn another_method_or_content_is_another_request() {
        let one = read(ID, "dlv_1", "Retry").expect("has an id");
        assert_ne!(one.hash, read(ID, "dlv_2", "Retry").expect("has an id").hash);
        assert_ne!(one.hash, read(ID, "dlv_1", "Rotate").expect("has an id").hash);
    }

    #[test]
    fn only_uuids_are_request_ids() {
        let forms = ["1", "8a0f7a5e9b1c4c4e8a572f6f4d1f3c90", &format!("{{{ID}}}"), &ID[1..]];
        for wrong in forms {
            let content = RetryDeliveryRequest::default();
            let refused = record(wrong, &KEY, "Retry", &content).expect_err("no UUID");
            assert_eq!((&*refused.field, refused.reason), ("request_id", "INVALID_REQUEST_ID"));
        }
    }
}
