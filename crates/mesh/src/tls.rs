//! Mutual TLS with X.509-SVIDs, over what rustls and spiffe-rustls give.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ids::Timestamp;
use rustls::pki_types::ServerName;
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

    pub(crate) async fn accept(&self, tcp: TcpStream) -> Result<(server::TlsStream<TcpStream>, Peer), Error> {
        let address = tcp.peer_addr()?;
        converted(&self.status).await;
        let stream = timeout(HANDSHAKE, self.tls.accept(tcp)).await.map_err(|_| Error::Timeout)??;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or(Error::NoSvid)?;
        let id = spiffe_id_from_der(leaf).map_err(|_| Error::NoSvid)?;
        let expires = expiry(leaf).ok_or(Error::NoSvid)?;
        let workload = Workload::of(&id, self.identity.namespace());
        Ok((stream, Peer { id, workload, address, expires }))
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
        // Before the handshake: should a new one come meanwhile, this is the earlier.
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
        let leaf = stream.get_ref().get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or(Error::NoSvid)?;
        let expires = expiry(leaf).ok_or(Error::NoSvid)?;
        Ok((stream, own.map_or(expires, |own| own.min(expires))))
    }
}

/// Waits until a new SVID that has just arrived is ready for rustls: a handshake in between fails.
async fn converted(status: &TlsStatus) {
    let mut status = status.clone();
    let wait = async { while !status.current().available && status.changed().await.is_ok() {} };
    let _ = timeout(CONVERSION, wait).await;
}
