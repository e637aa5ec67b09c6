//! Whatever bytes somebody sends to the gRPC port, the server does not panic, and others are
//! served. That it does not grow is seen by the fuzzer's own limit of memory only.
//!
//! The first byte of an input says how it begins: odd, as a client of HTTP/2 does.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use hookward::grpc::pb::ListEventsRequest;
use hookward::grpc::pb::event_service_client::EventServiceClient;
use hookward_fuzz::{RUNTIME, Server};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The client's preface and empty SETTINGS (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The server need not say more than this to one input.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long its answer is waited for: some inputs leave it waiting for more.
const PATIENCE: Duration = Duration::from_millis(20);
/// Longest call on a machine that does other things as well.
const CALL_MAX: Duration = Duration::from_secs(10);

static SERVER: LazyLock<Server> = LazyLock::new(|| RUNTIME.block_on(Server::start()));

/// Writes all of it, ends, and hears what the server has to say.
async fn send(server: &Server, parts: [&[u8]; 2]) {
    let mut stream = TcpStream::connect(server.address).await.expect("it accepts");
    for part in parts {
        if stream.write_all(part).await.is_err() {
            return;
        }
    }
    // It may have closed the connection by now.
    let _ = stream.shutdown().await;
    let (mut answer, mut rest) = (Vec::new(), stream.take(ANSWER_BYTES_MAX));
    let _ = timeout(PATIENCE, rest.read_to_end(&mut answer)).await;
    assert!((answer.len() as u64) < ANSWER_BYTES_MAX, "it says much for {parts:?}");
}

/// A call over another connection.
async fn serves_others(server: &Server) {
    let organization_id = "clinic".to_owned();
    let request = ListEventsRequest { organization_id, ..ListEventsRequest::default() };
    let mut client = EventServiceClient::new(server.channel.clone());
    let answer = timeout(CALL_MAX, client.list_events(request)).await;
    answer.expect("it answers in time").expect("it is right");
}

fuzz_target!(|input: &[u8]| {
    let server = &*SERVER;
    let Some((first, rest)) = input.split_first() else { return };
    let begin = if first % 2 == 1 { PREFACE } else { &[] };
    RUNTIME.block_on(async {
        send(server, [begin, rest]).await;
        serves_others(server).await;
    });
});
