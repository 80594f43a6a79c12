//! TLS for connections: rustls with ring, and the bundled Mozilla roots or configured ones in their place.
//!
//! ureq's own connector does the same, but it forces TLS 1.2 and rustls' log messages into the binary (docs/adr/0002).
//!
//! Invariant: the certificate of the server is always checked; there is no switch to leave that out.
//!
//! Absent: client certificates, ALPN (ureq speaks HTTP/1.1 only).

use ring::rand::SecureRandom as _;
use rustls::client::ClientConfig;
pub(super) use rustls::client::ClientConnection;
use rustls::crypto::ring::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::SigningKey;
use rustls::{ALL_VERSIONS, AlertDescription, Error, RootCertStore, SignatureScheme, SupportedCipherSuite};
use std::io;
use std::sync::{Arc, OnceLock};
use webpki::ring as sig;

/// What all connections of a client share. Made when first needed: a server on plain HTTP costs no parsed roots.
#[derive(Default)]
pub(super) struct Tls(OnceLock<Arc<ClientConfig>>);

impl Tls {
    /// Trusts these certificates (DER) instead of the bundled ones.
    ///
    /// # Errors
    /// If one of them is no certificate.
    pub(super) fn trusting(certificates: &[Vec<u8>]) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for der in certificates {
            roots.add(CertificateDer::from(der.as_slice()).into_owned())?;
        }
        Ok(Self(OnceLock::from(config(roots)?)))
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

/// What a client of public servers needs of ring, named one by one so that the linker leaves out the rest: rustls' own
/// list brings keys to sign with, and Ed25519, which no public authority may use. On x86_64, which has instructions for
/// AES and ring's fast P-256, ChaCha20 and X25519 stay out too: no server may insist on them (RFC 8446, 9.1). Other
/// processors may be better off with those.
fn algorithms() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: Vec::from(SUITES),
        kx_groups: vec![
            #[cfg(not(target_arch = "x86_64"))]
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Random,
        key_provider: &NoKeys,
    }
}

const SUITES: &[SupportedCipherSuite] = &[
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    #[cfg(not(target_arch = "x86_64"))]
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    #[cfg(feature = "tls12")]
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    #[cfg(feature = "tls12")]
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    #[cfg(feature = "tls12")]
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    #[cfg(feature = "tls12")]
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// As rustls lists them for ring: in certificates, and by the schemes of a handshake. For a scheme, TLS 1.3 takes the
/// first; TLS 1.2 tries them all.
const SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        sig::ECDSA_P256_SHA256,
        sig::ECDSA_P256_SHA384,
        sig::ECDSA_P384_SHA256,
        sig::ECDSA_P384_SHA384,
        sig::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        sig::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        sig::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        sig::RSA_PKCS1_2048_8192_SHA256,
        sig::RSA_PKCS1_2048_8192_SHA384,
        sig::RSA_PKCS1_2048_8192_SHA512,
        sig::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
        sig::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        sig::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    ],
    mapping: &[
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[sig::ECDSA_P384_SHA384, sig::ECDSA_P256_SHA384]),
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[sig::ECDSA_P256_SHA256, sig::ECDSA_P384_SHA256]),
        (SignatureScheme::RSA_PSS_SHA512, &[sig::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA384, &[sig::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA256, &[sig::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (SignatureScheme::RSA_PKCS1_SHA512, &[sig::RSA_PKCS1_2048_8192_SHA512]),
        (SignatureScheme::RSA_PKCS1_SHA384, &[sig::RSA_PKCS1_2048_8192_SHA384]),
        (SignatureScheme::RSA_PKCS1_SHA256, &[sig::RSA_PKCS1_2048_8192_SHA256]),
    ],
};

/// The kernel's generator, through ring.
#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        ring::rand::SystemRandom::new().fill(buffer).map_err(|_| GetRandomFailed)
    }
}

/// We have no certificate to prove with a key.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("no private keys are used".into()))
    }
}

/// The one that knows the years after 2038 on machines of 32 bits too.
#[derive(Debug)]
struct Clock;

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(duragent_platform::clock::wall()))
    }
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_details(Arc::new(algorithms()), Arc::new(Clock));
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
