//! The room against real sockets: honest, broken and hostile receivers.

mod addresses;
mod answers;
mod connections;
mod hostile;
mod receiver;
