//! Mutual TLS with X.509-SVIDs, over what rustls and spiffe-rustls give.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ids::{Clock, SystemClock, Timestamp};
use rustls::pki_types::{CertificateDer, ServerName};
use spiffe::{SpiffeId, cert::spiffe_id_from_der};
use spiffe_rustls::{TlsStatus, TrustDomainPolicy, authorizer, mtls_client, mtls_server};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::{Identity, Workload, identity::expiry};

/// How long one side waits for the other to finish the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// When a connection is replaced though its SVIDs are good for longer.
const MAX_AGE: Duration = Duration::from_mins(30);
/// How long a new SVID may take to be converted for rustls before a handshake is tried nevertheless.
const CONVERSION: Duration = Duration::from_secs(1);
const ALPN: [&[u8]; 1] = [b"h2"];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable SVID or bundle.
    #[error("TLS cannot be set up")]
    Setup(#[from] spiffe_rustls::Error),
    /// The address does not answer, or the handshake was refused by either side.
    #[error("the connection was refused")]
    Io(#[from] io::Error),
    /// The other side did not finish the handshake.
    #[error("the handshake took longer than {} s", HANDSHAKE.as_secs())]
    Timeout,
    /// TLS admitted a peer without an X.509-SVID, which it does not do.
    #[error("the peer has no X.509-SVID")]
    NoSvid,
}

impl Error {
    /// Whether nobody listens at the address.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Whether it is this side that has nothing to show.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Setup(_))
    }
}

/// The authenticated other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its SPIFFE ID, of this trust domain.
    pub id: SpiffeId,
    /// The workload it is; `None` for an ID that is none of this namespace.
    pub workload: Option<Workload>,
    /// Where it called from.
    pub address: SocketAddr,
    /// When the SVID it showed expires.
    pub expires: Timestamp,
}

/// The server's side: admits every SVID of the trust domain. Which of them may call what is decided per call, so that who
/// may not is told so.
#[derive(Clone)]
pub(crate) struct Acceptor {
    identity: Identity,
    tls: TlsAcceptor,
    status: TlsStatus,
}

impl Acceptor {
    pub(crate) fn new(identity: Identity) -> Result<Self, Error> {
        let (config, status) = mtls_server(identity.x509())
            .authorize(authorizer::trust_domains([identity.trust_domain().clone()])?)
            .trust_domain_policy(TrustDomainPolicy::LocalOnly(identity.trust_domain().clone()))
            .with_alpn_protocols(ALPN)
            .build_with_status()?;
        Ok(Self { identity, tls: Arc::new(config).into(), status })
    }

    /// A connection, who is at its other end, and when the first of the two SVIDs expires.
    pub(crate) async fn accept(
        &self,
        tcp: TcpStream,
    ) -> Result<(server::TlsStream<TcpStream>, Peer, Timestamp), Error> {
        let address = tcp.peer_addr()?;
        converted(&self.status).await;
        // Before the handshake: should a new one come meanwhile, this is the earlier.
        let own = self.identity.leaf_expiry();
        let stream = timeout(HANDSHAKE, self.tls.accept(tcp)).await.map_err(|_| Error::Timeout)??;
        let leaf = leaf(stream.get_ref().1)?;
        let id = spiffe_id_from_der(leaf).map_err(|_| Error::NoSvid)?;
        let expires = expiry(leaf).ok_or(Error::NoSvid)?;
        let workload = Workload::of(&id, self.identity.namespace());
        Ok((stream, Peer { id, workload, address, expires }, own.map_or(expires, |own| own.min(expires))))
    }
}

/// The client's side: accepts one server and nobody else.
pub(crate) struct Connector {
    identity: Identity,
    tls: TlsConnector,
    status: TlsStatus,
}

impl Connector {
    pub(crate) fn new(identity: &Identity, server: SpiffeId) -> Result<Self, Error> {
        let (config, status) = mtls_client(identity.x509())
            .authorize(authorizer::exact([server])?)
            .trust_domain_policy(TrustDomainPolicy::LocalOnly(identity.trust_domain().clone()))
            .with_alpn_protocols(ALPN)
            .build_with_status()?;
        Ok(Self { identity: identity.clone(), tls: Arc::new(config).into(), status })
    }

    /// A connection on which the server has accepted this side too, and when the first of the two SVIDs expires.
    ///
    /// In TLS 1.3 the client's handshake is over before the server has judged the client's certificate. Every server of
    /// the mesh sends its HTTP/2 settings first, so the first bytes that arrive say that it has; a refusal is an error
    /// here, where nothing was sent yet, and not in the middle of a call.
    pub(crate) async fn connect(
        &self,
        address: &str,
        server: &Workload,
    ) -> Result<(BufReader<client::TlsStream<TcpStream>>, Timestamp), Error> {
        converted(&self.status).await;
        // As in `accept`.
        let own = self.identity.leaf_expiry();
        // The name is not looked at: the certificate's SPIFFE ID is.
        let name = ServerName::try_from(server.as_str().to_owned()).map_err(io::Error::other)?;
        let handshake = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let mut stream = BufReader::new(self.tls.connect(name, tcp).await?);
            if stream.fill_buf().await?.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            Ok(stream)
        };
        let stream = timeout(HANDSHAKE, handshake).await.map_err(|_| Error::Timeout)??;
        let expires = expiry(leaf(stream.get_ref().get_ref().1)?).ok_or(Error::NoSvid)?;
        Ok((stream, own.map_or(expires, |own| own.min(expires))))
    }
}

/// What the peer has shown.
fn leaf(connection: &rustls::CommonState) -> Result<&CertificateDer<'static>, Error> {
    connection.peer_certificates().and_then(<[_]>::first).ok_or(Error::NoSvid)
}

/// How old a connection may become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Age {
    /// Then the first of its SVIDs expires, and what is still going on ends.
    pub(crate) left: Duration,
}

impl Age {
    /// Of a connection made now. Certificates are judged on the machine's clock, so that counts here too.
    pub(crate) fn until(expires: Timestamp) -> Self {
        Self { left: expires.since(SystemClock.now()) }
    }

    /// After this the server asks for a new one: early enough for what is in flight to be finished.
    pub(crate) fn server(self) -> Duration {
        (self.left / 2).min(MAX_AGE)
    }

    /// After this the client makes a new one: before the server asks for it, since only the client knows when it is not
    /// about to send something. What is left lies between a request's departure and its arrival, with room for clocks that
    /// differ.
    pub(crate) fn client(self) -> Duration {
        self.server() * 3 / 4
    }
}

/// Waits until a new SVID that has just arrived is ready for rustls: a handshake in between fails.
async fn converted(status: &TlsStatus) {
    let mut status = status.clone();
    let wait = async { while !status.current().available && status.changed().await.is_ok() {} };
    let _ = timeout(CONVERSION, wait).await;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_client_renews_before_the_server_asks_and_there_is_time_to_finish(millis in 0_u64..100_000_000) {
            let age = Age { left: Duration::from_millis(millis) };
            prop_assert!(age.server() <= MAX_AGE && age.server() * 2 <= age.left);
            prop_assert!(age.client() * 4 <= age.server() * 3);
        }
    }
}
