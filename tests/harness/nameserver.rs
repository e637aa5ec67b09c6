//! A nameserver on loopback that gives the IPv4 addresses it is told to give.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;

pub(crate) struct Nameserver {
    address: SocketAddr,
}

impl Nameserver {
    /// `resolve` gets the name in lower case without a trailing dot, and how many
    /// questions came before; no address: NXDOMAIN.
    pub(crate) async fn answering(
        mut resolve: impl FnMut(&str, usize) -> Vec<Ipv4Addr> + Send + 'static,
    ) -> Nameserver {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = socket.local_addr().expect("it is bound");
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            let mut number = 0;
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Some(answer) = reply(&buffer[..length], &mut resolve, &mut number) else {
                    continue;
                };
                // A resolver that is gone needs no answer.
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Nameserver { address }
    }

    /// For `--egress-nameserver`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

const TYPE_A: [u8; 2] = [0, 1];

/// The answer to one question (RFC 1035, section 4); `None` when it is none.
fn reply(
    query: &[u8],
    resolve: &mut impl FnMut(&str, usize) -> Vec<Ipv4Addr>,
    number: &mut usize,
) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = query.get(at..at + 2)?;
    let question = query.get(12..at + 4)?;
    let mut addresses = Vec::new();
    if kind == TYPE_A {
        addresses = resolve(&labels.join("."), *number);
        *number += 1;
    }
    // NXDOMAIN only for questions that have an answer: AAAA is "no such data".
    let code = if kind == TYPE_A && addresses.is_empty() { 3 } else { 0 };
    let count = u8::try_from(addresses.len()).expect("a few addresses");
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    for address in addresses {
        // A pointer to the name, A, IN, a TTL of 0, four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
