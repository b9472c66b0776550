//! The world's certificate authority and the certificates of its servers.
//!
//! Ed25519 throughout: the size of a signature never varies, so neither does the number of bytes of a handshake.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};

/// A certificate authority that signs for servers and clients.
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// The same, for who checks what it has signed.
    pub certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    /// An identity that was written down, both PEM.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, rustls_pki_types::pem::Error> {
        Ok(Self {
            certificate_pem: certificate_pem.into(),
            key_pem: key_pem.into(),
            certificate: CertificateDer::from_pem_slice(certificate_pem.as_bytes())?,
            key: PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes())?.secret_pkcs8_der().to_vec(),
        })
    }
}

impl Authority {
    /// A new authority called `name`.
    pub fn new(name: &str) -> Self {
        let mut params = parameters(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = new_key();
        params.serial_number = Some(serial_number(&key));
        let certificate = params.self_signed(&key).expect("a certificate of our own parameters");
        Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for a server that is reached by any of `names` (DNS names or addresses).
    pub fn server(&self, names: &[String]) -> Identity {
        let mut params = parameters(names.first().map_or("server", String::as_str));
        let host_names = CertificateParams::new(names.to_vec()).expect("names of our own");
        params.subject_alt_names = host_names.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A certificate for the client `name`, a member of `organisation` (in Kubernetes, a group).
    pub fn client(&self, name: &str, organisation: &str) -> Identity {
        let mut params = parameters(name);
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = new_key();
        let mut params = params.clone();
        params.serial_number = Some(serial_number(&key));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate of our own parameters");
        Identity {
            certificate_pem: certificate.pem(),
            key_pem: format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                BASE64_STANDARD.encode(pkcs8(&key))
            ),
            certificate: certificate.der().clone(),
            key: pkcs8(&key),
        }
    }

    /// A server's TLS settings; `clients` is who may present a client certificate (nobody has to).
    pub fn server_config(identity: &Identity, clients: Option<&CertificateDer<'static>>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring knows the default versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(certificate.clone()).expect("our own certificate");
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .expect("one root is enough");
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.clone()));
        let mut config =
            builder.with_single_cert(vec![identity.certificate.clone()], key).expect("key and certificate match");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("ring makes Ed25519 keys")
}

/// A key as everybody reads it: OpenSSL knows the first version of PKCS#8 (RFC 8410) and not the second, which ring writes.
fn pkcs8(key: &KeyPair) -> Vec<u8> {
    const BEFORE: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let second = key.serialize_der();
    let private = &second[BEFORE.len()..BEFORE.len() + 32];
    [&BEFORE, private].concat()
}

/// A number that follows from the key and always has the same length in DER: its first byte is neither zero nor negative.
fn serial_number(key: &KeyPair) -> SerialNumber {
    let mut digest = Sha256::digest(key.public_key_raw());
    digest[0] = digest[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&digest[..16])
}

/// Valid far beyond any simulated calendar.
fn parameters(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
