//! What a receiver answers, as a person writes it: `503,503,200`.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// Most statuses of a script.
const STATUSES_MAX: usize = 1000;

/// Statuses, one for each request; the last is for all that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// At least one; each 200 to 599.
    statuses: Vec<u16>,
}

/// A text that is no [`Answers`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {STATUSES_MAX} statuses from 200 to 599 with commas between them")]
pub struct InvalidAnswers;

/// Answers being played.
#[derive(Debug)]
pub(super) struct Script {
    answers: Answers,
    played: AtomicUsize,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers { statuses: vec![200] }
    }
}

impl FromStr for Answers {
    type Err = InvalidAnswers;

    fn from_str(text: &str) -> Result<Answers, InvalidAnswers> {
        let status = |part: &str| {
            let part = part.trim();
            let plain = part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_digit());
            let status = part.parse().ok().filter(|_| plain);
            status.filter(|status| (200..600).contains(status)).ok_or(InvalidAnswers)
        };
        let statuses: Vec<u16> = text.split(',').map(status).collect::<Result<_, _>>()?;
        if STATUSES_MAX < statuses.len() {
            return Err(InvalidAnswers);
        }
        Ok(Answers { statuses })
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<String> = self.statuses.iter().map(u16::to_string).collect();
        formatter.write_str(&statuses.join(", then "))
    }
}

impl Script {
    pub(super) fn new(answers: Answers) -> Script {
        Script { answers, played: AtomicUsize::new(0) }
    }

    /// The status for the next request.
    pub(super) fn next(&self) -> u16 {
        let statuses = &self.answers.statuses;
        let number = self.played.fetch_add(1, Ordering::Relaxed);
        statuses[number.min(statuses.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_plays_once_and_its_last_status_stays() {
        let answers: Answers = "503, 503,200".parse().expect("statuses");
        assert_eq!(answers.to_string(), "503, then 503, then 200");
        let script = Script::new(answers);
        let played: Vec<u16> = (0..5).map(|_| script.next()).collect();
        assert_eq!(played, [503, 503, 200, 200, 200]);
    }

    #[test]
    fn only_final_statuses_are_answers() {
        for good in ["200", "599", " 404 "] {
            assert!(good.parse::<Answers>().is_ok(), "{good:?}");
        }
        let long = vec!["200"; 1001].join(",");
        for wrong in ["", "200,", ",200", "199", "600", "100", "+20", "0200", "2xx", &long] {
            assert_eq!(wrong.parse::<Answers>(), Err(InvalidAnswers), "{wrong:?}");
        }
    }
}
