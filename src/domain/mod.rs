//! Words and rules: the nouns of the product and what can be decided about them
//! without a clock, I/O or async. Everything else uses this room.

pub mod attempt;
pub mod catalog;
pub mod delivery;
pub mod event;
pub mod id;
pub mod invalid;
pub mod json_object;
pub mod profile;
pub mod render;
pub mod secret;
pub mod signature;
pub mod subscription;
pub mod time_format;
pub mod timestamp;
