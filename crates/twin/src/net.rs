//! The network of the world: names, addresses, and who answers behind them.

use std::{io, net::IpAddr};

use tokio::io::DuplexStream;
use tokio_rustls::TlsAcceptor;

use crate::{Twin, azure, http, machine};

/// Bytes that fit into a connection before the writer has to wait for the reader.
const PIPE_BYTES: usize = 64 * 1024;

impl Twin {
    /// Opens a connection in memory, as TCP would: refused where nobody listens, silence (for ever) where no machine
    /// answers. The caller bounds its patience.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        let twin = self.clone();
        if let Some(service) = azure::Service::at(host, port) {
            tokio::spawn(serve_azure(twin, service, server));
            return Ok(client);
        }
        let address: IpAddr = host
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("{host}: name or service not known")))?;
        match self.with(|world| machine::reach(world, address, port)) {
            machine::Reach::Open => {
                tokio::spawn(machine::serve(twin, address, port, server));
                Ok(client)
            }
            machine::Reach::Refused => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
            machine::Reach::Silent => std::future::pending().await,
        }
    }
}

/// Serves ARM or the login endpoint on one connection, TLS first.
pub async fn serve_azure<Stream>(twin: Twin, service: azure::Service, stream: Stream)
where
    Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let acceptor = TlsAcceptor::from(twin.with(|world| world.azure.tls()));
    // A client that does not trust us hangs up: its concern.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    http::serve(stream, move |request| azure::answer(twin.clone(), service, request)).await;
}
