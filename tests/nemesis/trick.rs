//! What a hostile receiver does instead of answering.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trick {
    Hang,
    Reset,
    Close,
    CutBody,
    Drip,
    EndlessBody,
    EndlessInterim,
    LargeHead,
    NoHttp,
    OtherHttp,
    Redirect,
}

const ALL: [Trick; 11] = [
    Trick::Hang,
    Trick::Reset,
    Trick::Close,
    Trick::CutBody,
    Trick::Drip,
    Trick::EndlessBody,
    Trick::EndlessInterim,
    Trick::LargeHead,
    Trick::NoHttp,
    Trick::OtherHttp,
    Trick::Redirect,
];
/// Between two pieces of something endless.
const PIECE_EVERY: Duration = Duration::from_millis(50);
/// Longer than any attempt may take.
const ENDLESS: Duration = Duration::from_secs(40);

impl Trick {
    /// Another one for each number.
    pub(crate) fn of(number: usize) -> Trick {
        ALL[number % ALL.len()]
    }

    /// The status that counts; 0: none. A body longer than anybody reads does not take
    /// back the status before it.
    pub(crate) fn status(self) -> u16 {
        match self {
            Trick::EndlessBody => 200,
            Trick::Redirect => 307,
            _ => 0,
        }
    }

    /// Plays it to the end, or until the caller has enough.
    pub(crate) async fn play(self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        // The caller breaks off as soon as it has enough.
        let _ = match self {
            Trick::Hang => {
                hang(stream).await;
                Ok(())
            }
            Trick::Reset | Trick::Close => Ok(()),
            Trick::CutBody => {
                send(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await
            }
            Trick::Drip => endless(stream, whole, b".").await,
            Trick::EndlessBody => endless(stream, whole, &vec![b'x'; 64 * 1024]).await,
            Trick::EndlessInterim => {
                endless(stream, b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n").await
            }
            Trick::LargeHead => {
                let head = b"HTTP/1.1 200 OK\r\nX-Long: ";
                endless(stream, head, &vec![b'x'; 64 * 1024]).await
            }
            Trick::NoHttp => send(stream, b"\0\0hello\r\n\r\n").await,
            Trick::OtherHttp => send(stream, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await,
            Trick::Redirect => {
                let to = b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.99/\r\n\
                           Content-Length: 0\r\n\r\n";
                send(stream, to).await
            }
        };
    }
}

/// Keeps the connection until the caller gives up.
pub(crate) async fn hang(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut byte = [0];
    let _ = tokio::time::timeout(ENDLESS, stream.read(&mut byte)).await;
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn endless(
    stream: &mut (impl AsyncWrite + Unpin),
    first: &[u8],
    piece: &[u8],
) -> std::io::Result<()> {
    let sending = async {
        send(stream, first).await?;
        loop {
            send(stream, piece).await?;
            tokio::time::sleep(PIECE_EVERY).await;
        }
    };
    tokio::time::timeout(ENDLESS, sending).await.unwrap_or(Ok(()))
}
