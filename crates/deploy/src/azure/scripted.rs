//! For tests: a server in memory that answers from a script, and a world around it.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{ArmClient, Credentials, Endpoints};
use crate::{
    http::HttpClient,
    proxy::Proxy,
    seam::{Clock, Files, Network, Roots, Stream, World, lock, pause},
    secret::Secret,
};

/// A request as the script sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// `GET /path`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

pub(crate) fn answer(status: u16, text: impl Into<String>) -> Response<String> {
    Response::builder().status(status).body(text.into()).unwrap()
}

pub(crate) fn json(status: u16, body: &Value) -> Response<String> {
    answer(status, body.to_string())
}

pub(crate) fn with_header(mut response: Response<String>, name: &'static str, value: &str) -> Response<String> {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

type Handler = dyn Fn(&Seen) -> Response<String> + Send + Sync;

/// A server that answers every host except `unknown.example` and `silent.example`.
#[derive(Clone)]
pub(crate) struct Script {
    handler: Arc<Handler>,
    seen: Arc<Mutex<Vec<Seen>>>,
    delay: Duration,
    files: BTreeMap<PathBuf, String>,
}

impl Script {
    pub(crate) fn new(handler: impl Fn(&Seen) -> Response<String> + Send + Sync + 'static) -> Script {
        Script { handler: Arc::new(handler), seen: Arc::default(), delay: Duration::ZERO, files: BTreeMap::new() }
    }

    /// Answers logins by itself; the script gets the rest.
    pub(crate) fn arm(handler: impl Fn(&Seen) -> Response<String> + Send + Sync + 'static) -> Script {
        Script::new(move |seen| match seen.path.ends_with("/oauth2/v2.0/token") {
            true => answer(200, r#"{"expires_in":3599,"access_token":"T"}"#),
            false => handler(seen),
        })
    }

    pub(crate) fn slow(mut self, delay: Duration) -> Script {
        self.delay = delay;
        self
    }

    pub(crate) fn file(mut self, path: &str, text: &str) -> Script {
        self.files.insert(path.into(), text.into());
        self
    }

    /// The requests so far, without logins.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    /// The requests so far as `METHOD path`, without logins.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().filter(|seen| !seen.path.ends_with("/oauth2/v2.0/token")).map(Seen::line).collect()
    }

    pub(crate) fn world(&self) -> World {
        World {
            network: Arc::new(self.clone()),
            clock: Arc::new(TestClock(Instant::now())),
            random: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(7))),
            roots: Roots::Public,
            proxy: Proxy::default(),
            keyring: Arc::new(crate::seam::NoKeyring),
            files: Arc::new(TestFiles(self.files.clone())),
        }
    }

    pub(crate) fn client(&self) -> ArmClient {
        self.client_for(Some("sub".into()))
    }

    pub(crate) fn client_without_subscription(&self) -> ArmClient {
        self.client_for(None)
    }

    fn client_for(&self, subscription: Option<String>) -> ArmClient {
        let world = self.world();
        let endpoints = Endpoints {
            arm: Uri::from_static("http://arm.example"),
            authority: Uri::from_static("http://login.example"),
        };
        let credentials =
            Credentials::ServicePrincipal { tenant: "t".into(), client_id: "c".into(), secret: Secret::new("s") };
        ArmClient::new(&world, HttpClient::plain(&world), endpoints, credentials, subscription)
    }

    async fn respond(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let seen = Seen {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            text: String::from_utf8_lossy(&body).into_owned(),
        };
        lock(&self.seen).push(seen.clone());
        let response = (self.handler)(&seen);
        pause(self.delay).await;
        Ok(response.map(|text| Full::new(Bytes::from(text))))
    }
}

#[async_trait]
impl Network for Script {
    async fn connect(&self, host: &str, _port: u16) -> io::Result<Stream> {
        match host {
            "unknown.example" => return Err(io::Error::new(io::ErrorKind::NotFound, "name or service not known")),
            "silent.example" => return std::future::pending().await,
            _ => {}
        }
        let (client, server) = tokio::io::duplex(64 * 1024);
        let script = self.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| script.clone().respond(request));
            let mut server_builder = http1::Builder::new();
            server_builder.timer(TokioTimer::new()).auto_date_header(false);
            // A client that hangs up is not the server's concern.
            let _ = server_builder.serve_connection(TokioIo::new(server), service).await;
        });
        Ok(Box::new(client))
    }
}

struct TestClock(Instant);

impl Clock for TestClock {
    fn utc(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000) + self.0.elapsed()
    }
}

struct TestFiles(BTreeMap<PathBuf, String>);

impl Files for TestFiles {
    fn read_to_string(&self, path: &Path) -> io::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.read_to_string(path)?)))
    }
}
