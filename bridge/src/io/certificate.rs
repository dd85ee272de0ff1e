//! The certificate of this process, made anew at each start.

use crate::transport::Certificate;

/// Makes a self-signed ECDSA P-256 certificate. Peers know it by its
/// fingerprint, so neither its name nor its dates matter to them.
pub fn generate() -> Certificate {
    let made =
        dimpl::certificate::generate_self_signed_certificate().expect("P-256 is always available");
    Certificate::new(made.certificate, made.private_key)
}
