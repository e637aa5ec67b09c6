//! A body as people read it: JSON indented, everything else as it is, and the start
//! of what is long.

use serde::de::IgnoredAny;

use crate::cli::terminal::visible;

/// Most bytes of a body that are shown.
const SHOWN_BYTES_MAX: usize = 1024;
const INDENT: &str = "  ";

/// The lines to show of a body. Spelling and order of a JSON text stay as they came.
pub(super) fn lines(body: &[u8]) -> Vec<String> {
    let (start, cut) = body.split_at(body.len().min(SHOWN_BYTES_MAX));
    let text = String::from_utf8_lossy(start);
    let json = serde_json::from_slice::<IgnoredAny>(body).is_ok();
    let mut lines: Vec<String> = if json {
        indent(&text).lines().map(visible).collect()
    } else {
        text.lines().map(visible).collect()
    };
    if !cut.is_empty() {
        lines.push(format!("… {} bytes more", cut.len()));
    }
    lines
}

/// Puts the members of a JSON text, or of the start of one, on lines of their own.
fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth: usize = 0;
    let mut letters = json.chars().peekable();
    let (mut in_string, mut escaped) = (false, false);
    while let Some(letter) = letters.next() {
        if in_string {
            out.push(letter);
            in_string = letter != '"' || escaped;
            escaped = letter == '\\' && !escaped;
            continue;
        }
        match letter {
            '"' => {
                in_string = true;
                out.push(letter);
            }
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = letters.next_if(|letter| matches!(letter, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(depth, &mut out);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(depth, &mut out);
                out.push(letter);
            }
            ',' => {
                out.push(letter);
                break_line(depth, &mut out);
            }
            ':' => out.push_str(": "),
            letter if letter.is_ascii_whitespace() => {}
            letter => out.push(letter),
        }
    }
    out
}

fn break_line(depth: usize, out: &mut String) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str(INDENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_spelt_as_it_came() {
        let body = br#"{"b": 1.0, "a":{ },"list":[1e3,"x, {\"y\":\\"],"none":[ ]}"#;
        let expected = [
            "{",
            "  \"b\": 1.0,",
            "  \"a\": {},",
            "  \"list\": [",
            "    1e3,",
            "    \"x, {\\\"y\\\":\\\\\"",
            "  ],",
            "  \"none\": []",
            "}",
        ];
        assert_eq!(lines(body), expected);
        assert_eq!(lines(b" null "), ["null"]);
    }

    #[test]
    fn what_is_no_json_is_shown_as_text() {
        assert_eq!(lines(b"{not json\n\x1b[2J\xff"), ["{not json", "\\u{1b}[2J\u{fffd}"]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_long_body_shows_its_start() {
        let body = format!("[\"{}\"]", "é".repeat(2000));
        let lines = lines(body.as_bytes());
        assert_eq!(lines[0], "[");
        assert!(lines[1].starts_with("  \"é") && lines[1].len() < 1100);
        assert_eq!(lines[2], format!("… {} bytes more", body.len() - 1024));
        assert_eq!(lines.len(), 3);
    }
}
