//! The promises of `docs/GUARANTEES.md` and the contracts of the four platforms, proved
//! from outside: each module holds one of them against the real binary.

#[path = "../harness/mod.rs"]
mod harness;

mod accepted_is_enforced;
mod at_least_once;
mod audit;
mod audit_calls;
mod audit_chain;
mod authentication;
mod bytes_are_bytes;
mod catalogue;
mod certificates;
mod circuit_breaker;
mod contracts_azodha;
mod contracts_hapihub;
mod contracts_meetinglawyers;
mod contracts_standard;
mod contracts_telegramd;
mod crash;
mod database_away;
mod durable_ok;
mod egress_proxy;
mod encrypted;
mod encryption;
mod errors;
mod exact_routing;
mod forbidden_addresses;
mod held_back;
mod hostile_receivers;
mod idempotency;
mod least_data;
mod least_privilege;
mod limits;
mod lock;
mod metrics;
mod noisy_neighbours;
mod organizations;
mod overload;
mod paging;
mod patient_data;
mod pause;
mod payload_modes;
mod query_plans;
mod rate_limits;
mod receiver_certificates;
mod reflection_health;
mod refusals;
mod refusals_of_events;
mod schedule_floor;
mod shutdown;
mod strangers;
mod subscriptions;
mod takeover;
mod tokens;
mod tracing;
