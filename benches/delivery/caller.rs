//! How the load generator reaches the service: in the clear and without a word about
//! itself, or over TLS and with an API key.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::transport::Endpoint;
use tower::service_fn;

use crate::options::Options;

/// Connections to the service, and what calls on them show. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Caller {
    /// To its addresses in turn.
    pub(crate) channels: Vec<Channel>,
    /// Made once; a call shares its bytes.
    authorization: Option<AsciiMetadataValue>,
}

impl Caller {
    /// Connects as these options say.
    pub(crate) async fn connect(options: &Options) -> anyhow::Result<Caller> {
        let tls = options.service_ca.as_deref().map(connector).transpose()?;
        let authorization = match &options.api_key {
            Some(key) => Some(format!("Bearer {key}").parse::<AsciiMetadataValue>()?),
            None => None,
        };
        let mut channels = Vec::new();
        for address in options.service.iter().cycle().take(options.grpc_connections as usize) {
            let channel = channel(address, tls.as_ref()).await;
            channels.push(channel.context("cannot reach the service")?);
        }
        Ok(Caller { channels, authorization })
    }

    /// A call with this message.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }
}

async fn channel(address: &str, tls: Option<&TlsConnector>) -> anyhow::Result<Channel> {
    // The scheme says nothing of TLS: who connects decides.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let Some(tls) = tls.cloned() else { return Ok(endpoint.connect().await?) };
    let address: SocketAddr = address.parse()?;
    let connect = service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::IpAddress(address.ip().into());
            tls.connect(name, stream).await.map(TokioIo::new)
        }
    });
    Ok(endpoint.connect_with_connector(connect).await?)
}

/// As any gRPC client would be set up that trusts this authority.
fn connector(authority: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
