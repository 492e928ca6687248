use std::{
    fmt,
    net::SocketAddr,
    str::FromStr,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use contracts::PASSTHROUGHS;
use futures_util::{TryFutureExt, future::BoxFuture};
use http::{Request, Response, Uri, header::AUTHORIZATION, uri::PathAndQuery};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use status::{Problem, Reason};
use telemetry::{ClientLayer, Observed};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    Identity, Workload,
    layer::{cut_off::cut_off, deadline, replay::Replay},
    tls::{self, Connector},
};

/// Attempts to connect, with these pauses before each: a handshake that meets a rotation fails and then works.
const ATTEMPTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(100)];
/// Connections that one call may be turned away by.
const SENDS: usize = 4;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const HEADERS: u32 = 64 * 1024;
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Where a service listens: `host:port`. A name is looked up at each connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address(Arc<str>);

/// The text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not host:port")]
pub struct NotAnAddress(String);

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let authority = text.parse::<http::uri::Authority>().ok();
        let complete = authority.is_some_and(|authority| {
            authority.port_u16().is_some() && !authority.host().is_empty() && !text.contains('@')
        });
        if complete { Ok(Self(text.into())) } else { Err(NotAnAddress(text.to_owned())) }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Calls to one service: the transport of its generated clients. Cheap to clone; clones share one connection.
///
/// It connects at the first call, and again when the connection has ended: the server closes each before its SVID
/// expires. A call that the server has provably not looked at goes onto a new connection, whatever it is; any other is
/// not repeated here.
#[derive(Clone)]
pub struct Channel(Observed<Transport>);

#[derive(Clone)]
struct Transport(Arc<Connection>);

struct Connection {
    identity: Identity,
    server: Workload,
    address: Address,
    connector: OnceLock<Connector>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts the connections.
    number: u64,
    sender: Option<http2::SendRequest<Body>>,
    /// The last failure to connect, for those who waited for the same attempt.
    failed: Option<(Instant, Arc<tls::Error>)>,
}

/// Calls `server` at `address`. The server must show exactly that workload's SPIFFE ID. Nothing is dialled yet.
///
/// From the outside in: a span and measurements per call; the deadline; the connection.
pub fn connect(identity: &Identity, server: Workload, address: Address) -> Channel {
    let observed = ClientLayer::new(identity.workload().as_str(), server.as_str());
    let transport = Transport(Arc::new(Connection {
        identity: identity.clone(),
        server,
        address,
        connector: OnceLock::new(),
        state: Mutex::default(),
    }));
    Channel(observed.layer(transport))
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.call(request).map_ok(|answer| answer.map(Body::new)))
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = Arc::clone(&self.0);
        Box::pin(async move { connection.call(request).await.map_err(Status::from) })
    }
}

impl Connection {
    async fn call(&self, mut request: Request<Body>) -> Result<Response<Body>, Problem> {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        if !carries_token(path.path()) {
            request.headers_mut().remove(AUTHORIZATION);
        }
        let deadline = deadline::stamp(path.path(), request.headers_mut())?;
        *request.uri_mut() = self.uri(path)?;
        let Some(deadline) = deadline else { return Ok(self.send(request).await?.map(Body::new)) };
        match timeout_at(deadline, self.send(request)).await {
            Ok(answer) => Ok(cut_off(answer?, deadline::at(deadline)).map(Body::new)),
            Err(_) => Err(Problem::new(Reason::DeadlineExceeded)),
        }
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Problem> {
        let (parts, body) = request.into_parts();
        let body = Replay::new(body);
        let mut refused = None;
        for _ in 0..SENDS {
            let Some(attempt) = body.attempt() else { break };
            let (number, mut sender) = self.sender().await.map_err(unavailable)?;
            match sender.send_request(Request::from_parts(parts.clone(), Body::new(attempt))).await {
                Ok(answer) => return Ok(answer.map(|body| Body::new(body.map_err(broken)))),
                Err(error) if never_processed(&error) => refused = Some(error),
                Err(error) => return Err(unavailable(error)),
            }
            self.discard(number).await;
        }
        Err(unavailable(refused.expect("the first attempt is always possible")))
    }

    /// The present connection and its number, or a new one. Whoever comes while it is being made waits for it.
    async fn sender(&self) -> Result<(u64, http2::SendRequest<Body>), Arc<tls::Error>> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(sender) = state.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok((state.number, sender.clone()));
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(Arc::clone(error));
        }
        let number = state.number + 1;
        match self.dial().await {
            Ok(sender) => {
                *state = State { number, sender: Some(sender.clone()), failed: None };
                Ok((number, sender))
            }
            Err(error) => {
                let error = Arc::new(error);
                *state = State { number, sender: None, failed: Some((Instant::now(), Arc::clone(&error))) };
                Err(error)
            }
        }
    }

    /// Nothing new is sent on that connection; what was sent is finished.
    async fn discard(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.number == number {
            state.sender = None;
        }
    }

    async fn dial(&self) -> Result<http2::SendRequest<Body>, tls::Error> {
        let mut failed = None;
        for pause in ATTEMPTS {
            sleep(pause).await;
            match self.dial_once().await {
                Ok(sender) => return Ok(sender),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("there is at least one attempt"))
    }

    async fn dial_once(&self) -> Result<http2::SendRequest<Body>, tls::Error> {
        let stream = self.connector()?.connect(&self.address.0, &self.server).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(HEADERS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        let server = self.server.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn std::error::Error, mesh.server = %server, "A connection broke");
            }
        });
        Ok(sender)
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

    fn uri(&self, path: PathAndQuery) -> Result<Uri, Problem> {
        let uri = Uri::builder().scheme("https").authority(&*self.address.0).path_and_query(path).build();
        uri.map_err(|error| Problem::new(Reason::Internal).because(error))
    }
}

/// A person's token goes on where the contract wants it looked at, and on paths that are passed through unread.
fn carries_token(path: &str) -> bool {
    match contracts::method(path) {
        Some(method) => method.access.user != contracts::User::WorkloadOnly,
        None => PASSTHROUGHS.iter().any(|passthrough| passthrough.path == path),
    }
}

/// Whether the server has provably not looked at the request: it was still here when the connection ended, or the server
/// said with its GOAWAY that it would take no more (RFC 9113, section 6.8).
fn never_processed(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    let turned_away = source
        .is_some_and(|error| error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR));
    error.is_canceled() || turned_away
}

fn unavailable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Problem {
    Problem::new(Reason::Unavailable).because(cause)
}

/// An answer that breaks off was begun, so it is not known what has happened.
fn broken(error: hyper::Error) -> Status {
    unavailable(error).into()
}
