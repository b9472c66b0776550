//! The proxy between this program and public hosts: what goes through it, and how (CONNECT, RFC 9110, section 9.3.6).
//!
//! Only the HTTPS client asks for it. SSH, and the API of the cluster, which is reached through SSH, never do.

use std::{fmt, net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::{client::conn::http1, upgrade};
use hyper_util::{client::proxy::matcher::Matcher, rt::TokioIo};

use crate::{
    http::{METADATA_HOST, causes},
    seam::Stream,
    secret::Secret,
};

/// Which connections go through which proxy; through none by default.
#[derive(Clone, Default)]
pub struct Proxy(Option<Arc<Rules>>);

struct Rules {
    matcher: Matcher,
    variable: String,
}

/// The proxy on the way to one host.
pub(crate) struct Way {
    /// Where the proxy is.
    pub(crate) proxy: Uri,
    authorization: Option<HeaderValue>,
    variable: String,
}

impl Proxy {
    /// The proxy at `address`, for every host but those of `exceptions`, as `NO_PROXY` names them. Errors say what is wrong
    /// with the value of `variable`, and nothing of the value itself, which may hold a password.
    pub fn new(variable: &str, address: &Secret, exceptions: &str) -> Result<Proxy, String> {
        check(address.expose()).map_err(|why| format!("{variable}: {why}"))?;
        let matcher = Matcher::builder().all(address.expose()).no(exceptions).build();
        Ok(Proxy(Some(Arc::new(Rules { matcher, variable: variable.to_owned() }))))
    }

    /// The way to a host, if it leads through the proxy. This computer and the metadata service of the machine that this
    /// may be are never behind one (Azure documentation: requests to it must not go through a proxy).
    pub(crate) fn way_to(&self, uri: &Uri) -> Option<Way> {
        let rules = self.0.as_deref()?;
        let host = uri.host()?.trim_matches(['[', ']']);
        let is_here = host.eq_ignore_ascii_case("localhost")
            || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            || host == METADATA_HOST;
        let found = rules.matcher.intercept(uri).filter(|_| !is_here)?;
        Some(Way {
            proxy: found.uri().clone(),
            authorization: found.basic_auth().cloned(),
            variable: rules.variable.clone(),
        })
    }

    /// The proxy through which a host is asked, for people: where it is, and which variable says so.
    pub fn used_for(&self, uri: &Uri) -> Option<String> {
        self.way_to(uri).map(|way| format!("{} ({})", way.place(), way.variable))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Proxy")
    }
}

/// What the library would pass over in silence.
pub(crate) fn check(address: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("this is not the address of a proxy, such as http://proxy.example:3128: {why}"));
    let encode = "special characters in user and password are written as %XX";
    // Where a fragment began, the library would stop to read.
    if address.contains('#') {
        return bad(&format!("there is a '#' in it; {encode}"));
    }
    let Ok(uri) = address.parse::<Uri>() else { return bad(&format!("it cannot be read; {encode}")) };
    match uri.scheme_str() {
        None | Some("http" | "https") => {}
        Some(scheme) if scheme.starts_with("socks") => {
            return Err(format!("SOCKS ({scheme}://) is not supported; an http:// or https:// proxy is"));
        }
        Some(scheme) => return bad(&format!("{scheme}:// is neither http:// nor https://")),
    }
    match uri.host() {
        None | Some("") => bad("it names no host"),
        Some(_) if uri.path_and_query().is_some_and(|path| path != "/") => {
            bad(&format!("there is more after the host; {encode}"))
        }
        Some(_) => Ok(()),
    }
}

impl Way {
    /// Host and port.
    fn place(&self) -> String {
        format!("{}:{}", self.proxy.host().unwrap_or("?"), crate::http::port(&self.proxy))
    }

    /// What went wrong on this way to `host`.
    pub(crate) fn failure(&self, host: &str, cause: ProxyCause) -> ProxyFailure {
        ProxyFailure {
            host: host.to_owned(),
            proxy: self.place(),
            variable: self.variable.clone(),
            identified: self.authorization.is_some(),
            cause,
        }
    }

