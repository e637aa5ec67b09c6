//! The protocol by its own description: every method of the descriptors that reflection
//! serves, and messages as the bytes that they are, so that a test can call what it was
//! not written for.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use hookward::grpc::pb;
use prost::Message as _;
use prost::encoding::{self, DecodeContext, decode_key, decode_varint, skip_field};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// What the server says of itself.
pub(crate) struct Protocol {
    /// By their full names, with a full stop in front.
    messages: BTreeMap<String, DescriptorProto>,
    /// By `Service/Method`.
    methods: BTreeMap<String, Method>,
}

/// The names of a method's messages.
struct Method {
    request: String,
    response: String,
}

/// A field of a message, or of one inside it.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Numbers from the outermost message to the field.
    pub(crate) path: Vec<u32>,
    /// The message that has it.
    pub(crate) message: String,
    pub(crate) name: String,
    pub(crate) kind: Type,
}

impl Protocol {
    pub(crate) fn served() -> Protocol {
        let files = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET);
        let (mut messages, mut methods) = (BTreeMap::new(), BTreeMap::new());
        for file in files.expect("the build encodes it").file {
            for message in &file.message_type {
                messages.insert(format!(".{}.{}", file.package(), message.name()), message.clone());
            }
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{}/{}", service.name(), method.name());
                    let request = method.input_type().to_owned();
                    methods.insert(
                        name,
                        Method { request, response: method.output_type().to_owned() },
                    );
                }
            }
        }
        Protocol { messages, methods }
    }

    /// `Service/Method` of every one, in order.
    pub(crate) fn methods(&self) -> Vec<&str> {
        self.methods.keys().map(String::as_str).collect()
    }

    /// Every field of a method's request, also of our own messages inside it.
    pub(crate) fn request(&self, method: &str) -> Vec<Field> {
        self.fields(&self.methods[method].request, &[])
    }

    /// The number of a field of a method's answer.
    pub(crate) fn answer_field(&self, method: &str, name: &str) -> Option<u32> {
        let fields = self.fields(&self.methods[method].response, &[]);
        let outer = |field: &Field| field.path.len() == 1 && field.name == name;
        fields.into_iter().find(outer).map(|field| field.path[0])
    }

    fn fields(&self, message: &str, path: &[u32]) -> Vec<Field> {
        let Some(description) = self.messages.get(message) else { return Vec::new() };
        assert!(path.len() < 8, "{message} holds itself");
        let mut found = Vec::new();
        for field in &description.field {
            let path = [path, &[number(field)]].concat();
            // Of Google's messages nothing is a name; entries of maps are no messages here.
            if field.r#type() == Type::Message && field.type_name().starts_with(".hookward.") {
                found.extend(self.fields(field.type_name(), &path));
            }
            let (message, name) = (message.to_owned(), field.name().to_owned());
            found.push(Field { path, message, name, kind: field.r#type() });
        }
        found
    }
}

fn number(field: &FieldDescriptorProto) -> u32 {
    u32::try_from(field.number()).expect("field numbers are positive")
}

/// The message with this text in the field of `path`, in place of what was there. Of a
/// repeated message on the way, one is left.
pub(crate) fn set(message: &[u8], path: &[u32], text: &str) -> Vec<u8> {
    let (&number, deeper) = path.split_first().expect("a path leads to a field");
    let mut changed = Vec::new();
    let mut inner: &[u8] = &[];
    for (found, field) in fields(message) {
        if found == number {
            inner = body(field);
        } else {
            changed.extend_from_slice(field);
        }
    }
    let value = if deeper.is_empty() { text.into() } else { set(inner, deeper, text) };
    encoding::bytes::encode(number, &value, &mut changed);
    changed
}

/// The text in a field of the outermost message; empty when there is none.
pub(crate) fn text(message: &[u8], number: u32) -> String {
    let found = fields(message).into_iter().rfind(|(found, _)| *found == number);
    let bytes = found.map_or(Vec::new(), |(_, field)| body(field).to_vec());
    String::from_utf8(bytes).expect("a text")
}

/// Numbers and bytes of a message's fields, keys included.
fn fields(mut message: &[u8]) -> Vec<(u32, &[u8])> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let field = message;
        let (number, wire) = decode_key(&mut message).expect("a message");
        skip_field(wire, number, &mut message, DecodeContext::default()).expect("a message");
        found.push((number, &field[..field.len() - message.len()]));
    }
    found
}

/// What is in a field that has a length.
fn body(mut field: &[u8]) -> &[u8] {
    decode_key(&mut field).expect("a field");
    decode_varint(&mut field).expect("a length");
    field
}

/// Calls a method; what it answers.
pub(crate) async fn call(
    channel: &Channel,
    method: &str,
    message: Vec<u8>,
    authorization: Option<&str>,
) -> Result<Bytes, Status> {
    let mut request = Request::new(Bytes::from(message));
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.parse().expect("a header"));
    }
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = format!("/hookward.v1.{method}").try_into().expect("a path");
    Ok(client.unary(request, path, Raw).await?.into_inner())
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
