//! A forward proxy at the edge of a network, as Squid is one: it connects with port 443 of others (CONNECT) and with nothing
//! else (Squid documentation: `http_access deny CONNECT !SSL_ports` in its usual configuration).
//!
//! The operator's programs speak with it over the wire. What machines download comes to them as a whole, and so what is asked
//! of their proxy is only whether they may have it; nor do their pods ask, of which none downloads anything here (guess: that
//! is how it is with k0rdent once its charts are there, which is too good to be true).

use std::net::IpAddr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::{Response, upgrade};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

use crate::{
    Twin, World,
    http::{self as server, Body, Received},
};

/// A proxy, and what there is beside it.
#[derive(Debug, Clone)]
pub struct ForwardProxy {
    /// Its name in the network.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user and the password that it wants.
    pub login: Option<(String, String)>,
    /// Whether the way to Azure and the internet is closed beside it.
    pub is_only_way: bool,
    /// From where its connections come.
    pub address: IpAddr,
}

/// Why a machine downloads nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Closed {
    /// There is no way but through a proxy.
    NoWay,
    /// There is no such proxy.
    NoSuchProxy(String),
    /// The proxy wants another login.
    Login,
}

/// Whether a machine may download from `host`, directly or through the proxy at an address.
pub(crate) fn judge_machine(world: &mut World, node: &str, host: &str, address: Option<&str>) -> Result<(), Closed> {
    let proxy = world.machines_proxy.clone();
    let Some(address) = address else {
        return if proxy.is_some_and(|proxy| proxy.is_only_way) { Err(Closed::NoWay) } else { Ok(()) };
    };
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest).trim_end_matches('/');
    let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
    let Some(proxy) = proxy.filter(|proxy| format!("{}:{}", proxy.host, proxy.port) == place) else {
        return Err(Closed::NoSuchProxy(place.split(':').next().unwrap_or_default().to_owned()));
    };
    let decoded = login.map(|login| percent_encoding::percent_decode_str(login).decode_utf8_lossy().into_owned());
    let wanted = proxy.login.map(|(user, password)| format!("{user}:{password}"));
    let verdict = if wanted.is_none() || wanted == decoded { Ok(()) } else { Err(Closed::Login) };
    let status = if verdict.is_ok() { 200 } else { 407 };
    world.ledger.request(world.now, "proxy", "CONNECT", host, status, Some(node.to_owned()));
    verdict
}

/// The port of HTTPS.
const HTTPS: u16 = 443;

impl ForwardProxy {
    /// Its answer to a request.
    fn judge(&self, request: &http::request::Parts) -> StatusCode {
        let said = request.headers.get(header::PROXY_AUTHORIZATION).and_then(|value| value.to_str().ok());
        let wanted = self.login.as_ref().map(|(user, password)| {
            // RFC 7617.
            format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
        });
        if wanted.is_some() && wanted.as_deref() != said {
            return StatusCode::PROXY_AUTHENTICATION_REQUIRED;
        }
        match request.uri.port_u16() {
            Some(HTTPS) if request.method == Method::CONNECT => StatusCode::OK,
            _ => StatusCode::FORBIDDEN,
        }
    }
}

/// Serves one connection to the operator's proxy.
pub(crate) async fn serve<Stream>(twin: Twin, proxy: ForwardProxy, stream: Stream)
where
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    server::serve(stream, move |request| answer(twin.clone(), proxy.clone(), request)).await;
}

async fn answer(twin: Twin, proxy: ForwardProxy, request: Received) -> Response<Body> {
    let target = request.head.uri.clone();
    let (host, port) = (target.host().unwrap_or_default().to_owned(), target.port_u16().unwrap_or_default());
    let mut status = proxy.judge(&request.head);
    if status.is_success() {
        match twin.connect_from(proxy.address, &host, port).await {
            Ok(mut beyond) => {
                // The line is handed over once the answer is out.
                let line = upgrade::on(Request::from_parts(request.head.clone(), ()));
                tokio::spawn(async move {
                    let Ok(line) = line.await else { return };
                    // Whoever hangs up ends it.
                    let _ended = copy_bidirectional(&mut TokioIo::new(line), &mut beyond).await;
                });
            }
            // Squid's answer to names that it cannot resolve and to hosts that do not answer (Squid source, `ERR_DNS_FAIL`
            // and `ERR_CONNECT_FAIL`).
            Err(_) => status = StatusCode::SERVICE_UNAVAILABLE,
        }
    }
    twin.with(|world| note(world, &request.head, status));
    let mut response = Response::new(server::full(""));
    *response.status_mut() = status;
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        response.headers_mut().insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"proxy\""));
    }
    response
}

fn note(world: &mut World, request: &http::request::Parts, status: StatusCode) {
    let (now, target) = (world.now, request.uri.to_string());
    world.ledger.request(now, "proxy", request.method.as_str(), target, u32::from(status.as_u16()), None);
}