    /// Has the proxy connect us with `host`, port and all.
    pub(crate) async fn through(&self, stream: Stream, host: &str) -> Result<Stream, ProxyCause> {
        let broke = |error: hyper::Error| ProxyCause::Broke(causes(&error));
        let mut request = Request::connect(host).header(header::HOST, host);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::PROXY_AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| ProxyCause::Broke(error.to_string()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
        let asking = async move {
            let answer = sender.send_request(request).await.map_err(broke)?;
            if !answer.status().is_success() {
                let schemes = answer.headers().get_all(header::PROXY_AUTHENTICATE).iter();
                let schemes = schemes.filter_map(|scheme| scheme.to_str().ok()?.split(' ').next());
                let wanted: Vec<String> = schemes.map(str::to_owned).collect();
                return Err(ProxyCause::Refused { status: answer.status(), wanted });
            }
            upgrade::on(answer).await.map_err(broke)
        };
        // The connection has to be driven until it is handed over; whatever ends it, the answer says more.
        let (mut asking, mut connection) = (std::pin::pin!(asking), std::pin::pin!(connection.with_upgrades()));
        let line = tokio::select! {
            biased;
            line = &mut asking => line,
            _ended = &mut connection => asking.await,
        }?;
        Ok(Box::new(TokioIo::new(line)))
    }
}

/// Why there is no connection through the proxy.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot connect to {host} through the proxy {proxy} ({variable}): {cause}")]
pub struct ProxyFailure {
    host: String,
    proxy: String,
    variable: String,
    /// Whether a user and a password were sent.
    identified: bool,
    cause: ProxyCause,
}

/// What a proxy did.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ProxyCause {
    /// No connection to it.
    #[error("the proxy cannot be reached: {0}")]
    Unreachable(String),
    /// A connection, but no trust.
    #[error("no secure connection to the proxy: {0}")]
    Secure(String),
    /// It says no.
    #[error("{status}")]
    Refused {
        /// Its answer.
        status: StatusCode,
        /// The kinds of authentication that it knows.
        wanted: Vec<String>,
    },
    /// It broke off.
    #[error("the proxy broke off: {0}")]
    Broke(String),
    /// It says nothing.
    #[error("the proxy did not answer within {0} s")]
    Silent(u64),
}

