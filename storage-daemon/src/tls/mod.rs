//! `tls-creds-x509` objects: certificates from a directory, as rustls takes them.
//!
//! File names in the directory are those of QEMU: `ca-cert.pem`, `ca-crl.pem`, `server-cert.pem`,
//! `server-key.pem`, `client-cert.pem`, `client-key.pem`.

pub mod name;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;

use crate::cli::CliError;
use crate::process::{os_text, read_at_most};

/// Largest credential file that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Credentials for one side of TLS sessions.
#[derive(Clone)]
pub enum Credentials {
    /// For a server.
    Server(Arc<rustls::ServerConfig>),
    /// For a client.
    Client(Arc<rustls::ClientConfig>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Server",
            Self::Client(_) => "Client",
        })
    }
}

/// Loads the credentials of a server. With `verify_peer` clients must have a certificate of the same authority.
pub fn load_server(dir: &Path, verify_peer: bool) -> Result<Credentials, CliError> {
    let provider = provider();
    let authority = authority(dir, verify_peer)?;
    let certificates = certificates(&dir.join("server-cert.pem"))?;
    let key = key(&dir.join("server-key.pem"))?;
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match authority {
        Some((roots, crls)) if verify_peer => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .with_crls(crls)
                .build()
                .map_err(unusable)?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(certificates, key).map_err(unusable)?;
    Ok(Credentials::Server(Arc::new(config)))
}

/// Loads the credentials of a client; its own certificate is optional.
pub fn load_client(dir: &Path, verify_peer: bool) -> Result<Credentials, CliError> {
    let provider = provider();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match authority(dir, verify_peer)? {
        Some((roots, crls)) if verify_peer => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .with_crls(crls)
                .build()
                .map_err(unusable)?;
            builder.with_webpki_verifier(verifier)
        }
        _ => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(provider))),
    };
    let certificate = dir.join("client-cert.pem");
    let config = if certificate.exists() {
        let key = key(&dir.join("client-key.pem"))?;
        builder
            .with_client_auth_cert(certificates(&certificate)?, key)
            .map_err(unusable)?
    } else {
        builder.with_no_client_auth()
    };
    Ok(Credentials::Client(Arc::new(config)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(error: impl fmt::Display) -> CliError {
    CliError::new(format!("Unable to use the credentials: {error}"))
}

type Authority = (RootCertStore, Vec<CertificateRevocationListDer<'static>>);

/// The authority's certificates; without `needed` they may be missing.
fn authority(dir: &Path, needed: bool) -> Result<Option<Authority>, CliError> {
    let path = dir.join("ca-cert.pem");
    if !needed && !path.exists() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&path)? {
        roots.add(certificate).map_err(unusable)?;
    }
    let crl_path = dir.join("ca-crl.pem");
    let crls = if crl_path.exists() {
        let bytes = read(&crl_path)?;
        CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| not_pem(&crl_path, &error))?
    } else {
        Vec::new()
    };
    Ok(Some((roots, crls)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CliError> {
    let bytes = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(path, &error))?;
    if certificates.is_empty() {
        return Err(not_pem(path, &"no certificate in it"));
    }
    Ok(certificates)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, CliError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| not_pem(path, &error))
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let fail = |error: std::io::Error| {
        CliError::new(format!(
            "Unable to access credentials {}: {}",
            path.display(),
            os_text(&error)
        ))
    };
    read_at_most(path, MAX_FILE_BYTES)
        .map_err(fail)?
        .ok_or_else(|| CliError::new(format!("Credential file {} is too large", path.display())))
}

fn not_pem(path: &Path, error: &dyn fmt::Display) -> CliError {
    CliError::new(format!("Unable to import {}: {error}", path.display()))
}

/// `verify-peer=off`: the session is encrypted, the server may be anybody.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
