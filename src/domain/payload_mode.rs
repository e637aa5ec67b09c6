//! How much of an event a receiver gets: the minimum that is necessary.

use super::invalid::InvalidField;
use super::json::DEPTH_MAX;
use super::json_pointer::JsonPointer;

const POINTERS_MAX: usize = 64;
const POINTER_CHARS_MAX: usize = 256;

/// How much of an event a receiver gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PayloadMode {
    /// All that was published.
    #[default]
    Full,
    /// Its id, and what the profile tells of it beside the payload.
    IdOnly,
    /// The payload with `null` for what these name; at least one.
    Masked(Vec<JsonPointer>),
}

/// The name of a mode. The numbers are those of the column and of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i16)]
pub enum PayloadModeKind {
    /// See [`PayloadMode::Full`].
    #[default]
    Full = 1,
    /// See [`PayloadMode::IdOnly`].
    IdOnly = 2,
    /// See [`PayloadMode::Masked`].
    Masked = 3,
}

impl PayloadModeKind {
    /// Every mode, in the order of the numbers.
    pub const ALL: [PayloadModeKind; 3] =
        [PayloadModeKind::Full, PayloadModeKind::IdOnly, PayloadModeKind::Masked];

    /// The mode stored as `number`.
    #[must_use]
    pub fn stored(number: i16) -> Option<PayloadModeKind> {
        PayloadModeKind::ALL.into_iter().find(|kind| *kind as i16 == number)
    }
}

impl PayloadMode {
    /// The mode of this name, with the pointers to what is masked.
    ///
    /// # Errors
    ///
    /// For `masked_pointers` when the mode needs some, when it has none, or when one breaks
    /// a rule.
    pub fn check(kind: PayloadModeKind, pointers: &[String]) -> Result<PayloadMode, InvalidField> {
        let unmasked = match kind {
            PayloadModeKind::Full => PayloadMode::Full,
            PayloadModeKind::IdOnly => PayloadMode::IdOnly,
            PayloadModeKind::Masked => return check_pointers(pointers).map(PayloadMode::Masked),
        };
        if !pointers.is_empty() {
            let why = "only with PAYLOAD_MODE_MASKED: nothing else masks";
            let reason = "MASKED_POINTERS_UNUSED";
            return Err(InvalidField::new("masked_pointers", reason, why));
        }
        Ok(unmasked)
    }

    /// Its name.
    #[must_use]
    pub fn kind(&self) -> PayloadModeKind {
        match self {
            PayloadMode::Full => PayloadModeKind::Full,
            PayloadMode::IdOnly => PayloadModeKind::IdOnly,
            PayloadMode::Masked(_) => PayloadModeKind::Masked,
        }
    }

    /// The pointers to what is masked, as they are written.
    #[must_use]
    pub fn pointers(&self) -> Vec<String> {
        match self {
            PayloadMode::Full | PayloadMode::IdOnly => Vec::new(),
            PayloadMode::Masked(pointers) => pointers.iter().map(ToString::to_string).collect(),
        }
    }
}

fn check_pointers(texts: &[String]) -> Result<Vec<JsonPointer>, InvalidField> {
    if !(1..=POINTERS_MAX).contains(&texts.len()) {
        let why = "1 to 64 pointers with PAYLOAD_MODE_MASKED";
        return Err(InvalidField::new("masked_pointers", "MASKED_POINTERS_COUNT", why));
    }
    let mut pointers: Vec<JsonPointer> = Vec::with_capacity(texts.len());
    for (place, text) in texts.iter().enumerate() {
        let field = format!("masked_pointers[{place}]");
        let pointer = JsonPointer::parse(text).filter(|pointer| {
            let depth = pointer.tokens().len();
            text.chars().count() <= POINTER_CHARS_MAX && (1..=DEPTH_MAX as usize).contains(&depth)
        });
        let Some(pointer) = pointer else {
            let why = "a JSON pointer (RFC 6901) to something in the payload, such as \
                       /patient/name, of at most 256 characters";
            return Err(InvalidField::new(field, "INVALID_POINTER", why));
        };
        if pointers.contains(&pointer) {
            let why = "this pointer stands earlier in the list";
            return Err(InvalidField::new(field, "DUPLICATE_POINTER", why));
        }
        pointers.push(pointer);
    }
    Ok(pointers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: PayloadModeKind, pointers: &[&str]) -> (String, &'static str) {
        let pointers: Vec<String> = pointers.iter().map(|text| (*text).to_owned()).collect();
        let refused = PayloadMode::check(kind, &pointers).expect_err("it breaks a rule");
        (refused.field, refused.reason)
    }

    #[test]
    fn pointers_are_for_masking_and_masking_is_by_pointers() {
        let all = "masked_pointers".to_owned();
        for kind in [PayloadModeKind::Full, PayloadModeKind::IdOnly] {
            assert_eq!(PayloadMode::check(kind, &[]).expect("it needs none").kind(), kind);
            assert_eq!(refusal(kind, &["/a"]), (all.clone(), "MASKED_POINTERS_UNUSED"));
        }
        let masked = PayloadModeKind::Masked;
        assert_eq!(refusal(masked, &[]), (all.clone(), "MASKED_POINTERS_COUNT"));
        assert_eq!(refusal(masked, &["/a"; 65]), (all, "MASKED_POINTERS_COUNT"));
        let pointers = ["/patient/name".to_owned(), "/a~1b/0".to_owned()];
        let mode = PayloadMode::check(masked, &pointers).expect("two pointers");
        assert_eq!((mode.kind(), mode.pointers()), (masked, pointers.to_vec()));
    }

    #[test]
    fn a_pointer_names_something_in_the_payload_and_is_short() {
        let masked = PayloadModeKind::Masked;
        let (long, deep) = (format!("/{}", "é".repeat(256)), "/a".repeat(129));
        for wrong in ["", "name", "/~2", &long, &deep] {
            let expected = ("masked_pointers[1]".to_owned(), "INVALID_POINTER");
            assert_eq!(refusal(masked, &["/a", wrong]), expected, "{wrong}");
        }
        let expected = ("masked_pointers[2]".to_owned(), "DUPLICATE_POINTER");
        assert_eq!(refusal(masked, &["/a", "/b", "/a"]), expected);
        for right in [&long[..long.len() - 2], &deep[..deep.len() - 2], "/"] {
            assert!(PayloadMode::check(masked, &[right.to_owned()]).is_ok(), "{right}");
        }
    }

    #[test]
    fn a_mode_is_stored_as_its_number() {
        for kind in PayloadModeKind::ALL {
            assert_eq!(PayloadModeKind::stored(kind as i16), Some(kind));
        }
        assert_eq!(PayloadModeKind::stored(0), None);
    }
}
