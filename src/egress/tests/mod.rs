//! The room against real sockets: honest, broken and hostile receivers.

mod addresses;
mod answers;
mod canary;
mod certificates;
mod connections;
mod hostile;
mod inquiries;
mod proxies;
mod rebinding;
mod receiver;
