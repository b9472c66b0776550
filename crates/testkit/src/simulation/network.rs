//! A network that misbehaves by seed, connection by connection, and counts what passes through it.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use async_trait::async_trait;
use deploy::seam::{Network, Stream};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    time::Instant,
};
use twin::Twin;

use super::plain;

/// How much is read ahead on a slow connection.
const SLOW_BYTES: usize = 16 * 1024;

/// What passed through the network of one simulation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Attempts to connect.
    pub connections: u64,
    /// Bytes from the program to the world.
    pub bytes_sent: u64,
    /// Bytes from the world to the program.
    pub bytes_received: u64,
    /// What went wrong, and how often.
    pub troubles: BTreeMap<&'static str, u64>,
}

/// How rough the network is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roughness {
    /// Of 100 connections, so many meet trouble.
    pub percent: u32,
    /// And never more than so many.
    pub at_most: u32,
}

/// What happens to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Refused,
    /// It breaks after so many bytes in both directions together.
    Reset(u64),
    /// It is accepted, and nothing ever comes back.
    HalfOpen,
    /// Every answer takes so much longer.
    Delayed(Duration),
    /// The so many-th answer is lost, and the connection with it; the request has arrived.
    AnswerLost(u32),
    /// The host can be reached by nobody for so long; what is on its way arrives afterwards.
    Partition(Duration),
}

/// The state of the network that all runs of one simulation share.
pub struct Weather(Mutex<Inner>);

struct Inner {
    random: ChaCha8Rng,
    roughness: Roughness,
    partitions: BTreeMap<String, Instant>,
    traffic: Traffic,
}

impl Weather {
    /// Fair weather; what happens later follows from the seed.
    pub fn new(seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        let (roughness, partitions, traffic) = Default::default();
        Self(Mutex::new(Inner { random, roughness, partitions, traffic }))
    }

    /// How rough it is from now on; partitions end.
    pub fn set(&self, roughness: Roughness) {
        let mut inner = self.lock();
        inner.roughness = roughness;
        inner.partitions.clear();
    }

    /// What passed so far.
    pub fn traffic(&self) -> Traffic {
        self.lock().traffic.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection and decides what becomes of it.
    fn draw(&self, host: &str) -> Trouble {
        let mut inner = self.lock();
        inner.traffic.connections += 1;
        let Roughness { percent, at_most } = inner.roughness;
        if at_most == 0 || inner.random.next_u32() % 100 >= percent {
            return Trouble::None;
        }
        inner.roughness.at_most -= 1;
        let (kind, size) = (inner.random.next_u32() % 6, inner.random.next_u32());
        let (trouble, name) = match kind {
            0 => (Trouble::Refused, "refused"),
            // From the first byte of the handshake to about thirty requests.
            1 => (Trouble::Reset(u64::from(1 + size % 2000) * u64::from(1 + size / 7 % 10)), "reset"),
            2 => (Trouble::HalfOpen, "half-open"),
            3 => (Trouble::Delayed(Duration::from_millis(u64::from(50 + size % 2950))), "delayed"),
            4 => (Trouble::AnswerLost(1 + size % 12), "answer lost"),
            _ => (Trouble::Partition(Duration::from_secs(u64::from(5 + size % 175))), "partition"),
        };
        *inner.traffic.troubles.entry(name).or_default() += 1;
        if let Trouble::Partition(length) = trouble {
            inner.partitions.insert(host.to_owned(), Instant::now() + length);
        }
        trouble
    }

    /// For how much longer nobody can reach the host.
    fn cut_off(&self, host: &str) -> Option<Duration> {
        let inner = self.lock();
        let until = *inner.partitions.get(host)?;
        until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
    }

    fn count(&self, sent: usize, received: usize) {
        let mut inner = self.lock();
        inner.traffic.bytes_sent += sent as u64;
        inner.traffic.bytes_received += received as u64;
    }
}

/// The way into a world, through its weather.
pub struct Weathered {
    twin: Twin,
    weather: Arc<Weather>,
}

impl Weathered {
    /// The way into `twin`.
    pub fn new(twin: Twin, weather: Arc<Weather>) -> Self {
        Self { twin, weather }
    }
}

#[async_trait]
impl Network for Weathered {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        let trouble = self.weather.draw(host);
        while let Some(rest) = self.weather.cut_off(host) {
            engine::pause(rest).await;
        }
        if trouble == Trouble::Refused {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let inner = match plain::connect(&self.twin, host, port) {
            Some(stream) => stream,
            None => self.twin.connect(host, port).await?,
        };
        Ok(Box::new(WeatheredStream {
            inner: Some(inner),
            host: host.to_owned(),
            weather: Arc::clone(&self.weather),
            trouble,
            bytes: 0,
            answers: 0,
            asked: false,
            held: Vec::new(),
            slow: None,
            stalls: [None, None],
            wakers: [None, None],
        }))
    }
}

type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The two directions of a connection.
#[derive(Clone, Copy)]
enum Side {
    Read,
    Write,
}

struct WeatheredStream {
    /// Gone once the connection is broken.
    inner: Option<DuplexStream>,
    host: String,
    weather: Arc<Weather>,
    trouble: Trouble,
    bytes: u64,
    answers: u32,
    /// Something was written since the last read.
    asked: bool,
    /// What has arrived and is held back.
    held: Vec<u8>,
    slow: Option<Pause>,
    stalls: [Option<Pause>; 2],
    wakers: [Option<Waker>; 2],
}

impl WeatheredStream {
    /// Waits while the host is cut off.
    fn stalled(&mut self, side: Side, context: &mut Context<'_>) -> Poll<()> {
        let side = side as usize;
        self.wakers[side] = Some(context.waker().clone());
        loop {
            if let Some(stall) = &mut self.stalls[side] {
                ready!(stall.as_mut().poll(context));
                self.stalls[side] = None;
            }
            match self.weather.cut_off(&self.host) {
                Some(rest) => self.stalls[side] = Some(Box::pin(engine::pause(rest))),
                None => return Poll::Ready(()),
            }
        }
    }

