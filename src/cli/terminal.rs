//! Text for terminals: sparing colour, and nothing in it that a stranger's request
//! could use to write over the screen.

use std::fmt;
use std::io::IsTerminal;
use std::io::stdout;

/// Whether output is coloured, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    coloured: bool,
}

/// Text with a colour, and with the width of the text alone when it is padded.
#[derive(Clone, Debug)]
pub struct Painted {
    text: String,
    code: Option<&'static str>,
}

impl Paint {
    /// Colours, if standard output is a terminal and `no_color` is not set
    /// (<https://no-color.org/>).
    #[must_use]
    pub fn for_stdout(no_color: bool) -> Paint {
        Paint { coloured: !no_color && stdout().is_terminal() }
    }

    /// No colours.
    #[must_use]
    pub fn plain() -> Paint {
        Paint { coloured: false }
    }

    /// All went well.
    #[must_use]
    pub fn good(self, text: impl Into<String>) -> Painted {
        self.paint(text, "32")
    }

    /// Something is wrong.
    #[must_use]
    pub fn bad(self, text: impl Into<String>) -> Painted {
        self.paint(text, "31")
    }

    /// Something to look at.
    #[must_use]
    pub fn notice(self, text: impl Into<String>) -> Painted {
        self.paint(text, "33")
    }

    /// Beside the point.
    #[must_use]
    pub fn quiet(self, text: impl Into<String>) -> Painted {
        self.paint(text, "2")
    }

    /// A heading.
    #[must_use]
    pub fn strong(self, text: impl Into<String>) -> Painted {
        self.paint(text, "1")
    }

    /// An HTTP status, as good as it is.
    #[must_use]
    pub fn status(self, status: u16) -> Painted {
        match status {
            200..=299 => self.good(status.to_string()),
            _ => self.bad(status.to_string()),
        }
    }

    fn paint(self, text: impl Into<String>, code: &'static str) -> Painted {
        Painted { text: text.into(), code: self.coloured.then_some(code) }
    }
}

impl fmt::Display for Painted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            None => formatter.pad(&self.text),
            Some(code) => {
                write!(formatter, "\x1b[{code}m")?;
                formatter.pad(&self.text)?;
                formatter.write_str("\x1b[0m")
            }
        }
    }
}

/// `text` on one line, with everything that moves a cursor, changes a colour or turns
/// the direction of writing made visible.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if acts(letter) {
            shown.extend(letter.escape_unicode());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Control characters, and those that change the direction of what follows (Unicode
/// Standard Annex 9, section 2).
fn acts(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_adds_nothing_to_the_width() {
        let coloured = Paint { coloured: true };
        assert_eq!(format!("{:<5}|", coloured.good("ok")), "\x1b[32mok   \x1b[0m|");
        assert_eq!(format!("{:<5}|", Paint::plain().good("ok")), "ok   |");
        assert_eq!(coloured.status(204).to_string(), "\x1b[32m204\x1b[0m");
        assert_eq!(coloured.status(503).to_string(), "\x1b[31m503\x1b[0m");
    }

    #[test]
    fn what_would_act_on_the_terminal_is_shown_instead() {
        assert_eq!(visible("a\x1b[2Jb\r\n"), "a\\u{1b}[2Jb\\u{d}\\u{a}");
        assert_eq!(visible("\u{9b}1m \u{202e}x"), "\\u{9b}1m \\u{202e}x");
        assert_eq!(visible("größer ✓"), "größer ✓");
    }
}
