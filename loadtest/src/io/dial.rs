//! Opens WebSockets, with or without TLS.
//!
//! Certificates are taken unseen: the logins are anonymous and the media made
//! up, so there is nothing to keep from anybody.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Octets of a message; no stanza or channel message comes near.
const MAX_MESSAGE: usize = 4 << 20;

/// A connection, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A WebSocket over either.
pub type WebSocket = WebSocketStream<Box<dyn Stream>>;

/// Opens a WebSocket.
pub async fn websocket(url: &str, protocol: Option<&str>) -> Result<WebSocket> {
    let mut request = url
        .into_client_request()
        .with_context(|| format!("address {url}"))?;
    if let Some(protocol) = protocol {
        let value = HeaderValue::from_str(protocol).context("subprotocol")?;
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", value);
    }
    let uri = request.uri().clone();
    let host = uri.host().with_context(|| format!("no host in {url}"))?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let encrypted = match uri.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        _ => bail!("{url}: not a ws:// or wss:// address"),
    };
    let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let tcp = TcpStream::connect((host.as_str(), port))
        .await
        .with_context(|| format!("connecting to {host}:{port}"))?;
    tcp.set_nodelay(true).context("TCP_NODELAY")?;
    let mut stream: Box<dyn Stream> = Box::new(tcp);
    if encrypted {
        stream = encrypt(stream, &host).await?;
    }
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MAX_MESSAGE);
    let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config))
        .await
        .with_context(|| format!("WebSocket {url}"))?;
    Ok(socket)
}

/// Puts TLS on a connection.
pub async fn encrypt(stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>> {
    let name = ServerName::try_from(host.to_owned()).context("host name")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    Ok(Box::new(
        connector.connect(name, stream).await.context("TLS")?,
    ))
}

/// Trusts whoever answers.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
