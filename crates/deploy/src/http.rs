//! The HTTPS client: HTTP/1.1 over TLS over the seam, through a proxy where there is one, with a deadline on everything.

use std::{error::Error, fmt, future::Future, io, pin::Pin, sync::Arc, task, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::rt::ReadBufCursor;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{CertificateError, ClientConfig, RootCertStore, time_provider::TimeProvider};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::{
    proxy::{Proxy, ProxyCause, ProxyFailure, Way},
    seam::{Clock, Network, Roots, Stream, World},
};

/// How long a connection may take, and TLS on it; a way through other machines has their time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept. Azure closes idle connections after minutes (guess).
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest answer that is read. The list of machine sizes of a region has 1 to 3 MB (Azure documentation).
const ANSWER_BYTES_LIMIT: usize = 64 * 1024 * 1024;

/// The one host that is spoken to without TLS: the metadata service inside an Azure machine (Azure documentation).
pub const METADATA_HOST: &str = "169.254.169.254";

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error("cannot connect to {host}: {cause}")]
    Connect {
        /// The host and port.
        host: String,
        /// Why.
        cause: String,
    },
    /// No connection, because of the proxy on the way.
    #[error(transparent)]
    Proxy(Box<ProxyFailure>),
    /// A connection, but no trust.
    #[error("no secure connection to {host}: {cause}")]
    Secure {
        /// The host and port.
        host: String,
        /// Why.
        cause: String,
        /// Whether it is somebody unknown who vouches for the host.
        unknown_issuer: bool,
    },
    /// The connection broke before the answer was there; the request may have been carried out.
    #[error("the connection to {host} broke: {cause}")]
    Exchange {
        /// The host and port.
        host: String,
        /// Why.
        cause: String,
    },
    /// No complete answer in time; the request may have been carried out.
    #[error("{host} did not answer within {seconds} s")]
    Timeout {
        /// The host and port.
        host: String,
        /// The patience, in seconds.
        seconds: u64,
    },
    /// The request was never sent because it must not be.
    #[error("refused to send a request to {host}: {cause}")]
    Refused {
        /// The host and port.
        host: String,
        /// Why.
        cause: String,
    },
}

impl HttpError {
    /// Whether the server cannot have seen the request.
    pub fn never_sent(&self) -> bool {
        !matches!(self, HttpError::Exchange { .. } | HttpError::Timeout { .. })
    }

    /// Whether the same request may work later.
    pub fn may_pass(&self) -> bool {
        match self {
            HttpError::Refused { .. } | HttpError::Secure { .. } => false,
            HttpError::Proxy(failure) => failure.may_pass(),
            HttpError::Connect { .. } | HttpError::Exchange { .. } | HttpError::Timeout { .. } => true,
        }
    }

