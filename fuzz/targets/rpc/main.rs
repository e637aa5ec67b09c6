//! Every method with structured requests, at the real server on a real store: answers
//! have the codes that the API documents, errors have their form, and what was stored
//! is there and nobody else's.
#![no_main]

mod call;
mod caller;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hookward_fuzz::{RUNTIME, Server};
use libfuzzer_sys::fuzz_target;

use self::call::Call;
use self::caller::Caller;

/// Most calls of one input.
const CALLS_MAX: usize = 24;

static ORGANIZATION: AtomicU64 = AtomicU64::new(0);
static SERVER: LazyLock<Server> = LazyLock::new(|| RUNTIME.block_on(Server::start()));

fuzz_target!(|calls: Vec<Call>| {
    let number = ORGANIZATION.fetch_add(1, Ordering::Relaxed);
    let mut caller = Caller::new(SERVER.channel.clone(), format!("organization-{number}"));
    RUNTIME.block_on(async move {
        for call in calls.into_iter().take(CALLS_MAX) {
            caller.make(call).await;
        }
        caller.check().await;
    });
});
