//! Hookward: durable, signed webhook delivery.
//!
//! The rooms and their floors are described in `docs/ARCHITECTURE.md` and kept
//! by `tests/tidy.rs`.

pub mod admin;
pub mod app;
pub mod audit;
pub mod canary;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod dispatcher;
pub mod domain;
pub mod egress;
pub mod grpc;
pub mod intake;
pub mod janitor;
pub mod keyring;
pub mod lease;
pub mod metrics;
pub mod permits;
pub mod routing;
pub mod store;
pub mod telemetry;
pub mod trace;
