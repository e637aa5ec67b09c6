//! The messages, clients and servers that `build.rs` makes from `proto/`.
#![allow(clippy::allow_attributes_without_reason, clippy::pedantic, reason = "generated")]

tonic::include_proto!("hookward.v1");

/// Descriptors of every file in `proto/` and of what they import, with comments:
/// what reflection serves. An encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hookward.bin"));
