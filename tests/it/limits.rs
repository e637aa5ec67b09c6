//! Promise: what one connection and one organization may have of the server is bounded, and
//! who asks for more is refused without harm to others.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use hookward::grpc::pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::harness::client::{Organization, draft};
use crate::harness::engine::Engine;
use crate::harness::eventually::eventually;
use crate::harness::receiver::Receiver;
use crate::harness::service::Service;

/// What an HTTP/2 client begins with, and a SETTINGS frame that sets nothing (RFC 9113,
/// 3.4 and 6.5).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// The flag of an answer to either.
const ACK: u8 = 1;

/// A connection to the gRPC port by a client that knows frames and nothing else.
struct Connection(TcpStream);

struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

impl Connection {
    async fn to(service: &Service) -> Connection {
        let mut stream = TcpStream::connect(service.grpc_address()).await.expect("it listens");
        stream.write_all(PREFACE).await.expect("it is open");
        Connection(stream)
    }

    /// The next frame; an error when there is none, because the connection has ended.
    async fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, ..] = head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).expect("24 bits");
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await?;
        Ok(Frame { kind, flags, payload })
    }

    /// A frame of the connection itself.
    async fn write(&mut self, kind: u8, flags: u8, payload: &[u8]) -> io::Result<()> {
        let length = u8::try_from(payload.len()).expect("a short one");
        let head = [0, 0, length, kind, flags, 0, 0, 0, 0];
        self.0.write_all(&[&head[..], payload].concat()).await
    }
}

#[tokio::test]
async fn a_connection_is_told_how_much_it_may_ask_for() {
    let service = Service::start(Engine::sqlite()).await;
    let mut connection = Connection::to(&service).await;

    let told = connection.read().await.expect("a server begins with its settings");

    assert_eq!((told.kind, told.flags), (SETTINGS, 0));
    let pair = |six: &[u8]| {
        let (id, value) = six.split_at(2);
        let id = u16::from_be_bytes(id.try_into().expect("two bytes"));
        (id, u32::from_be_bytes(value.try_into().expect("four bytes")))
    };
    let settings: BTreeMap<u16, u32> = told.payload.chunks(6).map(pair).collect();
    let [streams, window, header_list] = [3, 4, 6].map(|id| settings.get(&id).copied());
    assert_eq!((streams, header_list), (Some(100), Some(16 << 10)), "{settings:?}");
    assert_eq!(window, Some(1 << 20), "bytes that a call may send before they are read");
}

#[tokio::test]
async fn who_answers_no_ping_is_let_go_and_who_does_stays() {
    let service = Service::start(Engine::sqlite()).await;
    let (mut dead, mut alive) = (Connection::to(&service).await, Connection::to(&service).await);

    let answering = async {
        loop {
            let frame = alive.read().await.expect("it stays open");
            if frame.kind == PING && frame.flags & ACK == 0 {
                alive.write(PING, ACK, &frame.payload).await.expect("it stays open");
            }
        }
    };
    let silent = async {
        let mut pings = 0;
        while let Ok(frame) = dead.read().await {
            pings += usize::from(frame.kind == PING);
        }
        pings
    };
    let pings = tokio::select! {
        () = answering => unreachable!("it goes on for ever"),
        pings = tokio::time::timeout(Duration::from_mins(1), silent) => pings,
    };

    let pings = pings.expect("let go ten seconds after the first ping, which comes after thirty");
    assert!(0 < pings, "it was asked before");
    alive.write(PING, 0, b"are you?").await.expect("it is open");
    let answer = eventually("an answer to our own ping", async || {
        let frame = alive.read().await.expect("it is open");
        (frame.kind == PING && frame.flags & ACK != 0).then_some(frame.payload)
    })
    .await;
    assert_eq!(answer, b"are you?");
}

#[tokio::test]
async fn metadata_beyond_the_limit_and_compressed_requests_are_refused() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let profiles = async |name: &'static str, value: String| {
        let request = pb::ListProfilesRequest { organization_id: clinic.name() };
        let mut request = Request::new(request);
        request.metadata_mut().insert(name, value.parse().expect("ASCII"));
        clinic.subscriptions().list_profiles(request).await
    };

    profiles("x-large", "v".repeat(15 << 10)).await.expect("15 KiB of metadata");
    let refused = profiles("x-large", "v".repeat(17 << 10)).await;
    refused.expect_err("17 KiB of metadata");
    eventually("the next call", async || profiles("x-small", "v".to_owned()).await.ok()).await;

    let compressed = profiles("grpc-encoding", "gzip".to_owned()).await;
    let compressed = compressed.expect_err("a bomb could be in it");
    assert_eq!(compressed.code(), Code::Unimplemented, "{compressed:?}");
}

async fn fill(organization: Organization, draft: pb::Subscription) {
    for _ in 0..125 {
        organization.create(draft.clone()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_has_a_thousand_subscriptions_and_no_more() {
    let service = Service::start(Engine::sqlite()).await;
    let (full, other) = (service.organization("full"), service.organization("other"));
    let receiver = Receiver::answering([200]).await;
    let draft = draft(&receiver, "azodha", "*");
    let fillers: Vec<_> = (0..8).map(|_| tokio::spawn(fill(full.clone(), draft.clone()))).collect();
    for filler in fillers {
        filler.await.expect("a thousand keep the rules");
    }

    let refused = full.try_create(draft.clone(), "").await.expect_err("one too many");

    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let info = refused.get_details_error_info().expect("every error has one");
    assert_eq!(info.reason, "TOO_MANY_SUBSCRIPTIONS");
    let quota = refused.get_details_quota_failure().expect("whose it is");
    assert_eq!(quota.violations[0].subject, "organization");
    let one = other.create(draft.clone()).await;
    assert!(!one.id.is_empty(), "another organization has a quota of its own");
    let request =
        pb::ListSubscriptionsRequest { organization_id: full.name(), ..Default::default() };
    let page = full.subscriptions().list_subscriptions(request).await;
    let page = page.expect("it is readable").into_inner();
    full.delete(&page.subscriptions[0].id).await.expect("it is there");
    full.create(draft).await;
}
