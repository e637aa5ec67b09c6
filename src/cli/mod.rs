//! What a person does on a command line, and what they get to read.

pub mod demo;
pub mod listen;
pub mod receiver;
pub mod terminal;
pub mod verifier;
