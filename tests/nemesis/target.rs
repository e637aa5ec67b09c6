//! The subscriptions of the run, as their receivers know them: what each must look like,
//! and how its receiver behaves at the moment.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use standardwebhooks::Webhook;

use crate::wire::Received;

/// How a receiver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// 200 at once.
    Well,
    /// 200 after a while.
    Slow(Duration),
    /// This status at once, with a `Retry-After` of a second to a 429.
    Failing(u16),
    /// Takes requests and never answers.
    Hanging,
    /// Two tricks for each delivery, then 200.
    Hostile,
}

/// What a target is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Healthy and there from the first event to the last: take-overs and latencies are
    /// measured on these.
    Steady,
    /// There from the first event to the last, but not always well.
    Troubled,
    /// Comes and goes.
    Passing,
}

/// How to subscribe a receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) organization: usize,
    pub(crate) profile: &'static str,
    pub(crate) pattern: &'static str,
    pub(crate) purpose: Purpose,
    pub(crate) usual: Mood,
    /// Called by name over TLS; else by address without.
    pub(crate) secure: bool,
    pub(crate) waits: &'static [u64],
    pub(crate) timeout: Duration,
    pub(crate) in_flight: u32,
}

pub(crate) struct Target {
    pub(crate) number: usize,
    pub(crate) plan: Plan,
    /// Before its creation was asked for.
    pub(crate) born: Instant,
    state: Mutex<State>,
}

pub(crate) struct State {
    /// Of the subscription; empty while there is none.
    pub(crate) id: String,
    pub(crate) mood: Mood,
    pub(crate) secrets: Vec<Secret>,
    /// When its creation was acknowledged.
    pub(crate) since: Option<Instant>,
    /// When its deletion was asked for and acknowledged.
    pub(crate) leaving: Option<Instant>,
    pub(crate) left: Option<Instant>,
    /// Stretches without requests: from the OK of a pause to the call that resumes.
    pub(crate) pauses: Vec<(Instant, Option<Instant>)>,
}

pub(crate) struct Secret {
    pub(crate) secret: String,
    /// When its end was acknowledged.
    pub(crate) until: Option<Instant>,
}

/// After the end of a secret, attempts may still start with it for so long, and take a
/// moment to arrive.
const SECRET_GRACE: Duration = Duration::from_millis(1100);

/// All targets, by number.
#[derive(Default)]
pub(crate) struct Targets {
    all: Mutex<Vec<Arc<Target>>>,
    close: AtomicBool,
}

impl Targets {
    pub(crate) fn add(&self, plan: Plan) -> Arc<Target> {
        let mut all = self.lock();
        let state = State {
            id: String::new(),
            mood: plan.usual,
            secrets: Vec::new(),
            since: None,
            leaving: None,
            left: None,
            pauses: Vec::new(),
        };
        let target =
            Target { number: all.len(), plan, born: Instant::now(), state: Mutex::new(state) };
        let target = Arc::new(target);
        all.push(Arc::clone(&target));
        target
    }

    pub(crate) fn get(&self, number: usize) -> Option<Arc<Target>> {
        self.lock().get(number).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Target>> {
        self.lock().clone()
    }

    /// Those of an organization that are there to stay.
    pub(crate) fn lasting(&self, organization: usize) -> Vec<Arc<Target>> {
        let lasting = |target: &&Arc<Target>| {
            target.plan.organization == organization && target.plan.purpose != Purpose::Passing
        };
        self.lock().iter().filter(lasting).cloned().collect()
    }

    /// Whether connections end after their next answer.
    pub(crate) fn close_connections(&self, close: bool) {
        self.close.store(close, Ordering::SeqCst);
    }

    pub(crate) fn closes_connections(&self) -> bool {
        self.close.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Target>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mood(&self) -> Mood {
        self.state().mood
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Whether its pattern takes events of this type.
    pub(crate) fn matches(&self, kind: &str) -> bool {
        match self.plan.pattern.strip_suffix('*') {
            Some(prefix) => kind.starts_with(prefix),
            None => kind == self.plan.pattern,
        }
    }

    /// Whether the request is signed with a secret of the target's; `now`: with one that
    /// has not ended.
    pub(crate) fn is_signed(&self, request: &Received, now: bool) -> bool {
        let state = self.state();
        state.secrets.iter().any(|secret| {
            let over = secret.until.is_some_and(|until| until + SECRET_GRACE < request.arrival);
            !(now && over) && is_signed(self.plan.profile, &secret.secret, request)
        })
    }
}

/// Seconds from the time in the headers to now; `None` where a profile sends none.
pub(crate) fn clock_off(request: &Received) -> Option<f64> {
    let sent: f64 = request.header("webhook-timestamp")?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    // Whole seconds are sent.
    Some(now - sent - 0.5)
}

fn is_signed(profile: &str, secret: &str, request: &Received) -> bool {
    let prefixed = |name: &str| {
        request.header(name).and_then(|value| value.strip_prefix("sha256=")).map(str::to_owned)
    };
    let digest = || hmac(secret.as_bytes(), &request.body);
    match profile {
        "standard" => standard_accepts(secret, request),
        "telegramd" => prefixed("TelegraMD-Signature") == Some(hex(&digest())),
        "azodha" => prefixed("X-Azodha-Signature") == Some(hex(&digest())),
        "hapihub" => prefixed("X-HapiHub-Signature") == Some(hex(&digest())),
        "meetinglawyers" => prefixed("X-Signature") == Some(STANDARD.encode(digest())),
        other => panic!("{other} is no profile"),
    }
}

/// Whether the reference library accepts the request.
fn standard_accepts(secret: &str, request: &Received) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) else { return false };
        headers.insert(name, value);
    }
    let webhook = Webhook::new(secret).expect("the library reads the secret");
    webhook.verify(&request.body, &headers).is_ok()
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("a String takes everything");
        digits
    })
}
