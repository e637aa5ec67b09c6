//! The `hookward` binary: one process, whatever it is asked to be.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    hookward::telemetry::hide_panic_messages();
    hookward::cli::run().await
}
