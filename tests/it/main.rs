//! The promises of `docs/GUARANTEES.md` and the contracts of the four platforms, proved
//! from outside: each module holds one of them against the real binary.

#[path = "../harness/mod.rs"]
mod harness;

mod at_least_once;
