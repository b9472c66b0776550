//! The process of a worker: it joins with its token, and stays in touch with the controller.

use std::{io, net::IpAddr, sync::Arc};

use fs_err as fs;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use tokio::{io::BufReader, net::TcpStream, sync::watch};
use tokio_rustls::TlsConnector;
use twin::machine::host::{self, Host, Invitation, Said};

use super::{
    DATA, answer_questions, flag, have_service, keep,
    link::{self, Hello, News},
    model, this_host,
};

/// What a worker that has joined keeps.
#[derive(Serialize, Deserialize)]
struct Membership {
    invitation: Invitation,
    credential: String,
}

fn membership_file() -> String {
    format!("{DATA}/kubelet.conf")
}

/// Runs until it fails.
pub(super) async fn run(arguments: &[String]) -> io::Result<Said> {
    let this = this_host(None);
    let twin = model(&this)?;
    if let Err(said) = have_service(&twin, &this, "worker", arguments) {
        return Ok(said);
    }
    let ready = watch::Sender::new(false);
    let (name, seen) = (this.name.clone(), ready.subscribe());
    tokio::select! {
        biased;
        ended = answer_questions(move |arguments| twin.with(|world| {
            host::runs_elsewhere(world, &name, *seen.borrow());
            host::run(world, &name, true, arguments)
        })) => match ended? {},
        error = stay_in_touch(&this, arguments, &ready) => Err(error),
    }
}

async fn stay_in_touch(this: &Host, arguments: &[String], ready: &watch::Sender<bool>) -> io::Error {
    let mut complaint = String::new();
    loop {
        let (membership, token) = match credentials(arguments) {
            Ok(found) => found,
            Err(error) => return error,
        };
        let hello = Hello {
            host: this.clone(),
            arguments: arguments.to_vec(),
            token,
            credential: Some(membership.credential.clone()).filter(|text| !text.is_empty()),
        };
        if let Err(error) = talk(&hello, &membership.invitation, ready).await {
            let said = format!("https://{}: {error}", membership.invitation.host);
            if said != complaint {
                eprintln!("{said}");
                complaint = said;
            }
        }
        ready.send_replace(false);
        tokio::time::interval_at(tokio::time::Instant::now() + link::BEAT, link::BEAT).tick().await;
    }
}

/// What this worker has of its cluster, or the token that leads there, with its text.
fn credentials(arguments: &[String]) -> io::Result<(Membership, String)> {
    if let Ok(bytes) = fs::read(membership_file()) {
        return Ok((serde_json::from_slice(&bytes)?, String::new()));
    }
    let path = flag(arguments, "--token-file").unwrap_or_default();
    let text = fs::read_to_string(path).map_err(|error| io::Error::other(format!("failed to read token: {error}")))?;
    let invitation = host::invitation(&text).map_err(io::Error::other)?;
    Ok((Membership { invitation, credential: String::new() }, text))
}

/// One connection, until it breaks.
async fn talk(hello: &Hello, invitation: &Invitation, ready: &watch::Sender<bool>) -> io::Result<()> {
    let connecting = TcpStream::connect((invitation.host.as_str(), link::PORT));
    let stream = tokio::time::timeout(link::PATIENCE, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let _unimportant = stream.set_nodelay(true);
    let stream = connector(&invitation.authority)?.connect(server_name(&invitation.host)?, stream).await?;
    let mut stream = BufReader::new(stream);
    link::say(&mut stream, hello).await?;
    let mut beat = tokio::time::interval(link::BEAT);
    let mut known = hello.credential.clone();
    loop {
        let News { log, node_ready, credential } = link::hear(&mut stream).await?;
        log.iter().for_each(|line| eprintln!("{line}"));
        if credential.is_some() && credential != known {
            known = credential;
            let membership =
                Membership { invitation: invitation.clone(), credential: known.clone().unwrap_or_default() };
            keep(&membership_file(), &serde_json::to_vec(&membership)?, 0o600)?;
        }
        ready.send_replace(node_ready);
        beat.tick().await;
        link::say(&mut stream, &()).await?;
    }
}

/// Trusts the cluster's authority and nobody else.
fn connector(authority: &str) -> io::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.as_bytes()).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(ServerName::from(address)),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other),
    }
}
