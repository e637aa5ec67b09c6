//! The words that the integration tests are written in: a real server process, real
//! receivers, a nameserver and a collector on loopback, and a gRPC client. Nothing of
//! the product is replaced by a stand-in.

pub(crate) mod admin;
pub(crate) mod age;
pub(crate) mod audit;
pub(crate) mod authority;
pub(crate) mod caller;
pub(crate) mod canary;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod confided;
pub(crate) mod connect_proxy;
pub(crate) mod consent;
pub(crate) mod engine;
pub(crate) mod eventually;
pub(crate) mod fleet;
pub(crate) mod hostile;
pub(crate) mod issuer;
pub(crate) mod keys;
pub(crate) mod locks;
pub(crate) mod nameserver;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod refusal;
pub(crate) mod rpc;
pub(crate) mod service;
pub(crate) mod signature;
pub(crate) mod wire;
