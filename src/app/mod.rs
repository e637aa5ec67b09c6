//! The whole of Hookward, wired together.

mod engine;
#[cfg(test)]
mod engine_tests;
