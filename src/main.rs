//! The `hookward` binary: one process, whatever it is asked to be.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use hookward::cli::huge_pages::HugePages;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest that what nobody waits for any more may hold up the end, such as a question to a name
/// server that does not answer.
const LINGER: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let huge_pages = HugePages::put_off();
    hookward::telemetry::hide_panic_messages();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("hookward: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(hookward::cli::run(huge_pages));
    runtime.shutdown_timeout(LINGER);
    code
}
