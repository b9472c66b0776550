//! The way to Azure and the internet as the surroundings describe it: the proxy, and whom HTTPS trusts. The Azure CLI reads
//! the same variables by itself: it has our surroundings.

use std::path::Path;

use deploy::{proxy::Proxy, seam::Roots, secret::Secret};
use rustls_native_certs::{CertificateResult, load_certs_from_paths};

use crate::{error::CommandError, settings::Surroundings};

/// Who names the proxy for HTTPS, the first that says something (as in Go; curl asks for the small letters first).
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// Who names what is reached without it.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Who names files of certificates, and directories of such files (OpenSSL documentation).
const CERTIFICATES: &str = "SSL_CERT_FILE";
const DIRECTORIES: &str = "SSL_CERT_DIR";

/// The proxy, if the surroundings name one.
pub(crate) fn proxy(surroundings: &Surroundings) -> Result<Proxy, CommandError> {
    let said = |names: &[&'static str]| {
        names.iter().find_map(|name| surroundings.variable(name).map(|value| (*name, value.trim().to_owned())))
    };
    let Some((variable, address)) = said(&PROXIES) else { return Ok(Proxy::default()) };
    let (_, exceptions) = said(&EXCEPTIONS).unwrap_or_default();
    Proxy::new(variable, &Secret::new(address), &exceptions)
        .map_err(|why| CommandError::usage(why).hint(format!("correct {variable}, or unset it; nothing was touched")))
}

/// Whom HTTPS trusts. Either variable replaces the public authorities, as everywhere in Rust (rustls-native-certs).
pub(crate) fn roots(surroundings: &Surroundings) -> Result<Roots, CommandError> {
    let (file, directories) = (surroundings.variable(CERTIFICATES), surroundings.variable(DIRECTORIES));
    let mut all = Vec::new();
    if let Some(file) = file {
        let found = load_certs_from_paths(Some(Path::new(file)), None);
        all.extend(certificates(CERTIFICATES, file, found, false)?);
    }
    for directory in directories.into_iter().flat_map(|directories| directories.split(':')) {
        if !directory.is_empty() {
            let found = load_certs_from_paths(None, Some(Path::new(directory)));
            all.extend(certificates(DIRECTORIES, directory, found, true)?);
        }
    }
    if file.is_none() && directories.is_none() {
        return Ok(Roots::Public);
    }
    let named = file.map_or(DIRECTORIES, |_| CERTIFICATES);
    Roots::only(all).ok_or_else(|| unusable(named, "there is no certificate of an authority in it"))
}

/// The certificates of one place. In a directory there may be files of others beside them.
fn certificates(
    variable: &str,
    place: &str,
    found: CertificateResult,
    may_hold_others: bool,
) -> Result<Vec<rustls_pki_types::CertificateDer<'static>>, CommandError> {
    match found.errors.first() {
        Some(error) if found.certs.is_empty() || !may_hold_others => Err(unusable(variable, &error.to_string())),
        _ if found.certs.is_empty() => Err(unusable(variable, &format!("there is no certificate in {place}"))),
        _ => Ok(found.certs),
    }
}

fn unusable(variable: &str, why: &str) -> CommandError {
    let hint =
        format!("let {variable} name certificates in PEM, such as /etc/ssl/certs/ca-certificates.crt, or unset it");
    CommandError::usage(format!("{variable}: {why}")).hint(hint)
}
