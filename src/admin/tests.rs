//! The three pages, asked for over a real socket.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
}

async fn start(metrics: Metrics, readiness: Readiness) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let server = tokio::spawn(serve(listener, metrics, readiness, shutdown));
    Running { address, stop, server }
}

async fn get_page(address: SocketAddr, path: &str) -> String {
    get_page_as(address, path, "*/*").await
}

async fn get_page_as(address: SocketAddr, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let headers = format!("host: admin\r\naccept: {accept}\r\nconnection: close");
    let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}

#[tokio::test]
async fn readiness_is_asked_for_each_time_and_health_does_not_depend_on_it() {
    let reasons = Arc::new(Mutex::new(vec![NotReady::DatabaseAway, NotReady::Draining]));
    let asked = Arc::clone(&reasons);
    let readiness = Readiness::new(move || asked.lock().expect("no panic").clone());
    let running = start(Metrics::new(), readiness).await;

    let unready = get_page(running.address, "/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503 "), "{unready}");
    assert!(unready.ends_with("the database has not answered lately\ndraining\n"), "{unready}");
    let healthy = get_page(running.address, "/healthz").await;
    assert!(healthy.starts_with("HTTP/1.1 200 "), "{healthy}");

    reasons.lock().expect("no panic").clear();
    let ready = get_page(running.address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    assert!(get_page(running.address, "/other").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn the_metrics_page_is_prometheus_text() {
    let metrics = Metrics::new();
    metrics.events_accepted(3);
    let running = start(metrics, Readiness::new(Vec::new)).await;
    let page = get_page(running.address, "/metrics").await;
    assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
    assert!(page.contains("\nhookward_events_accepted_total 3\n"), "{page}");
    let page = get_page_as(running.address, "/metrics", "application/openmetrics-text").await;
    assert!(page.contains("content-type: application/openmetrics-text; version=1.0.0"), "{page}");
    assert!(page.ends_with("\n# EOF\n"), "{page}");
}

/// A scraper that opened a connection and says nothing must not keep the process alive.
#[tokio::test]
async fn a_silent_connection_does_not_hold_up_the_end() {
    let running = start(Metrics::new(), Readiness::new(Vec::new)).await;
    let mut silent = TcpStream::connect(running.address).await.expect("it listens");
    silent.write_all(b"GET /hea").await.expect("it reads");
    running.stop.send(()).expect("it runs");
    running.server.await.expect("no panic").expect("it ends well");
}
