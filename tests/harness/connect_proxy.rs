//! An HTTP proxy that makes tunnels (CONNECT) to addresses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) struct ConnectProxy {
    tunnels: Arc<AtomicUsize>,
}

impl ConnectProxy {
    /// At the port of a socket that was bound before.
    pub(crate) fn at(socket: TcpSocket) -> ConnectProxy {
        let listener = socket.listen(64).expect("the port is ours");
        let tunnels = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tunnels);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(client));
            }
        });
        ConnectProxy { tunnels }
    }

    /// How many were asked for.
    pub(crate) fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::SeqCst)
    }
}

async fn serve(mut client: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).expect("text");
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let target: SocketAddr = target.expect("CONNECT").parse().expect("an address, no name");
    let Ok(mut server) = TcpStream::connect(target).await else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
        return;
    };
    if client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok() {
        // Either side may end it.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}
