//! Names whose addresses change from one question to the next: whoever asks twice, once
//! to judge and once to connect, ends up in the trap.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::net::TcpListener;
use tokio::net::UdpSocket;

use crate::domain::attempt::Failure;
use crate::domain::attempt::Outcome;
use crate::domain::id::SubscriptionKey;
use crate::egress::Egress;

use super::receiver::OK;
use super::receiver::PLENTY;
use super::receiver::Receiver;
use super::receiver::loopback;
use super::receiver::request;
use super::receiver::target;

const ATTEMPTS: usize = 10_000;
/// How many run at once.
const LANES: usize = 32;

const ALLOWED: Ipv4Addr = Ipv4Addr::LOCALHOST;
const TRAP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const TYPE_A: u16 = 1;
const TYPE_CNAME: u8 = 5;
const TYPE_AAAA: u16 = 28;
const HEADER: usize = 12;

/// What a name resolves to, by its first letter, and by whether the answer is a good one
/// this time: a single address, a mixed set, a mapped address, or an alias.
fn addresses(letter: u8, kind: u16, good: bool) -> Vec<IpAddr> {
    let flip = if good { ALLOWED } else { TRAP };
    match (letter, kind) {
        (b's' | b'a', TYPE_A) => vec![flip.into()],
        (b'x', TYPE_A) if good => vec![ALLOWED.into()],
        (b'x', TYPE_A) => vec![ALLOWED.into(), TRAP.into()],
        (b'm', TYPE_A) => vec![ALLOWED.into()],
        (b'm', TYPE_AAAA) => vec![flip.to_ipv6_mapped().into()],
        _ => Vec::new(),
    }
}

/// RFC 1035, 4: the answer to a question, good ones and bad ones by turns. A TTL of 0.
fn reply(query: &[u8], asked: &mut [usize; 2]) -> Vec<u8> {
    let end = HEADER + query[HEADER..].iter().position(|&byte| byte == 0).expect("the root");
    let kind = u16::from_be_bytes([query[end + 1], query[end + 2]]);
    let letter = query[HEADER + 1].to_ascii_lowercase();
    let count = &mut asked[usize::from(kind == TYPE_AAAA)];
    *count += 1;
    let found = addresses(letter, kind, count.is_multiple_of(2));
    let alias = letter == b'a' && !found.is_empty();
    let records = u8::try_from(found.len() + usize::from(alias)).expect("few");
    let mut answer = [query[0], query[1], 0x81, 0x80, 0, 1, 0, records, 0, 0, 0, 0].to_vec();
    answer.extend_from_slice(&query[HEADER..end + 5]);
    // A pointer to the question's name.
    let mut owner = [0xc0, 12];
    if alias {
        let inside = b"\x06inside\x08internal\x00";
        let length = u8::try_from(inside.len()).expect("short");
        answer.extend_from_slice(&[0xc0, 12, 0, TYPE_CNAME, 0, 1, 0, 0, 0, 0, 0, length]);
        owner[1] = u8::try_from(answer.len()).expect("short");
        answer.extend_from_slice(inside);
    }
    for address in found {
        answer.extend_from_slice(&owner);
        answer.extend_from_slice(&kind.to_be_bytes());
        answer.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0]);
        match address {
            IpAddr::V4(v4) => {
                answer.push(4);
                answer.extend_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                answer.push(16);
                answer.extend_from_slice(&v6.octets());
            }
        }
    }
    answer
}

async fn flipping_name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("its address");
    tokio::spawn(async move {
        let (mut packet, mut asked) = ([0; 1500], [0; 2]);
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            // The asker may be gone.
            drop(socket.send_to(&reply(&packet[..length], &mut asked), peer).await);
        }
    });
    address
}

/// Attempts of one lane, each to a name of its own, so that each is asked for; how many
/// were answered, and how many ended at a forbidden address.
async fn send(egress: Egress, port: u16, lane: usize) -> (usize, usize) {
    let (mut answered, mut blocked) = (0, 0);
    for number in (lane..ATTEMPTS).step_by(LANES) {
        let letter = ["s", "x", "m", "a"][number / LANES % 4];
        let target = target(&format!("http://{letter}{number}.flip.example:{port}/"));
        let mut request = request(&target, PLENTY);
        request.subscription = SubscriptionKey(i64::try_from(number).expect("few"));
        match egress.send(request).await.outcome {
            Outcome::Responded { .. } => answered += 1,
            Outcome::NoResponse(Failure::BlockedAddress) => blocked += 1,
            // A busy machine may lose a packet.
            Outcome::NoResponse(Failure::Dns) => {}
            other => panic!("{other:?}"),
        }
    }
    (answered, blocked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_changes_of_mind_lead_nobody_into_the_trap() {
    let receiver = Receiver::answering(OK).await;
    let trap = TcpListener::bind((TRAP, receiver.address.port())).await.expect("the same port");
    let trapped = Arc::new(AtomicUsize::new(0));
    let count = trapped.clone();
    tokio::spawn(async move {
        while trap.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut settings = loopback();
    settings.nameservers.push(flipping_name_server().await);
    // Each attempt makes a connection of its own; so many that wait would be open files.
    settings.idle_in_all_max = 0;
    let egress = Egress::new(settings).expect("a room");

    let port = receiver.address.port();
    let lanes: Vec<_> =
        (0..LANES).map(|lane| tokio::spawn(send(egress.clone(), port, lane))).collect();
    let (mut answered, mut blocked) = (0, 0);
    for lane in lanes {
        let (more_answered, more_blocked) = lane.await.expect("no panic");
        answered += more_answered;
        blocked += more_blocked;
    }

    assert_eq!(trapped.load(Ordering::SeqCst), 0, "of {ATTEMPTS} attempts");
    assert_eq!(receiver.connections(), answered, "only what was judged well was dialled");
    assert!(ATTEMPTS / 10 * 9 <= answered + blocked, "{answered} and {blocked}");
    assert!(ATTEMPTS / 5 <= answered.min(blocked), "both kinds: {answered} and {blocked}");
}
