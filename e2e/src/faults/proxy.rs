//! A network that can be taken away: a TCP proxy in front of a database, a Redis or a service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Bytes that are passed on at once.
const PIECE: usize = 16 * 1024;

/// A proxy. Dropped, it is gone, and every connection through it.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<watch::Sender<Network>>,
    accepting: AbortHandle,
}

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Passes everything on.
    Whole,
    /// Passes everything on, each piece so much later.
    Slow(Duration),
    /// Loses everything, and tells nobody: connections stay and are silent.
    Silent,
    /// Breaks every connection, and new ones at once.
    Cut,
}

impl Proxy {
    /// A proxy on `listen` (port 0 picks a free one) in front of `target`, which need not be there yet.
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(listen).await.expect("the proxy's address is free");
        let address = listener.local_addr().expect("it is bound");
        let network = Arc::new(watch::Sender::new(Network::Whole));
        let accepting = tokio::spawn(accept(listener, target, Arc::clone(&network))).abort_handle();
        Self { address, network, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the network does, for open connections too.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, network: Arc<watch::Sender<Network>>) {
    // They end with this.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                connections.spawn(connect(near, target, network.subscribe()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until either end or the network ends it.
async fn connect(near: TcpStream, target: SocketAddr, network: watch::Receiver<Network>) {
    if *network.borrow() == Network::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else { return };
    // A delay is the network's to make.
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let mut cut = network.clone();
    let there = pass(near_in, far_out, network.clone());
    let back = pass(far_in, near_out, network);
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = cut.wait_for(|network| *network == Network::Cut) => {}
    }
}

async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut network: watch::Receiver<Network>,
) {
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        // A silent network keeps what was sent, as the sender's own system would until it gives up.
        let Ok(now) = network.wait_for(|network| *network != Network::Silent).await.map(|now| *now) else { return };
        if let Network::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}
