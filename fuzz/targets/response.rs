//! What a receiver writes, byte by byte, through the real way out: every request ends in
//! time with an outcome, and no answer passes for that of another request.
//!
//! An input is what the receiver writes after each request, separated by `%%`. Within it
//! `%*` stands for a long run of one letter. The first byte says how it behaves.
#![no_main]

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use hookward::domain::attempt::{Outcome, RESPONSE_BODY_BYTES_MAX};
use hookward::domain::id::SubscriptionKey;
use hookward::domain::retry::RETRY_AFTER_MAX;
use hookward::egress::{Sent, SignedRequest};
use hookward_fuzz::{EGRESS, RUNTIME, Receiver, Script, split};
use libfuzzer_sys::fuzz_target;

/// Longest attempt, and what a busy machine may add to it.
const TIMEOUT: Duration = Duration::from_millis(60);
const SLACK: Duration = Duration::from_secs(5);
/// How long the receiver waits for another request, where it does not hang.
const PATIENCE: Duration = Duration::from_millis(10);
const REQUESTS_MAX: usize = 4;
const RUN: usize = 40_000;

static NUMBER: AtomicI64 = AtomicI64::new(1);

fuzz_target!(|input: &[u8]| {
    let Some((&how, text)) = input.split_first() else { return };
    let answers: Vec<Vec<u8>> =
        split(text, b"%%").into_iter().take(REQUESTS_MAX).map(with_runs).collect();
    let hangs = how & 7 == 7;
    let patience = if hangs { TIMEOUT * 3 } else { PATIENCE };
    let script = Script { answers: answers.clone(), keeps_open: how & 1 == 1, patience };
    RUNTIME.block_on(call(script, &answers));
});

async fn call(script: Script, answers: &[Vec<u8>]) {
    let receiver = Receiver::start(script).await;
    let subscription = SubscriptionKey(NUMBER.fetch_add(1, Ordering::Relaxed));
    for number in 0..answers.len() {
        let body = number.to_string().into_bytes();
        let request = SignedRequest {
            subscription,
            target: receiver.target(),
            headers: Vec::new(),
            body: body.clone().into(),
            timeout: TIMEOUT,
        };
        let began = Instant::now();
        let sent = EGRESS.send(request).await;
        assert!(began.elapsed() < TIMEOUT + SLACK, "an outcome by the deadline");
        let arrived = receiver.requests();
        let mine = |request: &&Vec<u8>| request.ends_with(&[b"\r\n\r\n", body.as_slice()].concat());
        assert!(arrived.iter().filter(mine).count() <= 1, "a request is written once");
        // The receiver's answers are for the requests in the order of their arrival.
        let place = arrived.iter().position(|request| mine(&request));
        judge(&sent, place.and_then(|place| answers.get(place)).map(Vec::as_slice));
    }
}

/// `answer`: what the receiver wrote for this very request, if the request arrived.
fn judge(sent: &Sent, answer: Option<&[u8]>) {
    let Outcome::Responded { status, retry_after, body } = &sent.outcome else {
        assert!(!sent.detail.is_empty(), "people are told why");
        return;
    };
    let answer = answer.expect("an answer to a request that arrived");
    assert!((100..=999).contains(status));
    assert!(*status == 101 || 200 <= *status, "{status} is not an end");
    assert!(body.len() <= RESPONSE_BODY_BYTES_MAX);
    assert!(retry_after.is_none_or(|wait| wait <= RETRY_AFTER_MAX));
    let digits = status.to_string().into_bytes();
    assert!(answer.windows(3).any(|three| three == digits), "a status that was not sent");
    if let Some(start) = body.get(..8) {
        assert!(answer.windows(8).any(|eight| eight == start) || is_cut(answer, start));
    }
}

/// Whether the first bytes of a body may come from several chunks.
fn is_cut(answer: &[u8], start: &[u8]) -> bool {
    let chunked = answer.to_ascii_lowercase();
    chunked.windows(7).any(|seven| seven == b"chunked") && start.iter().all(|b| answer.contains(b))
}

fn with_runs(text: &[u8]) -> Vec<u8> {
    split(text, b"%*").join(&[b'a'; RUN][..])
}