    /// What to do about it, where this side knows.
    pub fn advice(&self) -> Option<String> {
        match self {
            HttpError::Proxy(failure) => Some(failure.advice()),
            HttpError::Secure { unknown_issuer: true, .. } => Some(
                "If a proxy or a firewall looks into TLS on the way, name its certificate authority in SSL_CERT_FILE, a file \
                 with everybody who is to be trusted (often /etc/ssl/certs/ca-certificates.crt)."
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// The client. Clones share the connections.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
    plain_everywhere: bool,
}

impl HttpClient {
    /// A client whose connections, clock and trust are those of the world.
    pub fn new(world: &World) -> HttpClient {
        HttpClient::with_plain(world, false)
    }

    /// A client for tests against servers without TLS.
    #[cfg(test)]
    pub(crate) fn plain(world: &World) -> HttpClient {
        HttpClient::with_plain(world, true)
    }

    fn with_plain(world: &World, plain_everywhere: bool) -> HttpClient {
        let connector = Connector {
            proxy: world.proxy.clone(),
            ..Connector::new(world.network.clone(), Arc::new(tls_config(world)))
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        HttpClient { client, plain_everywhere }
    }

    /// Sends a request and reads the whole answer, both within the timeout.
    pub async fn send(&self, request: Request<Bytes>, patience: Duration) -> Result<Response<Bytes>, HttpError> {
        let host = host_and_port(request.uri());
        self.check(request.uri(), &host)?;
        match timeout(patience, self.exchange(request, &host)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Timeout { host, seconds: patience.as_secs() }),
        }
    }

    fn check(&self, uri: &Uri, host: &str) -> Result<(), HttpError> {
        let refused = |cause: &str| Err(HttpError::Refused { host: host.to_owned(), cause: cause.to_owned() });
        match (uri.scheme_str(), uri.host()) {
            (_, None) => refused("the address names no host"),
            (Some("https"), _) => Ok(()),
            (Some("http"), Some(name)) if self.plain_everywhere || name == METADATA_HOST => Ok(()),
            _ => refused("only https is allowed"),
        }
    }

    async fn exchange(&self, request: Request<Bytes>, host: &str) -> Result<Response<Bytes>, HttpError> {
        let broke = |cause: String| HttpError::Exchange { host: host.to_owned(), cause };
        let answer = self
            .client
            .request(request.map(Full::new))
            .await
            .map_err(|error| connect_failure(&error, host).unwrap_or_else(|| broke(causes(&error))))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_LIMIT).collect().await.map_err(|error| broke(causes(&*error)))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HttpClient")
    }
}

/// TLS as every client of this crate speaks it: the world's authorities, the world's clock, ring.
pub fn tls_config(world: &World) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    if !matches!(world.roots, Roots::Only(_)) {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Roots::PublicAnd(own) | Roots::Only(own) = &world.roots {
        roots.add_parsable_certificates(own.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_details(provider, Arc::new(WorldTime(world.clock.clone())))
        .with_safe_default_protocol_versions()
        .expect("the ring provider supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Roots {
    /// Nobody but these authorities; none if nobody can be trusted by them.
    pub fn only(certificates: Vec<CertificateDer<'static>>) -> Option<Roots> {
        let (usable, _) = RootCertStore::empty().add_parsable_certificates(certificates.iter().cloned());
        (usable > 0).then_some(Roots::Only(certificates))
    }
}

/// Certificates are judged by the world's clock.
struct WorldTime(Arc<dyn Clock>);

impl fmt::Debug for WorldTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WorldTime")
    }
}

impl TimeProvider for WorldTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.utc().unix_timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Opens connections for hyper.
#[derive(Clone)]
pub(crate) struct Connector {
    network: Arc<dyn Network>,
    tls: Arc<ClientConfig>,
    proxy: Proxy,
}

/// Why a connection was not opened; travels through hyper as the source of its error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectFailure {
    #[error("{0}")]
    Connect(io::Error),
    #[error("{0}")]
    Proxy(Box<ProxyFailure>),
    #[error("{0}")]
    Secure(rustls::Error),
    #[error("no TLS within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
}

impl Connector {
    /// Connections over `network` and no proxy, secured as `tls` says.
    pub(crate) fn new(network: Arc<dyn Network>, tls: Arc<ClientConfig>) -> Self {
        Self { network, tls, proxy: Proxy::default() }
    }

    async fn connect(self, uri: Uri) -> Result<Line, ConnectFailure> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let stream = match self.proxy.way_to(&uri) {
            Some(way) => {
                let target = host_and_port(&uri);
                let failure = |cause| ConnectFailure::Proxy(Box::new(way.failure(&target, cause)));
                self.through(&way, &target).await.map_err(failure)?
            }
            None => {
                let connected = self.network.connect_within(&host, port(&uri), CONNECT_TIMEOUT).await;
                connected.map_err(ConnectFailure::Connect)?
            }
        };
        let is_plain = uri.scheme_str() == Some("http");
        Ok(Line(TokioIo::new(if is_plain { stream } else { self.secure(host, stream).await? })))
    }

    /// A connection to `target` that the proxy makes for us.
    async fn through(&self, way: &Way, target: &str) -> Result<Stream, ProxyCause> {
        let host = way.proxy.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let connected = self.network.connect_within(&host, port(&way.proxy), CONNECT_TIMEOUT).await;
        let mut stream = connected.map_err(|error| ProxyCause::Unreachable(error.to_string()))?;
        if way.proxy.scheme_str() == Some("https") {
            stream = self.secure(host, stream).await.map_err(|error| ProxyCause::Secure(error.to_string()))?;
        }
        let silent = Err(ProxyCause::Silent(CONNECT_TIMEOUT.as_secs()));
        timeout(CONNECT_TIMEOUT, way.through(stream, target)).await.unwrap_or(silent)
    }

    async fn secure(&self, host: String, stream: Stream) -> Result<Stream, ConnectFailure> {
        let name = ServerName::try_from(host)
            .map_err(|error| ConnectFailure::Secure(rustls::Error::General(error.to_string())))?;
        let secured = timeout(CONNECT_TIMEOUT, TlsConnector::from(self.tls.clone()).connect(name, stream)).await;
        let stream = secured.map_err(|_| ConnectFailure::Timeout)?.map_err(|error| {
            match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
                Some(cause) => ConnectFailure::Secure(cause.clone()),
                None => ConnectFailure::Connect(error),
            }
        })?;
        Ok(Box::new(stream))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Line;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Line, ConnectFailure>> + Send>>;

    fn poll_ready(&mut self, _context: &mut task::Context<'_>) -> task::Poll<Result<(), ConnectFailure>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection in the shape that hyper wants.
pub(crate) struct Line(TokioIo<Stream>);

impl Connection for Line {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// The port of an address, said or usual.
pub(crate) fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}

fn host_and_port(uri: &Uri) -> String {
    format!("{}:{}", uri.host().unwrap_or("?"), port(uri))
}

/// An error, and what it comes from, one after the other.
pub(crate) fn chain<'error>(
    error: &'error (dyn Error + 'static),
) -> impl Iterator<Item = &'error (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The failure to connect that hyper wrapped, if that is what happened.
fn connect_failure(error: &(dyn Error + 'static), host: &str) -> Option<HttpError> {
    let host = host.to_owned();
    let failure = chain(error).find_map(|error| error.downcast_ref::<ConnectFailure>())?;
    Some(match failure {
        ConnectFailure::Proxy(failure) => HttpError::Proxy(failure.clone()),
        ConnectFailure::Secure(cause) => HttpError::Secure {
            host,
            cause: cause.to_string(),
            unknown_issuer: *cause == rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer),
        },
        other => HttpError::Connect { host, cause: other.to_string() },
    })
}

/// An error and its sources in one line, without repeating what a wrapper already said.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in chain(error).skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::scripted::{Script, answer};

