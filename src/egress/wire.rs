//! A receiver's TCP connection under hyper (and TLS), with one addition: just
//! before a reused connection writes its next request, the socket itself is asked
//! whether anything has come in meanwhile.
//!
//! The runtime learns of incoming bytes only when it next polls the kernel. A
//! receiver that answered twice, or closed, moments ago would else be noticed only
//! after the request is written: its second answer would pass for the answer to
//! the new request, and a close would cost an attempt.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use socket2::SockRef;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

/// Asks the connection to look at its socket before it does anything else.
#[derive(Clone, Default)]
pub(super) struct Lookout(Arc<AtomicBool>);

impl Lookout {
    /// The next read looks first. Call right before handing over a request: hyper
    /// reads before it takes the request, and gives it back when the read fails.
    pub(super) fn look_first(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The connection.
pub(super) struct Wire {
    stream: TcpStream,
    lookout: Lookout,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, lookout: Lookout) -> Self {
        Wire { stream, lookout }
    }

    /// An error when an idle socket has something to read: bytes nobody asked for
    /// or the end.
    fn look(&self) -> io::Result<()> {
        match SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]) {
            Err(nothing) if nothing.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(broken) => Err(broken),
            Ok(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A plain load first: a swap on every read would cost more than it is worth.
        if self.lookout.0.load(Ordering::Acquire) {
            self.lookout.0.store(false, Ordering::Relaxed);
            self.look()?;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
