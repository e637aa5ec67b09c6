//! What happened: every event, every call and every request that a receiver got, with
//! times. Written as it happens, judged afterwards.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::faults::Fault;

/// Everything. Shared by all who take part.
#[derive(Default)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
}

/// The pages of the ledger.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) events: Vec<Event>,
    pub(crate) requests: Vec<Request>,
    pub(crate) calls: Vec<Call>,
    pub(crate) windows: Vec<Window>,
    /// Promises that were seen broken as it happened.
    pub(crate) broken: Vec<String>,
    /// Faults that cannot be made here, and why.
    pub(crate) left_out: Vec<(&'static str, &'static str)>,
    /// When something went on that everybody may feel.
    troubles: Vec<(Instant, Option<Instant>)>,
    ids: HashMap<String, usize>,
    /// Requests of each delivery so far.
    counts: HashMap<(usize, usize), usize>,
}

/// What a publisher knows of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Acknowledged: it must arrive.
    Ok,
    /// Refused for certain: it must not arrive.
    Failed,
    /// The answers were lost: it may arrive.
    Unknown,
}

/// What is to come of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It reaches every receiver.
    Arrives,
    /// No request can be made from it.
    NotSendable,
}

pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) organization: usize,
    pub(crate) kind: String,
    pub(crate) digest: u64,
    pub(crate) fate: Fate,
    pub(crate) begun: Instant,
    pub(crate) known: Known,
    /// When and by whom it was acknowledged first.
    pub(crate) acknowledged: Option<(Instant, usize)>,
}

/// One request that a receiver got.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) target: usize,
    /// `None`: no event of ours, or not readable.
    pub(crate) event: Option<usize>,
    pub(crate) digest: u64,
    /// Who sent it, where that can be told.
    pub(crate) slot: Option<usize>,
    pub(crate) at: Instant,
    /// What it is answered; 0: something that is no answer.
    pub(crate) status: u16,
    /// When the answer had been written; `None`: it could not be, or it was none.
    pub(crate) answered: Option<Instant>,
    /// Whether body and signature are as the profile says.
    pub(crate) genuine: bool,
    /// Whether the secret that signed had ended by then.
    pub(crate) outdated: bool,
    /// Seconds that the time in the headers is off.
    pub(crate) clock_off: Option<f64>,
}

/// One call of `PublishEvents`.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) slot: usize,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) answer: CallAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallAnswer {
    Ok,
    /// The server said no.
    Refused(Code),
    /// The connection broke, or there was none.
    Broken,
    /// Nothing was heard within the caller's limit.
    Silent,
}

/// A stretch in which requests may be sent before their time or twice, because what came of
/// the first was lost.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) fault: Fault,
    /// Whose outcomes may be lost; `None`: everybody's.
    pub(crate) slot: Option<usize>,
    /// Whether any may be lost; else only waits are shortened.
    pub(crate) loses: bool,
    pub(crate) from: Instant,
    pub(crate) to: Option<Instant>,
}

impl Request {
    /// Whether the sender can have had a success.
    pub(crate) fn succeeded(&self) -> bool {
        (200..300).contains(&self.status) && self.answered.is_some()
    }
}

impl Book {
    /// A fault of the main lane begins; its number.
    pub(crate) fn trouble_begins(&mut self) -> usize {
        self.troubles.push((Instant::now(), None));
        self.troubles.len() - 1
    }

    pub(crate) fn trouble_ends(&mut self, trouble: usize) {
        self.troubles[trouble].1 = Some(Instant::now());
    }

    /// Whether nothing has been going on since `from`.
    pub(crate) fn is_calm(&self, from: Instant) -> bool {
        self.troubles.iter().all(|(_, end)| end.is_some_and(|end| end < from))
    }
}

impl Ledger {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        // Pages are appended to; a panic cannot leave half of one.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a promise that was seen broken.
    pub(crate) fn broken(&self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("!!! {what}");
        self.book().broken.push(what);
    }

    /// Notes a fault that cannot be made here.
    pub(crate) fn leave_out(&self, fault: &'static str, why: &'static str) {
        let mut book = self.book();
        if !book.left_out.contains(&(fault, why)) {
            book.left_out.push((fault, why));
        }
    }

    /// Opens a window and gives its number.
    pub(crate) fn disturb(&self, fault: Fault, slot: Option<usize>) -> usize {
        self.open(fault, slot, true)
    }

    /// The same for one that loses no outcome, but shortens waits.
    pub(crate) fn hurry(&self, fault: Fault) -> usize {
        self.open(fault, None, false)
    }

    fn open(&self, fault: Fault, slot: Option<usize>, loses: bool) -> usize {
        let mut book = self.book();
        book.windows.push(Window { fault, slot, loses, from: Instant::now(), to: None });
        book.windows.len() - 1
    }

    /// Closes a window, with time for what had been under way.
    pub(crate) fn calm(&self, window: usize, settle: Duration) {
        self.book().windows[window].to = Some(Instant::now() + settle);
    }

    pub(crate) fn register(&self, event: Event) -> usize {
        let mut book = self.book();
        let number = book.events.len();
        book.ids.insert(event.id.clone(), number);
        book.events.push(event);
        number
    }

    pub(crate) fn acknowledge(&self, event: usize, slot: usize) {
        let mut book = self.book();
        let event = &mut book.events[event];
        event.known = Known::Ok;
        event.acknowledged.get_or_insert((Instant::now(), slot));
    }

    pub(crate) fn refuse(&self, event: usize) {
        self.book().events[event].known = Known::Failed;
    }

    pub(crate) fn called(&self, call: Call) {
        self.book().calls.push(call);
    }

    /// The event of an id.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.book().ids.get(id).copied()
    }

    /// How often a delivery was requested before.
    pub(crate) fn requests_before(&self, target: usize, event: Option<usize>) -> usize {
        let key = event.map(|event| (target, event));
        key.and_then(|key| self.book().counts.get(&key).copied()).unwrap_or_default()
    }

    /// Notes a request, before it is answered.
    pub(crate) fn received(&self, request: Request) -> usize {
        let mut book = self.book();
        if let Some(event) = request.event {
            *book.counts.entry((request.target, event)).or_default() += 1;
        }
        book.requests.push(request);
        book.requests.len() - 1
    }

    /// Notes that a request's answer was written.
    pub(crate) fn answered(&self, request: usize) {
        self.book().requests[request].answered = Some(Instant::now());
    }
}

/// Eight bytes of SHA-256: enough to tell payloads apart.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_be_bytes(*digest.first_chunk().expect("32 bytes"))
}
