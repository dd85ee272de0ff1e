//! TLS to the server, and whom to believe.
//!
//! The certificate must be for the XMPP domain, whatever the host is called.
//! It is believed if it leads to a certificate of the store, or is itself in
//! it. The second is what Debian's packages of Jitsi rely on: `prosodyctl
//! cert generate` makes self-signed certificates marked as an authority, and
//! those are refused as a server's own by the usual rules (RFC 5280 §6 as
//! `webpki` has it). Being in the store is then the operator's word, also
//! for its dates.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, RootCertStore,
    SignatureScheme,
};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use super::tcp::Tcp;
use crate::session::Trouble;

/// Where distributions keep the store; the first that exists is read.
const STORES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names another store, as for OpenSSL.
const STORE_VARIABLE: &str = "SSL_CERT_FILE";
/// Label of the channel binding data (RFC 9266 §2), which are 32 octets.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

/// A TLS connection, and the data that bind a login to it. Those exist from
/// TLS 1.3 on: before, they are safe only with an extension that cannot be
/// asked for here.
pub(super) struct Secured {
    pub(super) stream: TlsStream<Tcp>,
    pub(super) exporter: Option<Vec<u8>>,
}

/// Runs the handshake.
pub(super) async fn secure(
    tcp: Tcp,
    domain: &str,
    verify: bool,
    trusted: &[PathBuf],
) -> Result<Secured, Trouble> {
    let name = ServerName::try_from(domain.to_owned())
        .map_err(|_| Trouble::Tls(format!("{domain} is no DNS name")))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new(&provider, verify.then(|| read_stores(trusted)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Trouble::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|error| {
            let cause = error
                .get_ref()
                .and_then(|cause| cause.downcast_ref::<Error>());
            match cause {
                Some(Error::InvalidCertificate(reason)) => {
                    Trouble::Certificate(format!("{reason} (it must be for {domain})"))
                }
                _ => Trouble::Tls(error.to_string()),
            }
        })?;
    let (_, connection) = stream.get_ref();
    let exporter = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Some(
            connection
                .export_keying_material(vec![0; 32], EXPORTER, None)
                .map_err(|error| Trouble::Tls(error.to_string()))?,
        ),
        _ => None,
    };
    Ok(Secured { stream, exporter })
}

/// The certificates of the system's store and of further files.
fn read_stores(trusted: &[PathBuf]) -> Vec<CertificateDer<'static>> {
    let named = std::env::var_os(STORE_VARIABLE).map(PathBuf::from);
    let system = named.or_else(|| {
        let stores = STORES.iter().map(PathBuf::from);
        stores.into_iter().find(|path| path.exists())
    });
    let mut certificates = Vec::new();
    for path in system.iter().chain(trusted) {
        if let Err(error) = read_store(path, &mut certificates) {
            warn!(path = %path.display(), error, "trusted certificates cannot be read");
        }
    }
    certificates
}

fn read_store(path: &Path, into: &mut Vec<CertificateDer<'static>>) -> Result<(), String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    for certificate in certificates {
        into.push(certificate.map_err(|error| error.to_string())?);
    }
    Ok(())
}

/// Decides about the server's certificate.
#[derive(Debug)]
struct Verifier {
    /// `None`: anything is believed.
    store: Option<Store>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Store {
    /// `None`: no certificate of the store can sign others.
    chains: Option<Arc<WebPkiServerVerifier>>,
    certificates: HashSet<CertificateDer<'static>>,
}

impl Verifier {
    fn new(provider: &Arc<CryptoProvider>, store: Option<Vec<CertificateDer<'static>>>) -> Self {
        Self {
            algorithms: provider.signature_verification_algorithms,
            store: store.map(|certificates| {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates.iter().cloned());
                Store {
                    chains: WebPkiServerVerifier::builder_with_provider(
                        Arc::new(roots),
                        Arc::clone(provider),
                    )
                    .build()
                    .ok(),
                    certificates: certificates.into_iter().collect(),
                }
            }),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(store) = &self.store else {
            return Ok(ServerCertVerified::assertion());
        };
        if store.certificates.contains(end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        match &store.chains {
            Some(chains) => {
                chains.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
