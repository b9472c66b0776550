//! What a worker and its controller say to each other: one JSON document a line, over TLS.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};
use twin::machine::host::Host;

/// Where controllers listen for those who join; in k0s for other controllers (k0s documentation, networking).
pub(super) const PORT: u16 = 9443;
/// How long one side may be silent.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How often each side says something.
pub(super) const BEAT: Duration = Duration::from_millis(500);

/// The first that a worker says.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    /// Who it is.
    pub(super) host: Host,
    /// What its service is told.
    pub(super) arguments: Vec<String>,
    /// What it was invited with; a worker that has joined needs it no more.
    pub(super) token: String,
    /// What it was given when it joined.
    pub(super) credential: Option<String>,
}

/// What a controller says to a worker, again and again.
#[derive(Serialize, Deserialize)]
pub(super) struct News {
    /// What the kubelet would have logged.
    pub(super) log: Vec<String>,
    /// Whether the node is ready.
    pub(super) node_ready: bool,
    /// For the next time, once the worker has joined.
    pub(super) credential: Option<String>,
}

pub(super) async fn say(stream: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

/// The next line; an error at the end, or after too long a silence.
pub(super) async fn hear<T: DeserializeOwned>(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<T> {
    let mut line = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_line(&mut line)).await;
    match read.map_err(|_| std::io::ErrorKind::TimedOut)?? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(serde_json::from_str(&line)?),
    }
}
