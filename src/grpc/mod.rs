//! The gRPC surface: translates between protobuf and the domain, decides nothing.

#[expect(clippy::allow_attributes_without_reason, clippy::pedantic, reason = "generated code")]
pub mod pb;
