//! The way to Azure through a proxy, and private certificate authorities: the program as it is against Azure, with a served
//! twin in Azure's place behind a proxy of ours.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use super::{
    environment::{CONFIG, TestEnvironment},
    twin::Served,
};

/// Base64 of `ada:hunter2`.
const LOGIN: &str = "Basic YWRhOmh1bnRlcjI=";

/// A proxy that leads Azure's hosts to a served twin, and wants a password.
struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Connects `(host, port of 127.0.0.1)`.
    fn start(hosts: Vec<(&'static str, u16)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        in_background(move || {
            for client in listener.incoming().flatten() {
                let (hosts, log) = (hosts.clone(), log.clone());
                in_background(move || drop(serve(client, &hosts, &log)));
            }
        });
        Self { port, asked }
    }

    fn address(&self, login: &str) -> String {
        format!("http://{login}127.0.0.1:{}", self.port)
    }

    /// The hosts that were asked for, each once.
    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().expect("the log").clone();
        asked.sort();
        asked.dedup();
        asked
    }
}

/// These tests are about a process that talks to another one, which ends with the test.
#[expect(clippy::disallowed_methods, reason = "the program under test blocks this thread")]
fn in_background(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work);
}

fn serve(mut client: TcpStream, hosts: &[(&str, u16)], log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut first, mut is_known) = (String::new(), false);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        is_known |= line.trim_end().eq_ignore_ascii_case(&format!("proxy-authorization: {LOGIN}"));
        if line.trim_end().is_empty() {
            break;
        }
    }
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    log.lock().expect("the log").push(target.clone());
    let port = hosts.iter().find(|(host, _)| target == format!("{host}:443")).map(|(_, port)| *port);
    let answer = match port {
        _ if !is_known => "407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"proxy\"",
        None => "403 Forbidden",
        Some(_) => "200 Connection established",
    };
    client.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes())?;
    let Some(port) = port.filter(|_| is_known) else { return Ok(()) };
    let beyond = TcpStream::connect(("127.0.0.1", port))?;
    let (mut from, mut to) = (beyond.try_clone()?, client.try_clone()?);
    in_background(move || drop(io::copy(&mut from, &mut to).and_then(|_| to.shutdown(std::net::Shutdown::Both))));
    io::copy(&mut reader, &mut &beyond)?;
    beyond.shutdown(std::net::Shutdown::Both)
}

/// An environment with credentials, a twin that is served beside it, and a proxy that leads to it.
fn environment() -> (TestEnvironment, Served, Proxy) {
    let environment = TestEnvironment::with_config(CONFIG)
        .variable("AZURE_TENANT_ID", "00000000-0000-0000-0000-00000000000a")
        .variable("AZURE_CLIENT_ID", "00000000-0000-0000-0000-0000000000c1")
        .variable("AZURE_CLIENT_SECRET", "s3cret");
    let (twin, ready) = Served::start(&environment);
    let ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
    let port = |name: &str| {
        let address = ready[name].as_str().unwrap_or_default();
        address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    };
    let proxy = Proxy::start(vec![
        ("management.azure.com", port("arm")),
        ("login.microsoftonline.com", port("authority")),
        ("checkip.amazonaws.com", port("internet")),
    ]);
    (environment, twin, proxy)
}

#[test]
fn azure_is_asked_through_a_proxy_and_by_a_private_authority() {
    let (environment, _twin, proxy) = environment();
    let address = proxy.address("ada:hunter2@");
    let variables = [("HTTPS_PROXY", address.as_str()), ("SSL_CERT_FILE", "twin/ca.pem")];
    let ran = environment.run_with(&["check"], &variables);
    assert_eq!(ran.code, 0, "{ran}");
    let said = format!("Through the proxy 127.0.0.1:{} (HTTPS_PROXY)\nReady to deploy: 2 machines\n", proxy.port);
    assert_eq!(ran.stdout, said, "{ran}");
    assert_eq!(proxy.asked(), ["login.microsoftonline.com:443", "management.azure.com:443"]);
    let ran = environment.run_with(&["check", "--output", "json"], &variables);
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(found["proxy"], format!("127.0.0.1:{} (HTTPS_PROXY)", proxy.port));

    // Our own address is the one that the proxy has there. There are no machines of this size.
    environment.write("k0rdent.yaml", "vm_sizing: {worker: {size: Standard_D2_v99}}\n");
    let ran = environment.run_with(&["deploy", "-y"], &variables);
    assert_eq!(ran.code, 3, "{ran}");
    let warning = "warning: 127.0.0.1/32 is the address of whoever asks through the proxy 127.0.0.1:";
    assert!(ran.stderr.starts_with(warning), "{ran}");
    assert!(!ran.stderr.contains("hunter2"), "{ran}");
}

