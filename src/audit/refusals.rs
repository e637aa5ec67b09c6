//! Which refused calls become entries of their own, and which are counted.
//!
//! Nobody can fill the log, or the memory, by calling in vain: of what one caller is refused
//! with one code only so many a minute are entries of their own, and the rest are one entry
//! with their number. Without clock and I/O.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::domain::audit::{Chain, NewAuditEntry};

/// What is counted is told at the end of each.
pub(super) const WINDOW: Duration = Duration::from_mins(1);
/// Entries of their own in a window, of each kind and of all.
const OWN_MAX: u32 = 30;
const ALL_MAX: u32 = 300;
/// Kinds that are told apart in a window; more are counted together.
const KINDS_MAX: usize = 100;
/// Entries that wait to be written. While it is full, everything is counted.
const WAITING_MAX: usize = 1000;

/// Calls that are much alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    chain: Chain,
    principal: String,
    code: String,
}

/// How many of a kind there were.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    own: u32,
    counted: u32,
}

/// Refused calls that are not written yet.
#[derive(Debug)]
pub(super) struct Refusals {
    waiting: VecDeque<NewAuditEntry>,
    kinds: BTreeMap<Kind, Tally>,
    /// Counted, of no kind that is told apart.
    others: u32,
    /// Entries of their own in this window.
    own: u32,
    began: Instant,
}

impl Refusals {
    pub(super) fn new(now: Instant) -> Refusals {
        let (waiting, kinds) = (VecDeque::new(), BTreeMap::new());
        Refusals { waiting, kinds, others: 0, own: 0, began: now }
    }

    /// Notes a refused call; `false`: it is only counted.
    pub(super) fn note(&mut self, entry: NewAuditEntry, now: Instant) -> bool {
        if WINDOW <= now.saturating_duration_since(self.began) {
            self.close(now);
        }
        let kind = Kind {
            chain: entry.chain.clone(),
            principal: entry.principal.clone(),
            code: entry.code.clone(),
        };
        if KINDS_MAX <= self.kinds.len() && !self.kinds.contains_key(&kind) {
            self.others = self.others.saturating_add(1);
            return false;
        }
        let tally = self.kinds.entry(kind).or_default();
        if OWN_MAX <= tally.own || ALL_MAX <= self.own || WAITING_MAX <= self.waiting.len() {
            tally.counted = tally.counted.saturating_add(1);
            return false;
        }
        tally.own += 1;
        self.own += 1;
        self.waiting.push_back(entry);
        true
    }

    /// Ends the window: what was counted is an entry for each kind, and waits to be written.
    /// What finds no room there is counted on.
    pub(super) fn close(&mut self, now: Instant) {
        self.began = now;
        self.own = 0;
        if 0 < self.others && self.waiting.len() < WAITING_MAX {
            let chain = Chain::Deployment;
            self.waiting.push_back(counted(chain, "", "", std::mem::take(&mut self.others)));
        }
        for (kind, tally) in &mut self.kinds {
            tally.own = 0;
            if 0 < tally.counted && self.waiting.len() < WAITING_MAX {
                let calls = std::mem::take(&mut tally.counted);
                let chain = kind.chain.clone();
                self.waiting.push_back(counted(chain, &kind.principal, &kind.code, calls));
            }
        }
        self.kinds.retain(|_, tally| 0 < tally.counted);
    }

    /// Ends the window if it is over.
    pub(super) fn turn(&mut self, now: Instant) {
        if WINDOW <= now.saturating_duration_since(self.began) {
            self.close(now);
        }
    }

    /// Takes the oldest that wait, at most so many.
    pub(super) fn take(&mut self, max: usize) -> Vec<NewAuditEntry> {
        let end = max.min(self.waiting.len());
        self.waiting.drain(..end).collect()
    }

    /// Puts back what could not be written.
    pub(super) fn put_back(&mut self, entries: Vec<NewAuditEntry>) {
        for entry in entries.into_iter().rev() {
            self.waiting.push_front(entry);
        }
    }
}

fn counted(chain: Chain, principal: &str, code: &str, calls: u32) -> NewAuditEntry {
    NewAuditEntry {
        principal: principal.to_owned(),
        code: code.to_owned(),
        reason: "COUNTED".to_owned(),
        calls,
        ..NewAuditEntry::of_service(chain, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::OrganizationId;

    fn refused(organization: &str, principal: &str, code: &str) -> NewAuditEntry {
        let chain = Chain::stored(organization);
        NewAuditEntry {
            principal: principal.to_owned(),
            code: code.to_owned(),
            ..NewAuditEntry::of_service(chain, "hookward.v1.EventService/GetEvent")
        }
    }

    fn calls(entries: &[NewAuditEntry]) -> u32 {
        entries.iter().map(|entry| entry.calls).sum()
    }

    #[test]
    fn a_flood_of_one_kind_is_a_few_entries_and_a_number() {
        let now = Instant::now();
        let mut refusals = Refusals::new(now);
        let own =
            (0..10_000).filter(|_| refusals.note(refused("", "", "UNAUTHENTICATED"), now)).count();
        assert_eq!(own, 30);
        assert!(refusals.note(refused("clinic", "whk_1", "NOT_FOUND"), now), "another kind");
        refusals.turn(now + WINDOW / 2);
        assert_eq!(refusals.take(1000).len(), 31, "nothing is told before the window's end");
        refusals.turn(now + WINDOW);
        let told = refusals.take(1000);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].calls, &*told[0].code, &*told[0].method),
            (9970, "UNAUTHENTICATED", "")
        );
        assert!(refusals.note(refused("", "", "UNAUTHENTICATED"), now + WINDOW), "a new window");
    }

    #[test]
    fn however_many_kinds_there_are_entries_and_memory_are_bounded_and_no_call_is_lost() {
        let now = Instant::now();
        let mut refusals = Refusals::new(now);
        for number in 0..5000 {
            let organization = OrganizationId::stored(&format!("clinic-{number}"));
            for _ in 0..3 {
                refusals.note(refused(organization.as_str(), "whk_1", "NOT_FOUND"), now);
            }
        }
        assert_eq!(refusals.kinds.len(), KINDS_MAX);
        refusals.close(now);
        let told = refusals.take(10_000);
        assert!(told.len() <= 300 + KINDS_MAX + 1, "{}", told.len());
        assert_eq!(calls(&told), 15_000);
        assert!(refusals.kinds.is_empty());
    }

    #[test]
    fn while_nothing_can_be_written_everything_is_counted_and_told_later() {
        let mut now = Instant::now();
        let mut refusals = Refusals::new(now);
        for _ in 0..20 {
            for number in 0..400 {
                let principal = format!("whk_{}", number % 50);
                refusals.note(refused("clinic", &principal, "NOT_FOUND"), now);
            }
            now += WINDOW;
        }
        refusals.turn(now);
        assert!(refusals.waiting.len() <= WAITING_MAX, "{}", refusals.waiting.len());
        let mut told = refusals.take(10_000);
        refusals.close(now);
        told.extend(refusals.take(10_000));
        assert_eq!(calls(&told), 20 * 400);
    }

    #[test]
    fn what_is_put_back_comes_first_again() {
        let now = Instant::now();
        let mut refusals = Refusals::new(now);
        for code in ["1", "2", "3", "4"] {
            refusals.note(refused("clinic", "whk_1", code), now);
        }
        let taken = refusals.take(2);
        refusals.put_back(taken);
        let codes: Vec<_> = refusals.take(10).into_iter().map(|entry| entry.code).collect();
        assert_eq!(codes, ["1", "2", "3", "4"]);
    }
}