    fn get(uri: &str) -> Request<Bytes> {
        Request::get(uri).body(Bytes::new()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn plain_http_is_only_for_the_metadata_service() {
        let script = Script::new(|_| answer(200, "{}"));
        let client = HttpClient::new(&script.world());
        let second = Duration::from_secs(1);
        let error = client.send(get("http://management.azure.com/"), second).await.unwrap_err();
        assert_eq!(error.to_string(), "refused to send a request to management.azure.com:80: only https is allowed");
        assert_eq!(client.send(get("http://169.254.169.254/metadata"), second).await.unwrap().status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_name_the_host_and_the_phase() {
        let script = Script::new(|_| answer(200, "{}"));
        let client = HttpClient::new(&script.world());
        let patience = Duration::from_secs(30);
        // The scripted server speaks no TLS.
        let error = client.send(get("https://management.azure.com/"), patience).await.unwrap_err();
        assert!(!error.may_pass(), "{error}");
        assert!(error.to_string().starts_with("no secure connection to management.azure.com:443: "), "{error}");
        let error = client.send(get("https://unknown.example/"), patience).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot connect to unknown.example:443: name or service not known");
        let error = client.send(get("https://silent.example/"), patience).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot connect to silent.example:443: no connection within 10 s");
        assert!(error.never_sent());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_a_timeout() {
        let script = Script::new(|_| answer(200, "{}")).slow(Duration::from_secs(5));
        let client = HttpClient::plain(&script.world());
        let error = client.send(get("http://arm.example/"), Duration::from_secs(3)).await.unwrap_err();
        assert_eq!(error.to_string(), "arm.example:80 did not answer within 3 s");
        assert!(!error.never_sent());
    }
}
