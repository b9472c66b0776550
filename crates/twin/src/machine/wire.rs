//! A connection to something that can go away: it ends when the other side's count moves.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf},
    sync::watch,
};

use crate::Twin;

/// A stream that reads as closed once the count it was made with has changed.
pub(super) struct Wire<Stream> {
    stream: Stream,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_cut: bool,
}

/// Bytes that are on their way at the same time.
const ON_THE_WAY: usize = 64 * 1024;

/// The same stream at the other end of a long way: what comes in arrives later.
pub(super) fn far_away<Stream>(twin: Twin, stream: Stream, later: Duration) -> DuplexStream
where
    Stream: AsyncRead + AsyncWrite + Send + 'static,
{
    let (near, far) = tokio::io::duplex(ON_THE_WAY);
    tokio::spawn(async move {
        let ((mut incoming, mut outgoing), (mut answers, mut arrived)) =
            (tokio::io::split(stream), tokio::io::split(far));
        let travel = async {
            let mut bytes = vec![0; ON_THE_WAY];
            while let Ok(count @ 1..) = incoming.read(&mut bytes).await {
                twin.sleep(later).await;
                if arrived.write_all(&bytes[..count]).await.is_err() {
                    break;
                }
            }
            let _gone = arrived.shutdown().await;
        };
        let answer = async {
            let _gone = tokio::io::copy(&mut answers, &mut outgoing).await;
            let _gone = outgoing.shutdown().await;
        };
        tokio::join!(biased; travel, answer);
    });
    near
}

impl<Stream> Wire<Stream> {
    /// Ties `stream` to the present count.
    pub(super) fn new(stream: Stream, count: &watch::Sender<u64>) -> Self {
        let mut count = count.subscribe();
        // An error means that the counter itself is gone: as final as a change.
        let cut = Box::pin(async move { drop(count.changed().await) });
        Self { stream, cut, is_cut: false }
    }

    fn poll_cut(&mut self, context: &mut Context<'_>) -> bool {
        self.is_cut = self.is_cut || self.cut.as_mut().poll(context).is_ready();
        self.is_cut
    }
}

impl<Stream: AsyncRead + Unpin> AsyncRead for Wire<Stream> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.poll_cut(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<Stream: AsyncWrite + Unpin> AsyncWrite for Wire<Stream> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
