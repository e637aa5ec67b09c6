//! What events carry, and what each profile's body must look like around it.

/// When everything happens, so that a body is known byte for byte.
pub(crate) const OCCUR_SECS: i64 = 1_767_323_045;
const OCCUR_MICROS: &str = "2026-01-02T03:04:05.000000Z";
const OCCUR_OFFSET: &str = "2026-01-02T03:04:05.000+00:00";

/// A JSON object that names its event, `bytes` long or a little longer.
pub(crate) fn payload(id: &str, kind: &str, bytes: usize) -> String {
    // Spellings that a serialiser would tidy up.
    let begin = format!(r#"{{"n":"{id}","k":"{kind}", "x":1.10e+02,"y":"\u00e9é","pad":""#);
    let pad = "p".repeat(bytes.saturating_sub(begin.len() + 2));
    format!(r#"{begin}{pad}"}}"#)
}

/// The event's id and its payload, out of a body.
pub(crate) fn read<'a>(profile: &str, body: &'a str) -> Option<(&'a str, &'a str)> {
    let payload = match profile {
        "standard" => inside(body, r#","data":"#)?,
        "meetinglawyers" | "hapihub" => inside(body, r#","payload":"#)?,
        _ => body,
    };
    let id = payload.strip_prefix(r#"{"n":""#)?.split('"').next()?;
    Some((id, payload))
}

/// The body that a profile makes of a payload.
pub(crate) fn expected(profile: &str, id: &str, kind: &str, payload: &str) -> String {
    match profile {
        "standard" => {
            format!(r#"{{"type":"{kind}","timestamp":"{OCCUR_MICROS}","data":{payload}}}"#)
        }
        "meetinglawyers" => {
            format!(r#"{{"type":"{kind}","occurred_on":"{OCCUR_OFFSET}","payload":{payload}}}"#)
        }
        "hapihub" => format!(r#"{{"id":"{id}","event":"{kind}","payload":{payload}}}"#),
        _ => payload.to_owned(),
    }
}

fn inside<'a>(body: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(key)?;
    rest.strip_suffix('}')
}
