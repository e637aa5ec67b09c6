//! Hookward: durable, signed webhook delivery.
//!
//! The rooms and their floors are described in `docs/ARCHITECTURE.md` and kept
//! by `tests/tidy.rs`.

pub mod domain;
pub mod egress;
