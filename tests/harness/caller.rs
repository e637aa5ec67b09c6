//! A caller with credentials of its own, over TLS or in the clear: what it shows, and what
//! it is told.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use http::Uri;
use hyper_util::rt::TokioIo;
use pb::event_service_client::EventServiceClient;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower::service_fn;

use hookward::grpc::pb;

use super::authority::{AUTHORITY, Pair};
use super::engine::Engine;

/// How a caller speaks TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) shows: Option<Arc<Pair>>,
    pub(crate) protocols: Vec<&'static [u8]>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
}

impl Tls {
    /// As gRPC clients do it, without a certificate.
    pub(crate) fn anonymous() -> Tls {
        let versions = vec![&rustls::version::TLS13, &rustls::version::TLS12];
        Tls { shows: None, protocols: vec![&b"h2"[..]], versions }
    }

    /// The same with a certificate.
    pub(crate) fn showing(pair: Pair) -> Tls {
        Tls { shows: Some(Arc::new(pair)), ..Tls::anonymous() }
    }

    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(AUTHORITY.pem().as_bytes());
        roots.add(authority.expect("it is one")).expect("it is one");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&self.versions)
            .expect("ring has these versions")
            .with_root_certificates(roots);
        let mut config = match &self.shows {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes());
                let key = key.expect("it is one");
                let chain = vec![pair.certificate.clone()];
                builder.with_client_auth_cert(chain, key).expect("they belong together")
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|one| one.to_vec()).collect();
        config
    }

    /// A connection after its handshake.
    pub(crate) async fn handshake(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        TlsConnector::from(Arc::new(self.config())).connect(name, tcp).await
    }

    /// A channel over such a connection.
    pub(crate) async fn channel(
        &self,
        address: SocketAddr,
    ) -> Result<Channel, tonic::transport::Error> {
        let tls = self.clone();
        let connect = service_fn(move |_: Uri| {
            let tls = tls.clone();
            async move { tls.handshake(address).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://hookward.test").connect_with_connector(connect).await
    }
}

/// What `hookward` says when it is run on a database with these words.
pub(crate) fn hookward(engine: &Engine, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hookward"))
        .args(words)
        .args(["--database-url", engine.url()])
        .output()
        .expect("the binary was built with the tests");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// A new API key of an organization.
pub(crate) fn api_key(
    engine: &Engine,
    organization: &str,
    scopes: &[&str],
    more: &[&str],
) -> String {
    let mut words = vec!["api-key", "create", "--label", "test", "--organization", organization];
    words.extend(scopes.iter().flat_map(|scope| ["--scope", *scope]));
    words.extend(more);
    hookward(engine, &words)
}

/// A call for events of an organization, with this token if any.
pub(crate) async fn list_events(
    channel: &Channel,
    organization: &str,
    token: Option<&str>,
) -> Result<(), Status> {
    let organization_id = organization.to_owned();
    let list = pb::ListEventsRequest { organization_id, ..pb::ListEventsRequest::default() };
    let mut request = Request::new(list);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
    }
    EventServiceClient::new(channel.clone()).list_events(request).await.map(drop)
}

/// The code that such a call is answered with.
pub(crate) async fn code(channel: &Channel, organization: &str, token: Option<&str>) -> Code {
    list_events(channel, organization, token).await.err().map_or(Code::Ok, |status| status.code())
}
