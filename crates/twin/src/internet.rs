//! The internet beside Azure, as far as it is asked for by more than machines: the releases of k0s on GitHub, and a
//! service that says from which address one comes.

use std::net::IpAddr;

use http::{HeaderValue, header::LOCATION};
use hyper::Response;
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::{
    Twin, World,
    http::{self as server, Body, Received},
    machine,
};

/// Where releases are asked for, and where GitHub sends whoever downloads (observed).
const FRONT: &str = "github.com";
const ASSETS: &str = "release-assets.githubusercontent.com";
/// Says from which address one comes, as a line of text (Amazon documentation; observed).
const OWN_ADDRESS: &str = "checkip.amazonaws.com";
/// The hosts that are there.
pub const HOSTS: [&str; 3] = [FRONT, ASSETS, OWN_ADDRESS];
/// The list of digests that a release of k0s has (k0s source, `release.yml`).
const LIST: &str = "sha256sums.txt";

/// A file of a release of k0s. The list has a line for each binary, as `sha256sum -b` prints it (k0s source, `release.yml`).
pub(crate) fn release_file(version: &str, file: &str) -> Option<Vec<u8>> {
    if file != LIST {
        return machine::released_binary(version, file);
    }
    let files = ["amd64", "arm", "arm64"].map(|architecture| format!("k0s-{version}-{architecture}"));
    let lines: Option<String> = files
        .iter()
        .map(|file| {
            let bytes = machine::released_binary(version, file)?;
            Some(format!("{} *{file}\n", hex::encode(Sha256::digest(bytes))))
        })
        .collect();
    lines.map(String::into_bytes)
}

/// The file that a path of GitHub names.
pub(crate) fn at(path: &str) -> Option<Vec<u8>> {
    let path = percent_encoding::percent_decode_str(path.trim_start_matches('/')).decode_utf8_lossy();
    let (version, file) = path.strip_prefix("k0sproject/k0s/releases/download/")?.split_once('/')?;
    release_file(version, file)
}

/// Serves all hosts of it on one connection from that address, TLS first.
pub async fn serve<Stream>(twin: Twin, from: IpAddr, stream: Stream)
where
    Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let acceptor = TlsAcceptor::from(twin.with(|world| world.azure.tls()));
    // A client that does not trust us hangs up: its concern.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    server::serve(stream, move |request| {
        let answer = twin.with(|world| answer(world, from, &request));
        async move { answer }
    })
    .await;
}

fn answer(world: &mut World, from: IpAddr, request: &Received) -> Response<Body> {
    let host = request.head.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = request.head.uri.path();
    let mut response = match at(path) {
        _ if host.starts_with(OWN_ADDRESS) => Response::new(server::full(format!("{from}\n"))),
        None => with_status(404, "Not Found"),
        Some(_) if host.starts_with(FRONT) => {
            let mut response = with_status(302, "");
            if let Ok(place) = HeaderValue::from_str(&format!("https://{ASSETS}{path}")) {
                response.headers_mut().insert(LOCATION, place);
            }
            response
        }
        Some(bytes) => Response::new(server::full(bytes)),
    };
    response.headers_mut().insert("server", HeaderValue::from_static("github.com"));
    let status = u32::from(response.status().as_u16());
    world.ledger.request(
        world.now,
        "internet",
        request.head.method.as_str(),
        format!("https://{host}{path}"),
        status,
        None,
    );
    response
}

fn with_status(status: u16, text: &'static str) -> Response<Body> {
    let mut response = Response::new(server::full(text));
    *response.status_mut() = ::http::StatusCode::from_u16(status).unwrap_or_default();
    response
}
