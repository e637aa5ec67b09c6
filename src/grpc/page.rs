//! Pages of lists: reading what was asked for, and cutting an answer to size.

use prost::Message;

use crate::domain::invalid::InvalidField;
use crate::domain::page::{PageToken, arguments_hash, page_size};

/// Most bytes of one page, which is half of what gRPC clients accept unless told
/// otherwise. One item may be larger.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// One page of a list.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// At most this many items.
    pub(super) size: usize,
    /// Where it begins; `None`: at the first.
    pub(super) from: Option<[i64; 2]>,
    key: &'a [u8; 32],
    method: &'static str,
    arguments: [u8; 32],
}

/// The request of a list.
pub(super) trait ListRequest: Message {
    /// Takes `page_size` and `page_token` out, so that what stays must be the same on
    /// every page.
    fn take_page(&mut self) -> (i32, String);
}

impl<'a> Page<'a> {
    /// Reads which page is asked for. Takes the paging fields out of `request`.
    ///
    /// # Errors
    ///
    /// For `page_size` when it is negative; for `page_token` when it is not of the
    /// same list.
    pub(super) fn read(
        request: &mut impl ListRequest,
        method: &'static str,
        key: &'a [u8; 32],
    ) -> Result<Page<'a>, InvalidField> {
        let (size, token) = request.take_page();
        let arguments = arguments_hash(&[&request.encode_to_vec()]);
        let size = page_size(size)?;
        let token = PageToken::decode(&token, key, method, &arguments)?;
        Ok(Page { size, from: token.map(|token| token.0), key, method, arguments })
    }

    /// The token of the page that begins at `next`; empty when there is none.
    pub(super) fn token(&self, next: Option<[i64; 2]>) -> String {
        next.map_or_else(String::new, |next| {
            PageToken(next).encode(self.key, self.method, &self.arguments)
        })
    }
}

/// Items of which a page is filled that are read some at a time, since each may be large.
pub(super) const CHUNK: usize = 64;

/// A page that is being filled.
pub(super) struct Filling<T> {
    size: usize,
    bytes: usize,
    /// What is in it.
    pub(super) items: Vec<T>,
}

impl<T: Message> Filling<T> {
    /// An empty one for at most so many items.
    pub(super) fn new(size: usize) -> Filling<T> {
        Filling { size, bytes: 0, items: Vec::new() }
    }

    /// Whether it takes the item: the first one always.
    pub(super) fn takes(&mut self, item: T) -> bool {
        self.bytes += weight(&item);
        let takes =
            self.items.is_empty() || self.items.len() < self.size && self.bytes <= PAGE_BYTES_MAX;
        if takes {
            self.items.push(item);
        }
        takes
    }
}

/// Bytes of an item in a page: tag and length around it are at most 6.
fn weight(item: &impl Message) -> usize {
    item.encoded_len() + 6
}

/// How many of the items, from the first, fit into one page: at least one, if there
/// is one.
pub(super) fn fitting(items: &[impl Message]) -> usize {
    let mut bytes = 0;
    let fits = |item: &&_| {
        bytes += weight(*item);
        bytes <= PAGE_BYTES_MAX
    };
    items.iter().take_while(fits).count().max(items.len().min(1))
}

/// The name of a request, and the second page's token of an organization that asks for the
/// page of a token.
#[cfg(test)]
macro_rules! listed {
    ($request:ident) => {
        (stringify!($request), |organization_id, page_token| {
            let mut request = super::pb::$request {
                organization_id: organization_id.to_owned(),
                page_token: page_token.to_owned(),
                ..super::pb::$request::default()
            };
            let page = Page::read(&mut request, stringify!($request), &[3; 32])?;
            Ok(page.token(Some([7, 9])))
        })
    };
}

/// Behind the semicolon: walks without a page's size, where what is counted is what they
/// look at.
macro_rules! list_requests {
    ($($request:ident,)*; $($walk:ident,)*) => {
        $(impl ListRequest for super::pb::$request {
            fn take_page(&mut self) -> (i32, String) {
                (std::mem::take(&mut self.page_size), std::mem::take(&mut self.page_token))
            }
        })*
        $(impl ListRequest for super::pb::$walk {
            fn take_page(&mut self) -> (i32, String) {
                (0, std::mem::take(&mut self.page_token))
            }
        })*

        #[cfg(test)]
        const LIST_REQUESTS: &[(&str, fn(&str, &str) -> Result<String, InvalidField>)] =
            &[$(listed!($request),)* $(listed!($walk),)*];
    };
}

