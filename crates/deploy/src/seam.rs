//! The seam between the product and the world: connections, the clock, chance, and foreign files.
//!
//! Nothing else in this crate opens a socket, asks for the time of day or sleeps. In production the world is TCP and
//! the system clock; in a rehearsal and in tests it is memory, a virtual clock and a seed.

use std::{
    fmt, io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
pub use engine::{Clock, SystemClock, pause};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::watch,
    time::timeout,
};

use crate::{proxy::Proxy, secret::Secret};

/// A two-way stream of bytes.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<Any: AsyncRead + AsyncWrite + Unpin + Send + ?Sized> Io for Any {}

/// An open connection, whatever carries it.
pub type Stream = Box<dyn Io>;

/// Opens connections.
#[async_trait]
pub trait Network: Send + Sync {
    /// Connects to a port of a host, given by name or by address. The caller bounds its patience.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Stream>;

    /// [`Network::connect`], with an end. The patience is for the last leg alone: who has a way to make first makes it in
    /// that way's own time.
    async fn connect_within(&self, host: &str, port: u16, patience: Duration) -> io::Result<Stream> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {} s", patience.as_secs()));
        timeout(patience, self.connect(host, port)).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Takes a network interface of this computer down, as `ip link delete` does; whether there was one. An error if it stays:
/// who may not (it takes CAP_NET_ADMIN) has to ask somebody who may. Who cannot even look sees none.
#[cfg(target_os = "linux")]
pub async fn delete_interface(name: &str) -> io::Result<bool> {
    use futures::TryStreamExt as _;
    let Ok((connection, handle, _)) = rtnetlink::new_connection() else { return Ok(false) };
    let deleting = async {
        let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
        let Ok(Some(link)) = found else { return Ok(false) };
        match handle.link().del(link.header.index).execute().await {
            Ok(()) => Ok(true),
            Err(rtnetlink::Error::NetlinkError(refusal)) => Err(refusal.to_io()),
            Err(error) => Err(io::Error::other(error)),
        }
    };
    tokio::select! {
        biased;
        result = deleting => result,
        () = connection => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// Elsewhere nobody here knows how, and whether there is one.
#[cfg(not(target_os = "linux"))]
pub async fn delete_interface(_name: &str) -> io::Result<bool> {
    Ok(false)
}

/// Files that others write and we read, such as a federated token.
pub trait Files: Send + Sync {
    /// The whole text of a file.
    fn read_to_string(&self, path: &Path) -> io::Result<String>;

    /// A file that is read piece by piece, because it may be large.
    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>>;
}

/// What the one who runs this lends to log in with.
#[async_trait]
pub trait Keyring: Send + Sync {
    /// The passphrase of a private key's file; none if nobody can say. Attempts count from 0; a later one means that the
    /// passphrase before was wrong.
    fn passphrase(&self, file: &Path, attempt: u32) -> Option<Secret>;

    /// A connection to the ssh-agent; none if there is none.
    async fn agent(&self) -> io::Result<Option<Stream>>;
}

/// The certificate authorities that are trusted.
#[derive(Debug, Clone, Default)]
pub enum Roots {
    /// The public ones, as Mozilla lists them.
    #[default]
    Public,
    /// These as well.
    PublicAnd(Vec<CertificateDer<'static>>),
    /// Nobody but these.
    Only(Vec<CertificateDer<'static>>),
}

/// Everything outside the program that the program depends on.
#[derive(Clone)]
pub struct World {
    /// Where connections go.
    pub network: Arc<dyn Network>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Chance: jitter and identifiers of requests. Never key material.
    pub random: Arc<Mutex<ChaCha8Rng>>,
    /// Whom HTTPS trusts.
    pub roots: Roots,
    /// Who stands between HTTPS and its hosts.
    pub proxy: Proxy,
    /// Files of others.
    pub files: Arc<dyn Files>,
    /// Passphrases, and the ssh-agent.
    pub keyring: Arc<dyn Keyring>,
}

impl World {
    /// The real world: TCP, the system's clock, the system's randomness, the disk.
    pub fn real() -> io::Result<World> {
        let random = ChaCha8Rng::try_from_os_rng().map_err(io::Error::other)?;
        Ok(World {
            network: Arc::new(Tcp),
            clock: Arc::new(SystemClock),
            random: Arc::new(Mutex::new(random)),
            roots: Roots::Public,
            proxy: Proxy::default(),
            files: Arc::new(Disk),
            keyring: Arc::new(NoKeyring),
        })
    }

    /// The same world through another network.
    pub fn with_network(&self, network: Arc<dyn Network>) -> World {
        World { network, ..self.clone() }
    }

    /// 128 random bits in the form of a UUID, to name a request.
    pub fn request_id(&self) -> String {
        let mut random = lock(&self.random);
        let (high, low) = (random.next_u64(), random.next_u64());
        let version = (high & 0xffff_ffff_ffff_0fff) | 0x4000;
        let variant = (low & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
        let text = format!("{version:016x}{variant:016x}");
        format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }

    /// The duration, shortened by chance by up to half, so that many callers do not come back at the same moment.
    pub fn jitter(&self, duration: Duration) -> Duration {
        let share = f64::from(lock(&self.random).next_u32()) / f64::from(u32::MAX);
        duration.mul_f64(1.0 - share / 2.0)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("World")
    }
}

/// TCP, without delaying small writes.
#[derive(Debug, Clone, Copy)]
pub struct Tcp;

#[async_trait]
impl Network for Tcp {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// The file system.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Files for Disk {
    fn read_to_string(&self, path: &Path) -> io::Result<String> {
        fs_err::read_to_string(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(fs_err::File::open(path)?))
    }
}

/// Nobody lends anything.
#[derive(Debug, Clone, Copy)]
pub struct NoKeyring;

#[async_trait]
impl Keyring for NoKeyring {
    fn passphrase(&self, _file: &Path, _attempt: u32) -> Option<Secret> {
        None
    }

    async fn agent(&self) -> io::Result<Option<Stream>> {
        Ok(None)
    }
}

/// Connects to a socket of this computer, such as that of an ssh-agent.
pub async fn local_socket(path: &Path) -> io::Result<Stream> {
    Ok(Box::new(UnixStream::connect(path).await?))
}

/// A network with a kill switch: one run of the program holds one, and when it must stop, nothing of it goes on.
pub struct Severable {
    inner: Arc<dyn Network>,
    severed: watch::Sender<bool>,
    lines: Mutex<Vec<Weak<Mutex<Line>>>>,
}

/// One connection of a [`Severable`] network. The stream is gone once the network is severed.
struct Line {
    stream: Option<Stream>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct SeverableStream(Arc<Mutex<Line>>);

impl Severable {
    /// Puts a kill switch into a network.
    pub fn new(inner: Arc<dyn Network>) -> Self {
        Severable { inner, severed: watch::Sender::new(false), lines: Mutex::new(Vec::new()) }
    }

    /// Resets every connection at once and refuses new ones.
    pub fn sever(&self) {
        self.severed.send_replace(true);
        for line in std::mem::take(&mut *lock(&self.lines)).iter().filter_map(Weak::upgrade) {
            let mut line = lock(&line);
            let (stream, reader, writer) = (line.stream.take(), line.reader.take(), line.writer.take());
            drop(line);
            drop(stream);
            reader.into_iter().chain(writer).for_each(Waker::wake);
        }
    }
}

#[async_trait]
impl Network for Severable {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        let mut severed = self.severed.subscribe();
        let stream = tokio::select! {
            biased;
            _ = severed.wait_for(|severed| *severed) => return Err(reset()),
            stream = self.inner.connect(host, port) => stream?,
        };
        let line = Arc::new(Mutex::new(Line { stream: Some(stream), reader: None, writer: None }));
        let mut lines = lock(&self.lines);
        if *self.severed.borrow() {
            return Err(reset());
        }
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&line));
        Ok(Box::new(SeverableStream(line)))
    }
}

impl SeverableStream {
    fn poll_write_side<T>(
        &self,
        context: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut line = lock(&self.0);
        line.writer = Some(context.waker().clone());
        match &mut line.stream {
            Some(stream) => poll(Pin::new(stream), context),
            None => Poll::Ready(Err(reset())),
        }
    }
}

impl AsyncRead for SeverableStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut line = lock(&self.0);
        line.reader = Some(context.waker().clone());
        match &mut line.stream {
            Some(stream) => Pin::new(stream).poll_read(context, buffer),
            None => Poll::Ready(Err(reset())),
        }
    }
}

impl AsyncWrite for SeverableStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_side(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_side(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_side(context, |stream, context| stream.poll_shutdown(context))
    }
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection was cut by the kill switch")
}

/// Locks a mutex whose content stays valid even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Connects to a peer that keeps the connection open and says nothing; port 0 never answers at all.
    struct Quiet;

    #[async_trait]
    impl Network for Quiet {
        async fn connect(&self, _host: &str, port: u16) -> io::Result<Stream> {
            if port == 0 {
                return std::future::pending().await;
            }
            let (client, mut server) = tokio::io::duplex(64);
            tokio::spawn(async move { server.read_u8().await });
            Ok(Box::new(client))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn severing_ends_reads_connects_and_new_connections() {
        let network = Arc::new(Severable::new(Arc::new(Quiet)));
        let mut stream = network.connect("host", 22).await.unwrap();
        let reader = tokio::spawn(async move { (stream.read_u8().await, stream.write_u8(1).await) });
        let connecting = network.clone();
        let connector = tokio::spawn(async move { connecting.connect("host", 0).await.err() });
        pause(Duration::from_secs(1)).await;
        network.sever();
        let (read, written) = reader.await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(connector.await.unwrap().unwrap().kind(), io::ErrorKind::ConnectionReset);
        assert!(network.connect("host", 22).await.is_err());
    }

    #[test]
    fn chance_is_seeded_and_jitter_stays_in_range() {
        let world = || World {
            network: Arc::new(Tcp),
            clock: Arc::new(SystemClock),
            random: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(7))),
            roots: Roots::Public,
            proxy: Proxy::default(),
            files: Arc::new(Disk),
            keyring: Arc::new(NoKeyring),
        };
        assert_eq!(world().request_id(), world().request_id());
        assert_eq!(world().request_id().len(), 36);
        for _ in 0..100 {
            let jittered = world().jitter(Duration::from_secs(10));
            assert!(jittered >= Duration::from_secs(5) && jittered <= Duration::from_secs(10));
        }
    }
}
