//! What a release of k0s says about itself: the SHA-256 of its files, asked for once in a run.
//!
//! The list is fetched by this program, over TLS, and compared on the machine with what the machine has downloaded: one
//! who can change what a machine downloads has to be between us and the release as well.

use std::time::Duration;

use bytes::Bytes;
use engine::{Failure, pause};
use http::{Request, Uri, header::LOCATION};

use crate::{
    config::Config,
    deployment::Deployment,
    http::{HttpClient, HttpError},
    k0s,
};

/// The list of a release's digests, beside its files (k0s source, `release.yml`: `sha256sum -b`).
const LIST: &str = "sha256sums.txt";
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the list is asked for before somebody is told, and what is between two times.
const TRIES: u32 = 4;
const BETWEEN_TRIES: Duration = Duration::from_secs(5);
/// GitHub sends whoever downloads to another host, once.
const REDIRECTS: u32 = 5;

/// The SHA-256 of the k0s binary that machines of this architecture download: as configured, else as its release says.
pub(crate) async fn digest(
    deployment: &Deployment,
    architecture: &str,
    within: Duration,
    evidence: &(dyn Fn(&str) + Sync),
) -> Result<String, Failure> {
    let k0s = &deployment.config.software.k0s;
    if let Some(digest) = k0s.sha256.of(architecture) {
        return Ok(digest.to_owned());
    }
    let advice = format!("Set software.k0s.sha256.{architecture} in the configuration.");
    if k0s.download_url.is_some() {
        let message = format!("nobody says what SHA-256 the k0s of software.k0s.download_url has for {architecture}");
        return Err(Failure::refused(message).advise(advice));
    }
    let list = list_address(&k0s.version);
    let file = k0s::release_file(&k0s.version, architecture);
    // Whoever comes second waits for the answer to the first.
    let mut digests = deployment.digests.lock().await;
    if let Some(digest) = digests.get(&file) {
        return Ok(digest.clone());
    }
    let client = HttpClient::new(&deployment.world);
    let asked = async {
        let mut tries = 1;
        loop {
            match fetch(&client, &list).await {
                Err(Trouble { may_pass: true, text, .. }) if tries < TRIES => {
                    evidence(&text);
                    tries += 1;
                    pause(BETWEEN_TRIES).await;
                }
                answer => return answer,
            }
        }
    };
    let late = Trouble { advice: None, text: format!("no answer within {} s", within.as_secs()), may_pass: true };
    let text = tokio::time::timeout(within, asked).await.unwrap_or(Err(late)).map_err(|trouble| {
        let first = trouble.advice.map(|advice| advice + " ").unwrap_or_default();
        Failure::new(format!("the SHA-256 of k0s {} is not known: {list}: {}", k0s.version, trouble.text))
            .advise(format!("{first}{advice}"))
    })?;
    for line in text.lines() {
        if let Some((digest, name)) = line.split_once(' ')
            && is_digest(digest)
        {
            digests.insert(name.trim_start_matches([' ', '*']).to_owned(), digest.to_ascii_lowercase());
        }
    }
    digests
        .get(&file)
        .cloned()
        .ok_or_else(|| Failure::refused(format!("{list} does not say what SHA-256 {file} has")).advise(advice))
}

/// Who says what the binary has to be.
pub(crate) fn witness(config: &Config, architecture: &str) -> String {
    match config.software.k0s.sha256.of(architecture) {
        Some(_) => format!("software.k0s.sha256.{architecture}"),
        None => list_address(&config.software.k0s.version),
    }
}

/// Whether a text is a SHA-256 in hexadecimal.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|digit| digit.is_ascii_hexdigit())
}

fn list_address(version: &str) -> String {
    format!("{}{LIST}", k0s::release_address(version))
}

/// Why there is no list, and whether there may be one in a moment.
struct Trouble {
    text: String,
    may_pass: bool,
    advice: Option<String>,
}

async fn fetch(client: &HttpClient, address: &str) -> Result<String, Trouble> {
    let no = |text: String| Trouble { text, may_pass: false, advice: None };
    let mut address: Uri = address.parse().map_err(|error| no(format!("{error}")))?;
    for _ in 0..REDIRECTS {
        let request = Request::get(&address).header("user-agent", "k0rdentctl").body(Bytes::new());
        let request = request.map_err(|error| no(error.to_string()))?;
        let answer = client.send(request, PATIENCE).await;
        let answer = answer.map_err(|error: HttpError| Trouble {
            text: error.to_string(),
            may_pass: error.may_pass(),
            advice: error.advice(),
        })?;
        let status = answer.status();
        if status.is_redirection() {
            let next = answer.headers().get(LOCATION).and_then(|next| next.to_str().ok()?.parse::<Uri>().ok());
            // The client refuses everything that is not https.
            address = next.filter(|next| next.host().is_some()).ok_or_else(|| no(format!("{status} leads nowhere")))?;
        } else if status.is_success() {
            return String::from_utf8(answer.body().to_vec()).map_err(|_| no("it is not text".to_owned()));
        } else {
            let may_pass = status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS;
            let text = if status == http::StatusCode::NOT_FOUND {
                "there is no such release".to_owned()
            } else {
                status.to_string()
            };
            return Err(Trouble { text, may_pass, advice: None });
        }
    }
    Err(no("it leads from one place to the next without end".to_owned()))
}
