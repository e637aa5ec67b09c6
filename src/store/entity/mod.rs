//! The tables, as sea-orm sees them. Meaning and units of each column stand in
//! `migrations/*.sql`.

#![expect(unreachable_pub, reason = "sea-orm's derive makes public items beside the models")]

pub(super) mod attempt;
pub(super) mod due;
pub(super) mod event;
pub(super) mod event_key;
pub(super) mod ownership;
pub(super) mod replica;
pub(super) mod request_log;
pub(super) mod setting;
pub(super) mod signing_secret;
pub(super) mod subscription;
pub(super) mod subscription_tls;
pub(super) mod undelivered;