#[test]
fn a_proxy_or_an_authority_that_does_not_do_is_named() {
    let (environment, _twin, proxy) = environment();
    let (anybody, ada) = (proxy.address(""), proxy.address("ada:hunter2@"));
    let said = |variables: &[(&str, &str)]| {
        environment.run_with(&["check"], variables).to_string().replace(&proxy.port.to_string(), "PORT")
    };
    let all = [said(&[("https_proxy", &anybody), ("SSL_CERT_DIR", "twin")]), said(&[("ALL_PROXY", &ada)])];
    insta::assert_snapshot!(all.join("\n\n"), @"
    --- errors
    error: login: LoginUnreachable: login not possible: cannot connect to login.microsoftonline.com:443 through the proxy 127.0.0.1:PORT (https_proxy): 407 Proxy Authentication Required
    hint: Put a user and a password into https_proxy: http://USER:PASSWORD@127.0.0.1:PORT
    --- exit code 1

    --- errors
    error: login: LoginUnreachable: login not possible: no secure connection to login.microsoftonline.com:443: invalid peer certificate: UnknownIssuer
    hint: If a proxy or a firewall looks into TLS on the way, name its certificate authority in SSL_CERT_FILE, a file with everybody who is to be trusted (often /etc/ssl/certs/ca-certificates.crt).
    --- exit code 1
    ");
}

#[test]
fn what_the_variables_say_wrongly_is_said_at_once() {
    let environment = TestEnvironment::with_config(CONFIG).with_credentials();
    environment.write("empty.pem", "");
    environment.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let said = |name: &str, value: &str| {
        let ran = environment.run_with(&["deploy", "-y"], &[(name, value)]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran}");
        assert!(!environment.home().exists(), "{ran}");
        ran.stderr
    };
    let all = [
        ("HTTPS_PROXY", "socks5://ada:hunter2@127.0.0.1:1080"),
        ("all_proxy", "http://ada:hun#ter2@127.0.0.1:1080"),
        ("SSL_CERT_FILE", "missing.pem"),
        ("SSL_CERT_FILE", "empty.pem"),
        ("SSL_CERT_FILE", "broken.pem"),
        ("SSL_CERT_DIR", "missing"),
        ("SSL_CERT_DIR", "."),
    ];
    insta::assert_snapshot!(all.map(|(name, value)| said(name, value)).join("\n"), @"
    error: HTTPS_PROXY: SOCKS (socks5://) is not supported; an http:// or https:// proxy is
    hint: correct HTTPS_PROXY, or unset it; nothing was touched

    error: all_proxy: this is not the address of a proxy, such as http://proxy.example:3128: there is a '#' in it; special characters in user and password are written as %XX
    hint: correct all_proxy, or unset it; nothing was touched

    error: SSL_CERT_FILE: failed to read PEM from file: No such file or directory (os error 2) at 'missing.pem'
    hint: let SSL_CERT_FILE name certificates in PEM, such as /etc/ssl/certs/ca-certificates.crt, or unset it

    error: SSL_CERT_FILE: there is no certificate in empty.pem
    hint: let SSL_CERT_FILE name certificates in PEM, such as /etc/ssl/certs/ca-certificates.crt, or unset it

    error: SSL_CERT_FILE: there is no certificate of an authority in it
    hint: let SSL_CERT_FILE name certificates in PEM, such as /etc/ssl/certs/ca-certificates.crt, or unset it

    error: SSL_CERT_DIR: opening directory: No such file or directory (os error 2) at 'missing'
    hint: let SSL_CERT_DIR name certificates in PEM, such as /etc/ssl/certs/ca-certificates.crt, or unset it

    error: SSL_CERT_DIR: there is no certificate of an authority in it
    hint: let SSL_CERT_DIR name certificates in PEM, such as /etc/ssl/certs/ca-certificates.crt, or unset it
    ");
    // Who asks nobody for anything over HTTPS is not kept from it.
    for command in [&["status"][..], &["kubeconfig"], &["ssh", "k0s-worker-1", "--", "true"]] {
        let ran =
            environment.run_with(command, &[("ALL_PROXY", "socks5://127.0.0.1:1080"), ("SSL_CERT_FILE", "missing")]);
        assert!(!ran.stderr.contains("SOCKS") && !ran.stderr.contains("SSL_CERT_FILE"), "{ran}");
    }
}

#[test]
fn a_served_twin_needs_no_proxy_and_has_an_authority_of_its_own() {
    let environment = TestEnvironment::with_config(CONFIG);
    let (_twin, _) = Served::start(&environment);
    let variables = [("HTTPS_PROXY", "http://127.0.0.1:1"), ("SSL_CERT_FILE", "missing")];
    let ran = environment.run_with(&["--twin", "twin", "check"], &variables);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "Ready to deploy: 2 machines\n"), "{ran}");
}

/// Without its own surroundings, the Azure CLI would try to go without the proxy.
#[test]
fn the_azure_cli_has_the_same_variables() {
    use std::os::unix::fs::PermissionsExt as _;
    let environment = TestEnvironment::with_config(CONFIG);
    let script = "#!/bin/sh\necho \"$HTTPS_PROXY $NO_PROXY $REQUESTS_CA_BUNDLE\" > said\n\
        echo '{\"accessToken\": \"T\", \"expires_on\": 4102444800, \"subscription\": \"s\"}'\n";
    environment.write("bin/az", script);
    let program = environment.path().join("bin/az");
    fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a program");
    let path = format!("{}:/usr/bin:/bin", environment.path().join("bin").display());
    let variables = [
        ("PATH", path.as_str()),
        ("HTTPS_PROXY", "http://ada:hunter2@127.0.0.1:1"),
        ("NO_PROXY", "example.com"),
        ("REQUESTS_CA_BUNDLE", "/etc/ca.pem"),
    ];
    // The proxy is not there; only the Azure CLI is asked with success. It is not waited for.
    let mut asking = environment.command(&["check"]).envs(variables).spawn().expect("the program starts");
    let said = environment.path().join("said");
    while fs_err::read_to_string(&said).is_ok_and(|text| text.ends_with('\n')).eq(&false) {
        assert!(asking.try_wait().expect("a process").is_none(), "it ended and asked nobody");
        std::thread::yield_now();
    }
    let _gone_already = asking.kill().and_then(|()| asking.wait());
    let text = fs_err::read_to_string(&said).expect("what it was told");
    assert_eq!(text, "http://ada:hunter2@127.0.0.1:1 example.com /etc/ca.pem\n");
}
