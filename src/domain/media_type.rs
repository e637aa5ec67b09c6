//! Media types, as `Content-Type` names them (RFC 9110, 8.3.1).

const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// Whether the text is a media type of at most 255 characters: `type/subtype`, then
/// parameters.
#[must_use]
pub fn is_media_type(text: &str) -> bool {
    let essence_end = text.find(';').unwrap_or(text.len());
    let (essence, parameters) = text.split_at(essence_end);
    let essence = essence.trim_end_matches([' ', '\t']);
    text.len() <= MEDIA_TYPE_BYTES_MAX
        && essence.split_once('/').is_some_and(|(main, sub)| is_token(main) && is_token(sub))
        && are_parameters(parameters)
}

/// Whether a media type says JSON: `application/json` or a `+json` suffix (RFC 6839, 3.1).
#[must_use]
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default();
    let essence = essence.trim_end_matches([' ', '\t']).to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

fn is_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

/// `*( OWS ";" OWS [ name "=" ( token / quoted-string ) ] )`
fn are_parameters(mut rest: &str) -> bool {
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return true;
        }
        let Some(parameter) = rest.strip_prefix(';') else { return false };
        let parameter = parameter.trim_start_matches([' ', '\t']);
        if parameter.is_empty() || parameter.starts_with(';') {
            rest = parameter;
            continue;
        }
        let Some((name, value)) = parameter.split_once('=') else { return false };
        let end = if value.starts_with('"') {
            quoted_end(value)
        } else {
            let end = value.find([';', ' ', '\t']).unwrap_or(value.len());
            is_token(&value[..end]).then_some(end)
        };
        match end {
            Some(end) if is_token(name) => rest = &value[end..],
            Some(_) | None => return false,
        }
    }
}

/// Where the quoted string that the text begins with ends; printable ASCII only.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if !(0x20..=0x7e).contains(&byte) => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_of_the_standard_pass_and_others_do_not() {
        let good = [
            "application/json",
            "text/html;charset=utf-8",
            "Text/HTML; Charset=\"utf-8\" ; a=b",
            "application/fhir+json",
            "text/plain;",
            "text/plain; ;a=\"x;\\\"y\"",
        ];
        for text in good {
            assert!(is_media_type(text), "{text}");
        }
        let long = format!("text/{}", "a".repeat(251));
        let bad = [
            "",
            "json",
            "/",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "text/plain; charset",
            "text/plain; =a",
            "text/plain; a=",
            "text/plain; a=\"b",
            "text/plain; a=\"b\"c",
            "text/plain, text/html",
            "text/plain\r\nX: y",
            "text/é",
            "text/plain; a=\"é\"",
            " text/plain",
            &long,
        ];
        for text in bad {
            assert!(!is_media_type(text), "{text}");
        }
    }

    #[test]
    fn json_is_known_by_its_name_or_suffix() {
        for text in ["application/json", "Application/JSON ; a=b", "application/fhir+json"] {
            assert!(is_json(text), "{text}");
        }
        for text in ["text/plain", "application/jsonx", "text/plain;x=+json", "application/json5"] {
            assert!(!is_json(text), "{text}");
        }
    }
}
