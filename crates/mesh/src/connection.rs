//! One connection to one endpoint, made anew whenever that is needed.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Mutex,
    time::{Instant, Sleep, sleep},
};
use tonic::body::Body;

use crate::{
    Identity, Workload,
    tls::{self, Age, Connector},
};

/// Before each further attempt to connect: a handshake that meets a rotation fails and then works. The first has no pause, not
/// even one of nothing, which takes a timer a millisecond.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const HEADERS: u32 = 64 * 1024;
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Makes connections to the replicas of one service.
pub(crate) struct Dialler {
    identity: Identity,
    server: Workload,
    connector: OnceLock<Connector>,
}

/// The connection to one of them, made when it is first asked for.
pub(crate) struct Connection {
    dialler: Arc<Dialler>,
    address: Arc<str>,
    state: Mutex<State>,
    /// Connections up to this number get no more calls.
    discarded: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Counts the connections.
    number: u64,
    open: Option<Open>,
    /// The last failure to connect, for those who waited for the same attempt.
    failed: Option<(Instant, Arc<tls::Error>)>,
}

struct Open {
    sender: http2::SendRequest<Body>,
    /// From then on a new one takes its place.
    renew: Instant,
}

impl Dialler {
    pub(crate) fn new(identity: &Identity, server: Workload) -> Self {
        Self { identity: identity.clone(), server, connector: OnceLock::new() }
    }

    /// A redial helps where a handshake met a rotation; where nobody listens, or nobody answers, it only takes time.
    async fn dial(&self, address: &str) -> Result<Open, tls::Error> {
        for pause in PAUSES {
            match self.dial_once(address).await {
                Err(error) if !(error.is_absence() || matches!(error, tls::Error::Timeout)) => sleep(pause).await,
                ended => return ended,
            }
        }
        self.dial_once(address).await
    }

    async fn dial_once(&self, address: &str) -> Result<Open, tls::Error> {
        let (stream, expires) = self.connector()?.connect(address, &self.server).await?;
        let age = Age::until(expires);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(HEADERS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .handshake(TokioIo::new(Ending { stream, end: Box::pin(sleep(age.left)) }))
            .await
            .map_err(io::Error::other)?;
        let server = self.server.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn std::error::Error, mesh.server = %server, "A connection broke");
            }
        });
        Ok(Open { sender, renew: Instant::now() + age.client() })
    }

    /// Made at the first call, since it needs a runtime.
    fn connector(&self) -> Result<&Connector, tls::Error> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector);
        }
        let id = self.server.spiffe_id(self.identity.trust_domain(), self.identity.namespace());
        let connector = Connector::new(&self.identity, id.ok_or(tls::Error::NoSvid)?)?;
        Ok(self.connector.get_or_init(|| connector))
    }
}

impl Connection {
    pub(crate) fn new(dialler: Arc<Dialler>, address: Arc<str>) -> Self {
        Self { dialler, address, state: Mutex::default(), discarded: AtomicU64::new(0) }
    }

    /// The present connection and its number, or a new one: always that if it must be `fresh`. Whoever comes while it is
    /// being made waits for it.
    ///
    /// This side makes a new one before the server asks for it, so that a GOAWAY seldom meets a call, and ends the connection
    /// when the first of the two SVIDs expires.
    pub(crate) async fn sender(&self, fresh: bool) -> Result<(u64, http2::SendRequest<Body>), Arc<tls::Error>> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        let discarded = state.number <= self.discarded.load(Ordering::Acquire);
        let usable = |open: &&Open| !fresh && !discarded && !open.sender.is_closed() && Instant::now() < open.renew;
        if let Some(open) = state.open.as_ref().filter(usable) {
            return Ok((state.number, open.sender.clone()));
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(Arc::clone(error));
        }
        let number = state.number + 1;
        match self.dialler.dial(&self.address).await {
            Ok(open) => {
                let sender = open.sender.clone();
                *state = State { number, open: Some(open), failed: None };
                Ok((number, sender))
            }
            Err(error) => {
                let error = Arc::new(error);
                *state = State { number, open: None, failed: Some((Instant::now(), Arc::clone(&error))) };
                Err(error)
            }
        }
    }

    /// Nothing new is sent on that connection; what was sent is finished.
    pub(crate) fn discard(&self, number: u64) {
        self.discarded.fetch_max(number, Ordering::AcqRel);
    }
}

/// A stream that breaks when its time is over, whoever still holds on to it: hyper lets a connection that it was told to
/// drop go on for as long as there are calls on it.
struct Ending<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Ending<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            let error =
                io::Error::new(io::ErrorKind::TimedOut, "the SVIDs that the connection was made with have expired");
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ending<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
