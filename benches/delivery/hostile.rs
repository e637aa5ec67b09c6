//! Receivers at their worst: what they do to those that wait for an answer.

use std::io;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;

/// An answer that never ends. The failure is meant to be tried again.
const HEAD: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\n\r\n";
const DRIP_EVERY: Duration = Duration::from_millis(500);
const CHUNK: [u8; 16 * 1024] = [b'a'; 16 * 1024];

/// How a receiver misbehaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Takes the request and says nothing.
    Hang,
    /// A byte now and then.
    Drip,
    /// As many bytes as the connection takes.
    Endless,
}

impl Manner {
    /// Of the subscriptions that point there; `None`: an honest receiver.
    pub(crate) fn at(path: &[u8]) -> Option<Manner> {
        let manners = [
            (&b"/hang/"[..], Manner::Hang),
            (b"/drip/", Manner::Drip),
            (b"/endless/", Manner::Endless),
        ];
        manners.into_iter().find(|(start, _)| path.starts_with(start)).map(|(_, manner)| manner)
    }

    /// Goes on until the other side has had enough.
    pub(crate) async fn answer<S>(self, mut stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self {
            Manner::Hang => {
                while stream.read(&mut [0; 1024]).await? != 0 {}
                return Ok(());
            }
            Manner::Drip | Manner::Endless => stream.write_all(HEAD).await?,
        }
        loop {
            match self {
                Manner::Drip => {
                    tokio::time::sleep(DRIP_EVERY).await;
                    stream.write_all(&CHUNK[..1]).await?;
                }
                Manner::Hang | Manner::Endless => stream.write_all(&CHUNK).await?,
            }
        }
    }
}
