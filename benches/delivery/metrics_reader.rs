//! Who reads the page of metrics, as Prometheus does.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::anyhow;
use anyhow::ensure;

const EVERY: Duration = Duration::from_secs(1);

/// Reads a page a second until it is stopped.
pub(crate) struct MetricsReader {
    stop: Sender<()>,
    reading: JoinHandle<anyhow::Result<u64>>,
}

impl MetricsReader {
    /// Reads the page of the admin port at `address`.
    pub(crate) fn start(address: String) -> MetricsReader {
        let (stop, stopped) = mpsc::channel();
        let reading = std::thread::spawn(move || {
            let mut pages = 0;
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                read(&address)?;
                pages += 1;
            }
            Ok(pages)
        });
        MetricsReader { stop, reading }
    }

    /// How many pages there were.
    pub(crate) fn stop(self) -> anyhow::Result<u64> {
        drop(self.stop);
        self.reading.join().map_err(|_| anyhow!("it panicked"))?
    }
}

fn read(address: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    ensure!(page.contains("hookward_build_info"), "this is not the page of metrics: {page}");
    Ok(())
}