list_requests! {
    ListAuditEntriesRequest,
    ListDeliveriesRequest,
    ListDeliveryAttemptsRequest,
    ListEventTypesRequest,
    ListEventsRequest,
    ListSubscriptionsRequest,
    ;
    PurgeSubjectRequest,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::pb;
    use super::*;

    const KEY: [u8; 32] = [3; 32];

    fn asked(account_id: &str, page_size: i32, page_token: &str) -> pb::ListEventsRequest {
        pb::ListEventsRequest {
            account_id: account_id.to_owned(),
            page_size,
            page_token: page_token.to_owned(),
            ..pb::ListEventsRequest::default()
        }
    }

    #[test]
    fn a_token_goes_on_with_the_same_list_whatever_the_page_size() {
        let first = Page::read(&mut asked("a", 10, ""), "ListEvents", &KEY).expect("valid");
        assert_eq!((first.size, first.from), (10, None));
        let token = first.token(Some([7, 9]));
        let second = Page::read(&mut asked("a", 0, &token), "ListEvents", &KEY).expect("valid");
        assert_eq!((second.size, second.from), (50, Some([7, 9])));
        let other = Page::read(&mut asked("b", 10, &token), "ListEvents", &KEY);
        assert_eq!(other.expect_err("another list").field, "page_token");
    }

    #[test]
    fn every_list_of_the_protocol_binds_its_tokens_to_the_organization() {
        let files = prost_types::FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET);
        let files = files.expect("the build encodes it").file;
        let messages = files.iter().flat_map(|file| &file.message_type);
        let paged: BTreeSet<&str> = messages
            .filter(|message| message.field.iter().any(|field| field.name() == "page_token"))
            .map(prost_types::DescriptorProto::name)
            .collect();
        let known: BTreeSet<&str> = LIST_REQUESTS.iter().map(|(name, _)| *name).collect();
        assert_eq!(paged, known);
        for (name, read) in LIST_REQUESTS {
            let token = read("acme", "").expect("the first page");
            read("acme", &token).expect("its own");
            let refused = read("other", &token).expect_err(name);
            assert_eq!((&*refused.field, refused.reason), ("page_token", "INVALID_PAGE_TOKEN"));
        }
    }

    #[test]
    fn the_last_page_has_no_token() {
        let page = Page::read(&mut asked("a", 10, ""), "ListEvents", &KEY).expect("valid");
        assert_eq!(page.token(None), "");
    }

    #[test]
    fn a_page_is_filled_up_to_its_size_and_two_mebibytes() {
        let event = |bytes: usize| pb::Event {
            payload: Some(pb::event::Payload::Raw(vec![0; bytes].into())),
            ..pb::Event::default()
        };
        for (size, sizes, taken) in [
            (2, vec![1, 1, 1], 2),
            (10, vec![3 << 20, 1], 1),
            (10, vec![1 << 20, 1 << 20, 1], 1),
            (10, vec![1 << 20, 1 << 19, 1], 3),
        ] {
            let mut filling = Filling::new(size);
            let found = sizes.iter().take_while(|bytes| filling.takes(event(**bytes))).count();
            assert_eq!((found, filling.items.len()), (taken, taken), "{sizes:?}");
        }
    }

    #[test]
    fn a_page_is_cut_at_two_mebibytes_but_never_empty() {
        let event = |bytes: usize| pb::Event {
            payload: Some(pb::event::Payload::Raw(vec![0; bytes].into())),
            ..pb::Event::default()
        };
        let none: [pb::Event; 0] = [];
        assert_eq!(fitting(&none), 0);
        assert_eq!(fitting(&[event(3 << 20), event(1)]), 1);
        assert_eq!(fitting(&[event(1 << 20), event(1 << 20), event(1)]), 1);
        assert_eq!(fitting(&[event(1 << 20), event(1 << 19), event(1)]), 3);
    }
}
