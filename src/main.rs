//! The `hookward` binary: one process, whatever it is asked to be.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Measured on the hot path: fewer microseconds an event than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    hide_panic_texts();
    hookward::cli::run().await
}

/// A panic's text may hold a payload: only its place is told.
fn hide_panic_texts() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked");
    }));
}
