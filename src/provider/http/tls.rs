//! TLS for connections: rustls with ring and the bundled Mozilla roots.
//!
//! ureq's own connector does the same, but it forces TLS 1.2 and rustls' log messages into the binary (docs/adr/0002).
//!
//! Invariant: the certificate of the server is always checked; there is no switch to leave that out.
//!
//! Absent: client certificates, ALPN (ureq speaks HTTP/1.1 only).

use rustls::client::{ClientConfig, ClientConnection};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, AlertDescription, Error, RootCertStore};
use std::io;
use std::sync::{Arc, OnceLock};

/// What all connections of a client share. Made when first needed: a server on plain HTTP costs no parsed roots.
#[derive(Default)]
pub(super) struct Tls(OnceLock<Arc<ClientConfig>>);

impl Tls {
    /// Trusts `roots` instead of the bundled ones.
    #[cfg(test)]
    pub(super) fn trusting(roots: RootCertStore) -> Self {
        Self(OnceLock::from(config(roots).unwrap()))
    }

    /// The client's side of a connection to `host`, a name or an address without brackets. Nothing is sent yet.
    ///
    /// # Errors
    /// `InvalidInput` if no certificate could be for such a host.
    pub(super) fn begin(&self, host: &str) -> io::Result<Box<ClientConnection>> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "not a host name that a certificate can be for")
        })?;
        let config = match self.0.get() {
            Some(config) => Arc::clone(config),
            None => {
                let made = config(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }).map_err(told)?;
                // Another thread may have been faster; then its one is used.
                Arc::clone(self.0.get_or_init(|| made))
            }
        };
        Ok(Box::new(ClientConnection::new(config, name).map_err(told)?))
    }
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(ALL_VERSIONS)?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// The error of a TLS session as one of its connection. What a server says that knows no version of ours is unspecific,
/// so the likely reason and its remedy are added.
pub(super) fn told(error: Error) -> io::Error {
    let kind = io::ErrorKind::InvalidData;
    if cfg!(not(feature = "tls12")) && is_likely_the_version(&error) {
        let what = format!("it seems to speak no TLS 1.3 ({error}); build with --features tls12");
        return io::Error::new(kind, what);
    }
    io::Error::new(kind, error)
}

fn is_likely_the_version(error: &Error) -> bool {
    use AlertDescription::{HandshakeFailure, InsufficientSecurity, ProtocolVersion};
    match error {
        Error::AlertReceived(alert) => matches!(alert, HandshakeFailure | InsufficientSecurity | ProtocolVersion),
        Error::PeerIncompatible(_) => true,
        _ => false,
    }
}
