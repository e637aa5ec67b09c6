//! A TCP link that can be broken: passes bytes on, or holds them, swallows them, delays
//! them or resets, and can be pointed elsewhere while it runs.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They pass.
    Pass,
    /// They stay where they are, and so do ends of connections: nothing gets through in
    /// either direction, and nobody is told. What was sent before or meanwhile arrives
    /// when the link passes again, as TCP would send it again.
    Cut,
    /// They pass after a while, each read of its own.
    Delay(Duration),
}

#[derive(Clone, Copy, Debug)]
struct State {
    target: Option<SocketAddr>,
    mode: Mode,
    /// Connections are numbered by when they were made, in steps of these two.
    age: u64,
    /// Those that are older are reset.
    reset_before: u64,
    /// Those that are older swallow what they are sent, for ever.
    swallow_before: u64,
}

/// One link. Ends with the last clone of its handle.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    state: watch::Sender<State>,
}

/// Why a direction of a connection ended.
enum Ended {
    /// In good order.
    Closed,
    /// Both directions are to be reset.
    Broken,
}

impl Relay {
    /// A link to nowhere: refuses connections until it is pointed at something.
    pub(crate) async fn open() -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let state =
            State { target: None, mode: Mode::Pass, age: 0, reset_before: 0, swallow_before: 0 };
        let (state, seen) = watch::channel(state);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connect(near, seen.clone()));
            }
        });
        Relay { address, state }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go there; old ones stay as they are.
    pub(crate) fn point_at(&self, target: SocketAddr) {
        self.state.send_modify(|state| state.target = Some(target));
    }

    /// For all connections, old and new.
    pub(crate) fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Breaks off every connection there is.
    pub(crate) fn reset(&self) {
        self.state.send_modify(|state| {
            state.age += 1;
            state.reset_before = state.age;
        });
    }

    /// Makes every connection there is half-open: nobody is told, nothing gets through any
    /// more. New ones work.
    pub(crate) fn swallow(&self) {
        self.state.send_modify(|state| {
            state.age += 1;
            state.swallow_before = state.age;
        });
    }
}

async fn connect(near: TcpStream, mut state: watch::Receiver<State>) {
    let age = state.borrow().age;
    // A new connection through a cut link hangs as well.
    if gate(&mut state, age).await.is_none() {
        return broken(&near);
    }
    let Some(target) = state.borrow().target else { return broken(&near) };
    let Ok(far) = TcpStream::connect(target).await else { return broken(&near) };
    if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
        return;
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let (up, down) = (state.clone(), state);
    tokio::join!(pump(near_in, far_out, up, age), pump(far_in, near_out, down, age));
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    age: u64,
) {
    match carry(&mut from, &mut to, &mut state, age).await {
        // The end is passed on; the other direction may go on.
        Ok(Ended::Closed) => drop(to.shutdown().await),
        Ok(Ended::Broken) | Err(_) => {
            broken(from.as_ref());
            broken(to.as_ref());
            // Wakes the other direction, which waits for bytes.
            drop(to.shutdown().await);
        }
    }
}

async fn carry(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    state: &mut watch::Receiver<State>,
    age: u64,
) -> io::Result<Ended> {
    // All that has arrived is one read, so that a late link is not a narrow one besides.
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        let count = tokio::select! {
            count = from.read(&mut buffer) => count,
            changed = state.changed() => {
                let reset = changed.is_err() || age < state.borrow().reset_before;
                if reset { return Ok(Ended::Broken) }
                continue;
            }
        };
        match gate(state, age).await {
            None => return Ok(Ended::Broken),
            Some(Fate::Swallowed) => {
                if count? == 0 {
                    // The other side is never told of this one's end.
                    hang(state, age).await;
                    return Ok(Ended::Broken);
                }
            }
            Some(Fate::Passes) => match count? {
                0 => return Ok(Ended::Closed),
                count => to.write_all(&buffer[..count]).await?,
            },
        }
    }
}

enum Fate {
    Passes,
    Swallowed,
}

/// Waits until bytes may pass; `None`: the connection is to be reset.
async fn gate(state: &mut watch::Receiver<State>, age: u64) -> Option<Fate> {
    loop {
        let now = *state.borrow_and_update();
        if age < now.reset_before {
            return None;
        }
        if age < now.swallow_before {
            return Some(Fate::Swallowed);
        }
        match now.mode {
            Mode::Pass => return Some(Fate::Passes),
            Mode::Delay(span) => {
                tokio::time::sleep(span).await;
                return Some(Fate::Passes);
            }
            Mode::Cut => state.changed().await.ok()?,
        }
    }
}

async fn hang(state: &mut watch::Receiver<State>, age: u64) {
    // An error means that the link is gone, and the connection with it.
    let _ = state.wait_for(|state| age < state.reset_before).await;
}

/// Makes the end of a connection a reset instead of a good-bye.
fn broken(stream: &TcpStream) {
    // One that is gone needs none.
    let _ = stream.set_zero_linger();
}