    fn open(&mut self) -> io::Result<Pin<&mut DuplexStream>> {
        self.inner.as_mut().map(Pin::new).ok_or_else(broken)
    }

    /// Breaks the connection, and tells whoever waits for it.
    fn cut(&mut self) {
        self.inner = None;
        self.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    fn count(&mut self, sent: usize, received: usize) {
        self.weather.count(sent, received);
        self.bytes += (sent + received) as u64;
        if matches!(self.trouble, Trouble::Reset(after) if self.bytes > after) {
            self.cut();
        }
    }

    /// Whether what has just arrived is the answer that gets lost.
    fn loses_answer(&mut self) -> bool {
        if std::mem::take(&mut self.asked) {
            self.answers += 1;
        }
        self.trouble == Trouble::AnswerLost(self.answers)
    }

    /// Hands out what was held back for long enough.
    fn read_slowly(
        &mut self,
        delay: Duration,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            let mut space = vec![0; SLOW_BYTES];
            let mut arrived = ReadBuf::new(&mut space);
            ready!(self.open()?.poll_read(context, &mut arrived))?;
            self.held = arrived.filled().to_vec();
            self.slow = Some(Box::pin(engine::pause(delay)));
        }
        if let Some(slow) = &mut self.slow {
            ready!(slow.as_mut().poll(context));
            self.slow = None;
        }
        let part = self.held.len().min(buffer.remaining());
        buffer.put_slice(&self.held[..part]);
        self.held.drain(..part);
        Poll::Ready(Ok(()))
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection was reset")
}

impl AsyncRead for WeatheredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.stalled(Side::Read, context));
        let before = buffer.filled().len();
        match self.trouble {
            Trouble::HalfOpen => return Poll::Pending,
            Trouble::Delayed(delay) => ready!(self.read_slowly(delay, context, buffer))?,
            _ => ready!(self.open()?.poll_read(context, buffer))?,
        }
        let received = buffer.filled().len() - before;
        if received > 0 && self.loses_answer() {
            buffer.set_filled(before);
            self.cut();
            return Poll::Ready(Err(broken()));
        }
        self.count(0, received);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WeatheredStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.stalled(Side::Write, context));
        if self.trouble == Trouble::HalfOpen {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(self.open()?.poll_write(context, bytes))?;
        self.asked = true;
        self.count(written, 0);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open()?.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A stream in trouble, and the far end, which echoes.
    fn stream(trouble: Trouble) -> (WeatheredStream, tokio::task::JoinHandle<io::Result<u64>>) {
        let (near, far) = tokio::io::duplex(1024);
        let (mut reader, mut writer) = tokio::io::split(far);
        let echo = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut writer).await });
        let weather = Arc::new(Weather::new(1));
        let (host, wakers) = ("host".to_owned(), [None, None]);
        let (bytes, answers, asked, held, slow, stalls) = Default::default();
        let inner = Some(near);
        (WeatheredStream { inner, host, weather, trouble, bytes, answers, asked, held, slow, stalls, wakers }, echo)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_lost_and_its_request_is_not() {
        let (mut stream, echo) = stream(Trouble::AnswerLost(2));
        for (question, arrives) in [(b"one", true), (b"two", false)] {
            stream.write_all(question).await.unwrap();
            let mut answer = [0; 3];
            assert_eq!(stream.read_exact(&mut answer).await.is_ok(), arrives);
        }
        drop(stream);
        // The far end notices when it answers.
        assert!(echo.await.unwrap().map_or(true, |echoed| echoed == 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_wakes_a_reader() {
        let (stream, _echo) = stream(Trouble::Reset(4));
        let (mut reader, mut writer) = tokio::io::split(stream);
        let reading = tokio::spawn(async move { reader.read_to_end(&mut Vec::new()).await });
        engine::pause(Duration::from_secs(1)).await;
        writer.write_all(b"five!").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(writer.write_all(b"more").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn delays_and_partitions_end() {
        let began = Instant::now();
        let (mut slow, _echo) = stream(Trouble::Delayed(Duration::from_secs(2)));
        slow.write_all(b"one").await.unwrap();
        slow.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 2);
        let (mut cut_off, _echo) = stream(Trouble::None);
        cut_off.weather.lock().partitions.insert("host".to_owned(), Instant::now() + Duration::from_secs(60));
        cut_off.write_all(b"one").await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 62);
    }
}
