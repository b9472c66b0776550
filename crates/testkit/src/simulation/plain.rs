//! The same world without TLS, as far as the program can be talked into it.
//!
//! The program speaks plain HTTP to one address only: that of the metadata service inside an Azure machine. Azure and
//! its login service can therefore be simulated without TLS behind that address. SSH, and the Kubernetes API inside
//! of it, stay encrypted.

use deploy::{azure::Endpoints, http::METADATA_HOST};
use http::{HeaderValue, Uri};
use tokio::io::DuplexStream;
use twin::{Twin, azure::Service};

/// Where the Resource Manager answers.
const ARM_PORT: u16 = 80;
/// Where the login service answers.
const LOGIN_PORT: u16 = 81;
/// Bytes that fit into a connection before the writer has to wait for the reader.
const PIPE_BYTES: usize = 64 * 1024;
/// Where Azure says how an operation goes on.
const LINKS: [&str; 2] = ["azure-asyncoperation", "location"];

/// Endpoints without TLS.
pub fn endpoints() -> Endpoints {
    let login = format!("http://{METADATA_HOST}:{LOGIN_PORT}").parse();
    let usual = Endpoints::default();
    Endpoints { arm: Uri::from_static("http://169.254.169.254"), authority: login.unwrap_or(usual.authority) }
}

/// A connection to one of those endpoints; nothing for any other address.
pub(super) fn connect(twin: &Twin, host: &str, port: u16) -> Option<DuplexStream> {
    let service = match port {
        _ if host != METADATA_HOST => return None,
        ARM_PORT => Service::ResourceManager,
        LOGIN_PORT => Service::Login,
        _ => return None,
    };
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let twin = twin.clone();
    tokio::spawn(twin::http::serve(far, move |request| {
        let twin = twin.clone();
        async move {
            let mut answer = twin::azure::answer(twin, service, request).await;
            for link in LINKS {
                let Some(value) = answer.headers_mut().get_mut(link) else { continue };
                let plain = value.to_str().unwrap_or_default().replacen("https://", "http://", 1);
                *value = HeaderValue::from_str(&plain).unwrap_or_else(|_| value.clone());
            }
            answer
        }
    }));
    Some(near)
}