impl ProxyFailure {
    /// Whether the same may work later: a proxy answers with 5xx when it cannot reach the host itself.
    pub(crate) fn may_pass(&self) -> bool {
        match &self.cause {
            ProxyCause::Refused { status, .. } => status.is_server_error(),
            ProxyCause::Secure(_) => false,
            ProxyCause::Unreachable(_) | ProxyCause::Broke(_) | ProxyCause::Silent(_) => true,
        }
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> String {
        let Self { host, proxy, variable, identified, cause } = self;
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        let around = format!("if {name} can be reached without it, name {name} in NO_PROXY");
        match cause {
            ProxyCause::Refused { status: StatusCode::PROXY_AUTHENTICATION_REQUIRED, wanted } => {
                if !wanted.is_empty() && !wanted.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
                    let wanted = wanted.join(", ");
                    return format!(
                        "The proxy wants {wanted}, and only Basic is spoken here: use one that takes a user and a password (often \
                         a small one on this computer that speaks {wanted} for others), or, {around}."
                    );
                }
                match identified {
                    true => format!(
                        "Check the user and the password in {variable}; special characters in them are written as %XX."
                    ),
                    false => format!("Put a user and a password into {variable}: http://USER:PASSWORD@{proxy}"),
                }
            }
            ProxyCause::Refused { status, .. } if status.is_client_error() => {
                format!("Have {host} allowed on the proxy; or, {around}.")
            }
            ProxyCause::Refused { .. } => format!("The proxy does not get there itself: repeat later; or, {around}."),
            ProxyCause::Secure(_) => format!(
                "If the proxy speaks no TLS, say http:// in {variable}; if its certificate is of a private authority, name \
                 that in SSL_CERT_FILE."
            ),
            ProxyCause::Unreachable(_) | ProxyCause::Broke(_) | ProxyCause::Silent(_) => {
                format!("Check {variable}, and that the proxy runs; or, {around}.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex, time::Duration};

    use async_trait::async_trait;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{
        azure::scripted::{Script, answer},
        http::{HttpClient, HttpError},
        seam::{Network, World, lock},
    };

    fn proxy(address: &str, exceptions: &str) -> Proxy {
        Proxy::new("HTTPS_PROXY", &Secret::new(address), exceptions).unwrap()
    }

    fn way(proxy: &Proxy, address: &str) -> Option<String> {
        proxy.used_for(&address.parse().unwrap())
    }

    #[test]
    fn what_goes_through_the_proxy() {
        let through = Some("proxy.example:3128 (HTTPS_PROXY)".to_owned());
        let plain = proxy("http://proxy.example:3128", "");
        assert_eq!(way(&plain, "https://management.azure.com/subscriptions"), through);
        assert_eq!(way(&Proxy::default(), "https://management.azure.com"), None);
        for near in
            ["http://169.254.169.254/metadata", "https://localhost:1234", "https://127.0.0.53", "https://[::1]:8"]
        {
            assert_eq!(way(&plain, near), None, "{near}");
        }
        // A suffix with and without a dot, an address, a range, spaces.
        let some = proxy("http://proxy.example:3128/", "azure.com, .example.net,10.0.0.0/8,2001:db8::/32, 192.0.2.7");
        for near in [
            "https://azure.com",
            "https://MANAGEMENT.azure.com",
            "https://a.example.net",
            "https://example.net",
            "https://10.9.8.7",
            "https://[2001:db8::1]",
            "https://192.0.2.7:8443",
        ] {
            assert_eq!(way(&some, near), None, "{near}");
        }
        for far in [
            "https://notazure.com",
            "https://login.microsoftonline.com",
            "https://192.0.2.8",
            "https://azure.com.example",
        ] {
            assert_eq!(way(&some, far), through, "{far}");
        }
        assert_eq!(way(&proxy("http://proxy.example:3128", "*"), "https://management.azure.com"), None);
        // Without a scheme it is http, and each scheme has its usual port.
        for (address, place) in [
            ("proxy.example:8080", "proxy.example:8080"),
            ("proxy.example", "proxy.example:80"),
            ("https://ada:secret@proxy.example", "proxy.example:443"),
            ("http://[2001:db8::1]:3128", "[2001:db8::1]:3128"),
        ] {
            assert_eq!(way(&proxy(address, ""), "https://a.example"), Some(format!("{place} (HTTPS_PROXY)")));
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_a_password() {
        let refused = |address: &str| Proxy::new("ALL_PROXY", &Secret::new(address), "").err().unwrap();
        assert_eq!(
            refused("socks5h://ada:hunter2@proxy.example:1080"),
            "ALL_PROXY: SOCKS (socks5h://) is not supported; an http:// or https:// proxy is"
        );
        for (address, why) in [
            ("ftp://proxy.example", "ftp:// is neither http:// nor https://"),
            ("http://", "it cannot be read"),
            ("http://ada:hunter2@", "it cannot be read"),
            ("http://ada:hunter2@a b:80", "it cannot be read"),
            // A fragment and a path begin in the middle of a password.
            ("http://ada:12#hunter2@proxy.example:3128", "there is a '#' in it; special characters"),
            ("http://ada:12/hunter2@proxy.example:3128", "there is more after the host; special characters"),
            ("http://ada:hunter2@proxy.example:3128?x", "there is more after the host"),
        ] {
            let error = refused(address);
            assert!(
                error.starts_with("ALL_PROXY: this is not the address of a proxy, such as http://proxy.example:3128: ")
            );
            assert!(error.contains(why) && !error.contains("hunter2"), "{address}: {error}");
        }
        assert_eq!(format!("{:?}", proxy("http://ada:hunter2@proxy.example", "")), "Proxy");
    }

    /// A proxy that answers each CONNECT with the same text, and the host behind it.
    struct Peer {
        answer: &'static str,
        seen: Mutex<Vec<String>>,
    }

    impl Peer {
        fn new(answer: &'static str) -> Arc<Self> {
            Arc::new(Self { answer, seen: Mutex::default() })
        }

        fn seen(&self) -> Vec<String> {
            lock(&self.seen).clone()
        }

        fn client(self: &Arc<Self>, proxy: Proxy) -> HttpClient {
            HttpClient::plain(&World {
                network: Arc::new(Door(self.clone())),
                proxy,
                ..Script::new(|_| answer(500, "")).world()
            })
        }
    }

    struct Door(Arc<Peer>);

    #[async_trait]
    impl Network for Door {
        async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
            if host == "closed.example" {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            }
            let (client, mut server) = tokio::io::duplex(4096);
            let peer = self.0.clone();
            let note = move |text: String| lock(&peer.seen).push(text);
            note(format!("{host}:{port}"));
            let says = self.0.answer;
            tokio::spawn(async move {
                for reply in [says, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"] {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        let Ok(byte) = server.read_u8().await else { return };
                        head.push(byte.into());
                    }
                    note(head);
                    let _gone = server.write_all(reply.as_bytes()).await;
                }
            });
            Ok(Box::new(client))
        }
    }

    async fn get(client: &HttpClient) -> Result<Bytes, HttpError> {
        let request = Request::get("http://arm.example:443/x").body(Bytes::new()).unwrap();
        client.send(request, Duration::from_secs(60)).await.map(http::Response::into_body)
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_goes_through_a_tunnel_with_the_password() {
        // What HTTP/1.0 proxies say, and one that says more than it should.
        for says in [
            "HTTP/1.0 200 Connection established\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nvia: 1.1 a\r\n\r\n",
        ] {
            let peer = Peer::new(says);
            let client = peer.client(proxy("http://ada:se%3Acret%40@proxy.example:3128", ""));
            assert_eq!(get(&client).await.unwrap(), "ok");
            let seen = peer.seen();
            assert_eq!(seen[0], "proxy.example:3128");
            // RFC 7617: ada:se:cret@
            let connect = "CONNECT arm.example:443 HTTP/1.1\r\nhost: arm.example:443\r\nproxy-authorization: Basic YWRhOnNlOmNyZXRA\r\n\r\n";
            assert_eq!(seen[1], connect);
            assert!(seen[2].starts_with("GET /x HTTP/1.1\r\n") && !seen[2].contains("proxy-"), "{seen:?}");
        }
        let peer = Peer::new("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        assert_eq!(get(&peer.client(proxy("http://proxy.example:3128", "arm.example"))).await.unwrap(), "ok");
        assert_eq!(peer.seen()[0], "arm.example:443");
    }

    async fn failure(address: &str, says: &'static str) -> String {
        let error = get(&Peer::new(says).client(proxy(address, ""))).await.unwrap_err();
        let advice = error.advice().unwrap();
        assert!(error.never_sent());
        let text = format!("{error}\n{advice}\nmay pass: {}", error.may_pass());
        assert!(!text.contains("hunter2"), "{text}");
        text
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_does_not_connect_is_named_with_what_helps() {
        let (anybody, ada) = ("http://proxy.example:3128", "http://ada:hunter2@proxy.example:3128");
        let basic = "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Negotiate\r\nproxy-authenticate: Basic realm=\"x\"\r\ncontent-length: 3\r\n\r\nno!";
        let ntlm = "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: NTLM\r\nproxy-authenticate: Negotiate\r\n\r\n";
        let mut said = Vec::new();
        for (address, says) in [
            (anybody, basic),
            (ada, basic),
            (ada, ntlm),
            (ada, "HTTP/1.1 403 Forbidden\r\n\r\n"),
            (ada, "HTTP/1.1 503 Service Unavailable\r\n\r\n"),
            ("http://closed.example:3128", ""),
            ("https://proxy.example", "this is no TLS at all\r\n\r\n"),
            (ada, "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            (ada, ""),
        ] {
            said.push(failure(address, says).await);
        }
        insta::assert_snapshot!(said.join("\n\n"), @"
        cannot connect to arm.example:443 through the proxy proxy.example:3128 (HTTPS_PROXY): 407 Proxy Authentication Required
        Put a user and a password into HTTPS_PROXY: http://USER:PASSWORD@proxy.example:3128
        may pass: false

        cannot connect to arm.example:443 through the proxy proxy.example:3128 (HTTPS_PROXY): 407 Proxy Authentication Required
        Check the user and the password in HTTPS_PROXY; special characters in them are written as %XX.
        may pass: false

        cannot connect to arm.example:443 through the proxy proxy.example:3128 (HTTPS_PROXY): 407 Proxy Authentication Required
        The proxy wants NTLM, Negotiate, and only Basic is spoken here: use one that takes a user and a password (often a small one on this computer that speaks NTLM, Negotiate for others), or, if arm.example can be reached without it, name arm.example in NO_PROXY.
        may pass: false

        cannot connect to arm.example:443 through the proxy proxy.example:3128 (HTTPS_PROXY): 403 Forbidden
        Have arm.example:443 allowed on the proxy; or, if arm.example can be reached without it, name arm.example in NO_PROXY.
        may pass: false

        cannot connect to arm.example:443 through the proxy proxy.example:3128 (HTTPS_PROXY): 503 Service Unavailable
        The proxy does not get there itself: repeat later; or, if arm.example can be reached without it, name arm.example in NO_PROXY.
        may pass: true

        cannot connect to arm.example:443 through the proxy closed.example:3128 (HTTPS_PROXY): the proxy cannot be reached: connection refused
        Check HTTPS_PROXY, and that the proxy runs; or, if arm.example can be reached without it, name arm.example in NO_PROXY.
        may pass: true

        cannot connect to arm.example:443 through the proxy proxy.example:443 (HTTPS_PROXY): no secure connection to the proxy: no TLS within 10 s
        If the proxy speaks no TLS, say http:// in HTTPS_PROXY; if its certificate is of a private authority, name that in SSL_CERT_FILE.
        may pass: false

        cannot connect to arm.example:443 through the proxy proxy.example:3128 (HTTPS_PROXY): the proxy broke off: invalid HTTP version parsed
        Check HTTPS_PROXY, and that the proxy runs; or, if arm.example can be reached without it, name arm.example in NO_PROXY.
        may pass: true

        cannot connect to arm.example:443 through the proxy proxy.example:3128 (HTTPS_PROXY): the proxy did not answer within 10 s
        Check HTTPS_PROXY, and that the proxy runs; or, if arm.example can be reached without it, name arm.example in NO_PROXY.
        may pass: true
        ");
    }
}
