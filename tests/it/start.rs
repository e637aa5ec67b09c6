//! Promise: a start waits for a database that is away, and says so; and ends where waiting is
//! of no use.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use crate::harness::admin;
use crate::harness::engine::Engine;
use crate::harness::eventually::eventually;
use crate::harness::process::Process;
use crate::harness::proxy::Proxy;
use crate::harness::service::{Service, addresses};

/// Whoever is started while the database is away waits for it, alive and not ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_database_waits_for_it() {
    let Some(engine) = Engine::postgres() else { return };
    let proxy = Proxy::to(engine.port()).await;
    proxy.refuse();
    let admin = free_port();
    let engine = engine.at_port(proxy.port());
    let door = free_port();
    let listens = door.to_string();
    let arguments = ["serve", "--database-url", engine.url(), "--grpc-listen", &listens];
    let environment = [("HOOKWARD_ADMIN_LISTEN".to_owned(), admin.to_string())];
    let mut process = Process::start(&arguments.map(str::to_owned), &environment, engine.folder());
    eventually("a word about what it waits for", async || {
        process.written().contains("waiting for the database").then_some(())
    })
    .await;
    let healthy = admin::get(admin, "/healthz").await.expect("an answer");
    assert_eq!(healthy, (200, "ok\n".to_owned()));
    assert_eq!(admin::get(admin, "/readyz").await, Some((503, "starting\n".to_owned())));
    assert_eq!(admin::metric(admin, "hookward_ready").await, Some(0.0));
    let refused = TcpStream::connect(door).expect_err("a call would wait for an answer");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let health = |ready: &'static [&'static str]| {
        let listens = admin.to_string();
        run(&[&["health", "--admin-listen", &listens], ready].concat())
    };
    assert_eq!(health(&[]), (0, "ok\n".to_owned()));
    assert_eq!(health(&["--ready"]), (1, format!("hookward: {admin}: starting\n")));

    proxy.accept();
    let (grpc, _) = addresses(&mut process).await;
    eventually("readiness", async || {
        (health(&["--ready"]) == (0, "ready\n".to_owned())).then_some(())
    })
    .await;
    eventually("the same as a metric", async || {
        (admin::metric(admin, "hookward_ready").await == Some(1.0)).then_some(())
    })
    .await;
    let grpc = grpc.expect("it takes calls").to_string();
    let asked = ["health", "--address", &admin.to_string(), "--ready", "--reachable"];
    assert_eq!(run(&[&asked[..], &[&grpc]].concat()).0, 0);
    let closed = free_port().to_string();
    assert_eq!(run(&[&asked[..], &[&closed]].concat()).0, 1);
}

/// A user or a database that the server does not know will not be known in a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_the_database_refuses_ends() {
    let Some(engine) = Engine::postgres() else { return };
    let url = format!("{}-that-is-not-there", engine.url());
    let arguments = ["serve", "--database-url", &url, "--grpc-listen", "127.0.0.1:0"];
    let environment = [("HOOKWARD_ADMIN_LISTEN".to_owned(), "127.0.0.1:0".to_owned())];
    let mut process = Process::start(&arguments.map(str::to_owned), &environment, engine.folder());
    assert_eq!(process.ends().await.code(), Some(1), "{}", process.written());
}

/// They are put off while it starts, and worth a tenth of the throughput.
#[tokio::test(flavor = "multi_thread")]
async fn huge_pages_are_taken_once_it_has_started() {
    let service = Service::start(Engine::sqlite()).await;
    // Whoever runs the tests may have forbidden them to all that these start.
    let ours = huge_pages(std::process::id());
    eventually("the same as here", async || (huge_pages(service.id()) == ours).then_some(())).await;
}

/// What Linux says of a process: whether it is given any.
fn huge_pages(process: u32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    status.lines().find(|line| line.starts_with("THP_enabled:")).map(str::to_owned)
}

/// An address that nobody listens on.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound")
}

/// Exit code of a command, and what it printed.
fn run(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookward"));
    let output = command.args(arguments).env_clear().output().expect("it runs");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().expect("it ends"), String::from_utf8(printed).expect("text"))
}
