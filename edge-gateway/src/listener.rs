//! The public port: connections, their limits, and how they end.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
};
use chassis::{Drain, port};
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::{
    config::Config,
    exchange::Peer,
    limit::network,
    stall::{Stall, paced},
};

/// Pause after a failed accept: it fails again at once while the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Takes the address; for an IPv4 loopback one [::1] too, where there is one, since browsers may resolve `localhost` to it.
pub(crate) fn take(address: SocketAddr) -> io::Result<Vec<TcpSocket>> {
    let first = port::take(address)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    if bound.is_ipv4() && bound.ip().is_loopback() {
        match port::take((Ipv6Addr::LOCALHOST, bound.port()).into()) {
            Ok(second) => sockets.push(second),
            Err(error) => tracing::debug!(%error, "does not listen on [::1]"),
        }
    }
    Ok(sockets)
}

/// Accepts connections at the address that was taken; at [::1] unless somebody else has come to listen there meanwhile.
pub(crate) fn listen(sockets: Vec<TcpSocket>) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for socket in sockets {
        match port::listen(socket) {
            Ok(listener) => listeners.push(listener),
            Err(error) if listeners.is_empty() => return Err(error),
            Err(error) => tracing::debug!(%error, "does not listen on [::1]"),
        }
    }
    Ok(listeners)
}

/// Serves connections until `drain` (no further ones; GOAWAY or `Connection: close`; requests in flight go on), and then
/// until they are over, or `kill` ends them.
pub(crate) async fn serve(
    listeners: Vec<TcpListener>,
    tls: Option<TlsAcceptor>,
    router: Router,
    config: Arc<Config>,
    drain: Drain,
) {
    metrics::counter!("guildhall_edge_connections_refused_total").increment(0);
    let connections = Arc::new(Connections {
        protocol: protocol(&config),
        tls,
        router,
        free: Arc::new(Semaphore::new(config.connection.most)),
        by_network: Mutex::default(),
        config,
        drain,
    });
    let tasks = TaskTracker::new();
    futures_util::future::join_all(
        listeners.into_iter().map(|listener| accept(listener, Arc::clone(&connections), &tasks)),
    )
    .await;
    tasks.close();
    tasks.wait().await;
}

async fn accept(listener: TcpListener, connections: Arc<Connections>, tasks: &TaskTracker) {
    let free = Arc::clone(&connections.free);
    let accepting = async {
        loop {
            let permit = Arc::clone(&free).acquire_owned().await.expect("the semaphore is never closed");
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = Place::take(&connections, address.ip()) else { continue };
            let connections = Arc::clone(&connections);
            tasks.spawn(async move {
                let _held = (permit, place);
                connections.serve(stream, address).await;
            });
        }
    };
    tokio::select! {
        () = connections.drain.drain.cancelled() => {}
        () = accepting => {}
    }
}

struct Connections {
    protocol: auto::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    router: Router,
    free: Arc<Semaphore>,
    by_network: Mutex<HashMap<IpAddr, usize>>,
    config: Arc<Config>,
    drain: Drain,
}

/// HTTP/1.1 and HTTP/2 with their limits. Those on the head are twice as wide as the gateway's own: see `guard::measure`.
fn protocol(config: &Config) -> auto::Builder<TokioExecutor> {
    const LEAST_BUFFER: usize = 8192;
    let (request, connection) = (&config.request, &config.connection);
    let head = 2 * (request.uri_bytes + request.header_bytes as usize);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(connection.header_read)
        .max_headers(2 * request.header_count)
        .max_buf_size(head.max(LEAST_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(connection.streams)
        .max_header_list_size(request.header_bytes.saturating_mul(2))
        // A peer that has vanished without a word is noticed while one of its streams is open.
        .keep_alive_interval(connection.idle / 2)
        .keep_alive_timeout(connection.header_read);
    builder
}

impl Connections {
    async fn serve(&self, stream: TcpStream, address: SocketAddr) {
        // Answers are written whole: waiting for more only delays them.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.http(stream, Peer { address, tls: false }).await };
        match tokio::time::timeout(self.config.connection.header_read, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream, Peer { address, tls: true }).await,
            Ok(Err(error)) => tracing::debug!(client = %address, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(client = %address, "a TLS handshake took too long"),
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer) {
        let busy = Busy::default();
        let service = hyper::service::service_fn(|mut request: Request<Incoming>| {
            let held = busy.hold();
            request.extensions_mut().insert(peer);
            let answer = self.router.clone().oneshot(request.map(Body::new));
            let patience = self.config.connection.write_stall;
            async move { answer.await.map(|response| response.map(|body| paced(Held { body, _held: held }, patience))) }
        });
        let stream = TokioIo::new(Stall::new(stream, self.config.connection.write_stall));
        let mut connection = pin!(self.protocol.serve_connection(stream, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = busy.idle(self.config.connection.idle) => None,
            () = self.drain.drain.cancelled() => None,
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = busy.idle(GOODBYE) => Ok(()),
                () = self.drain.kill.cancelled() => Ok(()),
            }
        };
        if let Err(error) = ended {
            tracing::debug!(client = %peer.address, error, "a connection failed");
        }
    }
}

/// One connection's place among those of its network.
struct Place {
    connections: Arc<Connections>,
    network: IpAddr,
}

impl Place {
    fn take(connections: &Arc<Connections>, client: IpAddr) -> Option<Self> {
        let network = network(client);
        let trusted = connections.config.trusts(client.to_canonical());
        let mut places = connections.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = places.entry(network).or_default();
        if *taken >= connections.config.connection.most_per_address && !trusted {
            metrics::counter!("guildhall_edge_connections_refused_total").increment(1);
            return None;
        }
        *taken += 1;
        Some(Self { connections: Arc::clone(connections), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.connections.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&self.network) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.network);
            }
        }
    }
}

/// How many requests of a connection are under way.
struct Busy(watch::Sender<usize>);

impl Default for Busy {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Busy {
    fn hold(&self) -> Hold {
        self.0.send_modify(|requests| *requests += 1);
        Hold(self.0.clone())
    }

    /// Resolves once there has been no request for `duration`.
    async fn idle(&self, duration: Duration) {
        let mut requests = self.0.subscribe();
        loop {
            // `self` holds a sender: neither wait can fail.
            let _ = requests.wait_for(|requests| *requests == 0).await;
            if tokio::time::timeout(duration, requests.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// One request under way, until the last byte of its answer is handed over or dropped.
struct Hold(watch::Sender<usize>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

struct Held {
    body: Body,
    _held: Hold,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::{listen, take};

    #[tokio::test]
    async fn edges_with_the_same_port_of_different_addresses_share_one_loopback_and_both_listen() {
        let first = take("127.0.0.2:0".parse().unwrap()).unwrap();
        let (one, mut other) = (first[0].local_addr().unwrap(), first[0].local_addr().unwrap());
        other.set_ip([127, 0, 0, 3].into());
        let second = take(other).unwrap();
        for (sockets, address) in [(first, one), (second, other)] {
            assert_eq!(listen(sockets).unwrap()[0].local_addr().unwrap(), address);
        }
    }
}
