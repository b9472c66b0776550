//! A network that loses one answer: the request arrives and is carried out, and then the connection breaks.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use async_trait::async_trait;
use deploy::seam::{Network, Severable, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use twin::{Entry, Twin};

/// Whose answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// A request that changes something in Azure.
    Arm,
    /// A command on a machine.
    Ssh,
    /// A request that changes something in the cluster. It travels inside an SSH connection, so that breaks.
    Kubernetes,
}

impl Client {
    /// Every client.
    pub const ALL: [Self; 3] = [Self::Arm, Self::Ssh, Self::Kubernetes];

    /// Whether the entry is a request whose answer can be lost.
    pub fn has_sent(self, entry: &Entry) -> bool {
        let actor = match self {
            Self::Arm => "arm",
            Self::Ssh => "ssh",
            Self::Kubernetes => "kubernetes",
        };
        entry.kind == "request" && entry.actor == actor && !matches!(entry.verb.as_str(), "GET" | "HEAD" | "WATCH")
    }
}

/// Which answer is lost, once; clones are the same loss, so that it can befall the runs of a whole story.
#[derive(Debug, Clone)]
pub struct Loss {
    client: Client,
    number: usize,
    machines: Vec<(String, String)>,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Entries of the ledger that have been looked at.
    seen: usize,
    sent: usize,
    is_lost: bool,
}

impl Loss {
    /// Loses the answer with this number, from 0, to `client`, counted from the ledger's entry `since` on. `machines`
    /// have names and public addresses; the first one is the way to the cluster.
    pub fn new(client: Client, number: usize, since: usize, machines: Vec<(String, String)>) -> Self {
        Self {
            client,
            number,
            machines,
            progress: Arc::new(Mutex::new(Progress { seen: since, ..Progress::default() })),
        }
    }

    /// Whether it has happened.
    pub fn is_lost(&self) -> bool {
        lock(&self.progress).is_lost
    }

    /// The request whose answer is lost, if it has been carried out since the last look.
    fn strikes(&self, entries: &[Entry]) -> Option<Entry> {
        let mut progress = lock(&self.progress);
        if progress.is_lost {
            return None;
        }
        let new = &entries[progress.seen.min(entries.len())..];
        progress.seen = entries.len();
        for entry in new.iter().filter(|entry| self.client.has_sent(entry)) {
            progress.sent += 1;
            if progress.sent > self.number {
                progress.is_lost = true;
                return Some(entry.clone());
            }
        }
        None
    }

    /// Where the request went.
    fn host(&self, entry: &Entry) -> String {
        let machine = match self.client {
            Client::Arm => return "management.azure.com".to_owned(),
            Client::Ssh => self.machines.iter().find(|(name, _)| Some(name) == entry.node.as_ref()),
            Client::Kubernetes => self.machines.first(),
        };
        machine.map(|(_, address)| address.clone()).unwrap_or_default()
    }
}

/// The network. One connection that breaks cannot be told from another to the same host, so all of them break.
pub struct Lossy(Arc<Wire>);

struct Wire {
    inner: Arc<dyn Network>,
    twin: Twin,
    loss: Loss,
    /// By host.
    lanes: Mutex<BTreeMap<String, Arc<Severable>>>,
}

struct LossyStream {
    wire: Arc<Wire>,
    stream: Stream,
}

impl Lossy {
    /// Loses one answer of what goes through `inner`.
    pub fn new(inner: Arc<dyn Network>, twin: Twin, loss: Loss) -> Self {
        Self(Arc::new(Wire { inner, twin, loss, lanes: Mutex::default() }))
    }
}

#[async_trait]
impl Network for Lossy {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        let wire = &self.0;
        let lane = {
            let new = || Arc::new(Severable::new(wire.inner.clone()));
            Arc::clone(lock(&wire.lanes).entry(host.to_owned()).or_insert_with(new))
        };
        let stream = lane.connect(host, port).await?;
        Ok(Box::new(LossyStream { wire: Arc::clone(wire), stream }))
    }
}

impl Wire {
    /// Breaks the connections if the answer that is to be lost is on its way. Answers take their time, so looking
    /// before each byte that comes in is early enough.
    fn look(&self) {
        let Some(entry) = self.twin.with(|world| self.loss.strikes(&world.ledger.entries)) else { return };
        let lane = lock(&self.lanes).remove(&self.loss.host(&entry));
        if let Some(lane) = lane {
            lane.sever();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for LossyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.wire.look();
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for LossyStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
