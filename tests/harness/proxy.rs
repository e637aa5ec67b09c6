//! A network between a server and its database that fails on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::eventually::meanwhile;

/// Passes TCP connections on, for as long as the test runs.
pub(crate) struct Proxy {
    address: SocketAddr,
    network: Arc<watch::Sender<Network>>,
}

/// What becomes of bytes and of connections, which are numbered from 0.
#[derive(Clone, Copy, Debug, Default)]
struct Network {
    /// Connections so far.
    count: usize,
    /// Nothing passes, in neither direction, not even the end of a connection.
    cut: bool,
    /// Connections with smaller numbers are cut, whatever becomes of others.
    held: usize,
    /// Connections with smaller numbers say nothing for ever.
    dead: usize,
    /// Connections with smaller numbers are broken off.
    reset: usize,
    /// New ones are broken off at once.
    refuses: bool,
    /// What comes is passed on so much later, in each direction.
    delay: Duration,
}

impl Network {
    fn passes(&self, number: usize) -> bool {
        !self.cut && self.held <= number && self.dead <= number
    }
}

impl Proxy {
    /// In front of a port of this machine.
    pub(crate) async fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let network = Arc::new(watch::Sender::new(Network::default()));
        let shared = Arc::clone(&network);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut number = 0;
                shared.send_modify(|network| {
                    number = network.count;
                    network.count += 1;
                });
                tokio::spawn(pass(client, port, number, shared.subscribe()));
            }
        });
        Proxy { address, network }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on nothing passes and nobody is told.
    pub(crate) fn cut(&self) {
        self.network.send_modify(|network| network.cut = true);
    }

    /// New connections pass again. Those from before stay silent for ever, as behind a
    /// firewall that has forgotten them.
    pub(crate) fn heal(&self) {
        self.network.send_modify(|network| {
            network.cut = false;
            network.dead = network.count;
        });
    }

    /// Those that there are fall silent for ever; new ones pass.
    pub(crate) fn forget(&self) {
        self.heal();
    }

    /// Those that there are fall silent until [`Proxy::release`]; new ones pass.
    pub(crate) fn hold(&self) {
        self.network.send_modify(|network| network.held = network.count);
    }

    /// What was held back arrives.
    pub(crate) fn release(&self) {
        self.network.send_modify(|network| network.held = 0);
    }

    /// From now on everything takes so much longer, each way.
    pub(crate) fn delay(&self, delay: Duration) {
        self.network.send_modify(|network| network.delay = delay);
    }

    /// Breaks every connection off with RST.
    pub(crate) fn reset(&self) {
        self.network.send_modify(|network| network.reset = network.count);
    }

    /// Breaks every connection off, and every new one until [`Proxy::accept`].
    pub(crate) fn refuse(&self) {
        self.network.send_modify(|network| network.refuses = true);
        self.reset();
    }

    /// New connections pass again.
    pub(crate) fn accept(&self) {
        self.network.send_modify(|network| network.refuses = false);
    }
}

async fn pass(
    mut client: TcpStream,
    port: u16,
    number: usize,
    mut network: watch::Receiver<Network>,
) {
    if network.wait_for(|network| network.passes(number)).await.is_err() {
        return;
    }
    if network.borrow().refuses {
        client.set_zero_linger().expect("the socket is open");
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let mut resets = network.clone();
    let reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = resets.wait_for(|network| number < network.reset) => true,
            () = pump(from_client, to_server, number, network.clone()) => false,
            () = pump(from_server, to_client, number, network) => false,
        }
    };
    if reset {
        for stream in [&client, &server] {
            stream.set_zero_linger().expect("the socket is open");
        }
    }
}

/// Passes bytes on until one end closes.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    number: usize,
    mut network: watch::Receiver<Network>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        let delay = network.borrow().delay;
        if !delay.is_zero() {
            meanwhile(delay).await;
        }
        if network.wait_for(|network| network.passes(number)).await.is_err() {
            return;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
