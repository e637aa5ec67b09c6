//! One organization's calls of one method with what is another's.

use bytes::Bytes;
use prost_types::field_descriptor_proto::Type;
use tonic::{Code, Status};

use super::Class;
use super::estate::Estate;
use super::name::Name;
use crate::harness::refusal::{seen, violation};
use crate::harness::rpc::{self, Field, Protocol};

/// Who calls what, and whose names he has heard of.
pub(super) struct Trial<'a> {
    pub(super) protocol: &'a Protocol,
    pub(super) owner: &'a Estate,
    pub(super) stranger: &'a Estate,
    pub(super) method: &'static str,
    pub(super) class: Class,
}

/// Everything of an answer that its caller sees.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    code: Code,
    message: Vec<u8>,
    details: Vec<u8>,
    body: Vec<u8>,
}

impl Told {
    fn of(answer: Result<Bytes, Status>) -> Told {
        match answer {
            Ok(body) => {
                let (message, details) = (Vec::new(), Vec::new());
                Told { code: Code::Ok, message, details, body: body.into() }
            }
            Err(status) => {
                let (code, message, details) = seen(&status);
                Told { code, message: message.into(), details, body: Vec::new() }
            }
        }
    }

    fn holds(&self, text: &str) -> bool {
        [&self.message, &self.details, &self.body].iter().any(|part| find(part, text).is_some())
    }

    /// With the name that the caller asked for taken out.
    fn without(mut self, name: &str) -> Told {
        for part in [&mut self.message, &mut self.details, &mut self.body] {
            while let Some(at) = find(part, name) {
                part[at..at + name.len()].fill(b'#');
            }
        }
        self
    }
}

fn find(bytes: &[u8], text: &str) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text.as_bytes())
}

impl Trial<'_> {
    /// The fields of the request that name something.
    fn fields(&self) -> Vec<(Field, Name)> {
        let texts = self.protocol.request(self.method).into_iter();
        let texts = texts.filter(|field| field.kind == Type::String);
        texts.filter_map(|field| Name::of(&field).map(|name| (field, name))).collect()
    }

    fn names(&self, name: Name) -> Vec<String> {
        self.owner.names(name, self.method, self.class)
    }

    /// What the stranger is told when these names stand in a request of his.
    async fn told(&self, names: &[(&Field, &str)]) -> Told {
        let mut message = self.stranger.request(self.protocol, self.method, self.class);
        for (field, name) in names {
            message = rpc::set(&message, &field.path, name);
        }
        let told = Told::of(self.stranger.call(self.method, message).await);
        for secret in &self.owner.secrets {
            let said = names.iter().any(|(_, name)| name.contains(secret.as_str()));
            assert!(said || !told.holds(secret), "{} tells {secret}", self.method);
        }
        told
    }

    pub(super) async fn one_by_one(&self) {
        for (field, name) in self.fields() {
            let expected = name.answer(self.class);
            for foreign in self.names(name) {
                let what = format!("{} with another's {} ({foreign})", self.method, field.name);
                let told = self.told(&[(&field, foreign.as_str())]).await;
                assert_eq!(told.code, expected, "{what}: {told:?}");
                if name == Name::RequestId {
                    // The next one would be another change of the same thing.
                    continue;
                }
                let missing = name.like(&foreign);
                let none = self.told(&[(&field, missing.as_str())]).await;
                let own = self.class.makes() || self.class == Class::WritesOne;
                if expected == Code::Ok && own && name != Name::Event {
                    // It shows something of the caller's own, with an id and times.
                    assert_eq!(none.code, expected, "{what}");
                } else {
                    assert_eq!(told.without(&foreign), none.without(&missing), "{what}");
                }
            }
        }
    }

    /// With every id another's.
    pub(super) async fn all_at_once(&self) {
        let mut fields = self.fields();
        fields.retain(|(_, name)| name.is_an_object());
        if fields.len() < 2 || self.class.makes() {
            return;
        }
        let foreign = |name: Name| self.names(name).remove(0);
        let foreign: Vec<String> = fields.iter().map(|(_, name)| foreign(*name)).collect();
        let pairs = fields.iter().zip(&foreign);
        let missing: Vec<String> = pairs.map(|((_, name), id)| name.like(id)).collect();
        let with = async |ids: &[String]| {
            let ids = ids.iter().map(String::as_str);
            let names: Vec<_> = fields.iter().map(|(field, _)| field).zip(ids).collect();
            self.told(&names).await
        };
        let (mut told, mut none) = (with(&foreign).await, with(&missing).await);
        for (foreign, missing) in foreign.iter().zip(&missing) {
            (told, none) = (told.without(foreign), none.without(missing));
        }
        assert_eq!(told.code, Name::Subscription.answer(self.class), "{}", self.method);
        assert_eq!(told, none, "{} with nothing but another's", self.method);
    }

    /// His own token opens his next page, and nothing made of it does.
    pub(super) async fn forged_tokens(&self) {
        let mut fields = self.fields();
        fields.retain(|(_, name)| *name == Name::PageToken);
        let Some((field, name)) = fields.pop().filter(|_| self.class != Class::Purges) else {
            return;
        };
        let own = self.stranger.names(name, self.method, self.class).remove(0);
        let call = async |token: &str| {
            let request = self.stranger.request(self.protocol, self.method, self.class);
            self.stranger.call(self.method, rpc::set(&request, &field.path, token)).await
        };
        let next = call(&own).await;
        assert!(next.is_ok(), "{}: {next:?}", self.method);
        let pieces = [&own[1..], &own[..own.len() - 1]].map(str::to_owned);
        let cases = [own.to_lowercase(), own.to_uppercase()];
        for token in pieces.into_iter().chain(cases).filter(|token| *token != own) {
            let refused = call(&token).await.expect_err("nobody gave him that");
            let expected = ("page_token".to_owned(), "INVALID_PAGE_TOKEN".to_owned());
            assert_eq!(violation(&refused), expected, "{}", self.method);
        }
    }
}
