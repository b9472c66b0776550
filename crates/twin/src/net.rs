//! The network of the world: names, addresses, and who answers behind them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use tokio::io::DuplexStream;
use tokio_rustls::TlsAcceptor;

use crate::{Twin, azure, http, internet, machine, proxy};

/// Bytes that fit into a connection before the writer has to wait for the reader.
const PIPE_BYTES: usize = 64 * 1024;

/// Where clients in memory come from, unless they have moved (RFC 5737: for documentation).
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

impl Twin {
    /// The address from which a client comes: where it has moved to, else where its packets come from.
    pub(crate) fn client(&self, peer: Option<IpAddr>) -> IpAddr {
        self.with(|world| world.client_moved_to).or(peer).unwrap_or(CLIENT)
    }

    /// Opens a connection in memory, as TCP would: refused where nobody listens, silence (for ever) where no machine
    /// answers. The caller bounds its patience.
    ///
    /// What a client's own network closes is refused at once (guess: as a firewall does that rejects, and does not drop).
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        if let Some(proxy) = self.with(|world| world.operator_proxy.clone()) {
            if (proxy.host.as_str(), proxy.port) == (host, port) {
                let (client, server) = tokio::io::duplex(PIPE_BYTES);
                tokio::spawn(proxy::serve(self.clone(), proxy, server));
                return Ok(client);
            }
            let is_outside = azure::Service::at(host, port).is_some() || internet::HOSTS.contains(&host);
            if proxy.is_only_way && is_outside {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            }
        }
        self.connect_from(self.client(None), host, port).await
    }

    /// [`Twin::connect`] for a client at that address, with nothing before the world.
    pub(crate) async fn connect_from(&self, from: IpAddr, host: &str, port: u16) -> io::Result<DuplexStream> {
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        let twin = self.clone();
        if let Some(service) = azure::Service::at(host, port) {
            tokio::spawn(serve_azure(twin, service, server));
            return Ok(client);
        }
        if internet::HOSTS.contains(&host) && port == 443 {
            tokio::spawn(internet::serve(twin, from, server));
            return Ok(client);
        }
        let address: IpAddr = host
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("{host}: name or service not known")))?;
        match self.with(|world| machine::reach(world, from, address, port)) {
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
