//! Words and rules: the nouns of the product and what can be decided about them
//! without a clock, I/O or async. Everything else uses this room.

pub mod address;
pub mod api_key;
pub mod attempt;
pub mod attributes;
pub mod catalog;
pub mod delivery;
pub mod endpoint_url;
pub mod event;
pub mod event_rules;
pub mod event_type;
pub mod headers;
pub mod id;
pub mod invalid;
pub mod json;
pub mod json_object;
pub mod jwk;
pub mod jwt;
pub mod lifecycle;
pub mod media_type;
pub mod page;
pub mod pattern;
pub mod principal;
pub mod profile;
pub mod rate;
pub mod receiver_tls;
pub mod render;
pub mod retry;
pub mod scope;
pub mod secret;
pub mod signature;
pub mod subscription;
pub mod subscription_rules;
pub mod time_format;
pub mod timestamp;
pub mod trace_context;
