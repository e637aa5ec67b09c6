//! Words and rules: the nouns of the product and what can be decided about them
//! without a clock, I/O or async. Everything else uses this room.

pub mod attempt;
pub mod catalog;
pub mod delivery;
pub mod event;
pub mod id;
pub mod invalid;
pub mod subscription;
pub mod timestamp;
