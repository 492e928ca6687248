//! Serves gRPC and HTTP over mutual TLS with this process's SVID.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::Route,
};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use status::{Problem, Reason};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, server::NamedService};
use tower::{Layer, Service};

use crate::{
    Authorizer, Identity, Peer,
    layer::{cut_off::is_grpc, deadline, framing},
    parting::Parting,
    tls::{Acceptor, Age},
};

pub use crate::tls::Error;

/// Handshakes at the same time; the next connection waits to be accepted.
const HANDSHAKES: usize = 64;
/// Connections at the same time; the next one waits to be accepted.
const CONNECTIONS: usize = 4096;
/// Calls at the same time on one connection.
const STREAMS: u32 = 1024;
/// Bytes of a request's headers: room for a token of 16 KiB.
const HEADERS: u32 = 64 * 1024;
/// How long a connection may be silent before it is asked for a sign of life, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a client may take to say something on a connection that has to end.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// Memory that one call may fill before its reader must catch up.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// A server that trusts nobody without an SVID of its trust domain, and lets its [`Authorizer`] decide about each call.
///
/// A connection does not outlive the SVIDs that it was made with: at half of what they have left a client that has not made
/// a new one by itself is told to (GOAWAY, which loses no call), and when the first of them expires it is closed.
pub struct Server {
    identity: Identity,
    authorizer: Authorizer,
    routes: tonic::service::Routes,
    layers: Vec<Box<dyn FnOnce(Router) -> Router + Send>>,
}

impl Server {
    /// A server without any service yet.
    pub fn new(identity: Identity, authorizer: Authorizer) -> Self {
        Self { identity, authorizer, routes: Router::new().into(), layers: Vec::new() }
    }

    /// Adds a generated gRPC service.
    #[must_use]
    pub fn grpc<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<tonic::body::Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.routes = self.routes.add_service(service);
        self
    }

    /// Adds HTTP paths: those that the contract passes through to this service. Others are refused before they get here.
    #[must_use]
    pub fn http(mut self, router: Router) -> Self {
        self.routes = self.routes.into_axum_router().merge(router).into();
        self
    }

    /// Wraps everything else, refusals included: for traces and metrics. What is added later is further out.
    #[must_use]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.layers.push(Box::new(move |router| router.layer(layer)));
        self
    }

    /// Serves until `drain`. Then it accepts nothing more and tells every client to go elsewhere, and returns when the
    /// calls in flight are over, or when `kill` ends them: an open stream would hold it for ever.
    pub async fn serve(
        self,
        listener: TcpListener,
        drain: CancellationToken,
        kill: CancellationToken,
    ) -> Result<(), Error> {
        let acceptor = Acceptor::new(self.identity.clone())?;
        let router = self.router();
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let tasks = TaskTracker::new();

        let accepting = async {
            loop {
                let connection = permit(&connections).await;
                let handshake = permit(&handshakes).await;
                let Some(tcp) = accept(&listener).await else { continue };
                let (acceptor, router) = (acceptor.clone(), router.clone());
                let (drain, kill) = (drain.clone(), kill.clone());
                tasks.spawn(async move {
                    let accepted = drain.run_until_cancelled(acceptor.accept(tcp)).await;
                    drop(handshake);
                    match accepted {
                        Some(Ok((stream, peer, expires))) => {
                            let age = Age::until(expires);
                            serve_connection(stream, peer, router, age, &drain, &kill).await;
                        }
                        Some(Err(error)) => {
                            tracing::info!(error = &error as &dyn std::error::Error, "A connection was refused");
                        }
                        None => {}
                    }
                    drop(connection);
                });
            }
        };
        drain.run_until_cancelled(accepting).await;
        drop(listener);
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    /// Outermost first: what the caller added; a panic becomes INTERNAL; the deadline, so that judging a call counts too;
    /// authorization; the frames of what comes in; the services.
    fn router(self) -> Router {
        let authorize = from_fn_with_state(self.authorizer, Authorizer::layer);
        let router = self.routes.prepare().into_axum_router().fallback(nothing_here);
        let router = router.layer(from_fn(framing::check)).layer(authorize);
        let router = router.layer(from_fn(deadline::serve)).layer(from_fn(catch_panic));
        self.layers.into_iter().fold(router, |router, layer| layer(router))
    }
}

/// The answer to a request that is refused: a gRPC status to a gRPC request, else a problem (RFC 9457). `headers` are the
/// request's.
pub fn refusal(headers: &HeaderMap, problem: Problem) -> Response {
    if is_grpc(headers) {
        return Status::from(problem).into_http();
    }
    let reason = problem.reason();
    let body = serde_json::json!({
        "title": reason.title(),
        "status": reason.http_status(),
        "detail": problem.text(),
        "reason": reason.name(),
    });
    // Logs the cause, as every refusal does.
    drop(Status::from(problem));
    let mut answer = Response::new(Body::from(body.to_string()));
    *answer.status_mut() = StatusCode::from_u16(reason.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

async fn nothing_here(request: Request) -> Response {
    refusal(request.headers(), Problem::new(Reason::RouteNotFound))
}

async fn catch_panic(request: Request, next: Next) -> Response {
    let headers = request.headers().clone();
    let path = request.uri().path().to_owned();
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answer.unwrap_or_else(|_| refusal(&headers, Problem::new(Reason::Internal).because(format!("{path} panicked"))))
}

async fn permit(semaphore: &Arc<Semaphore>) -> tokio::sync::OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_owned().await.expect("never closed")
}

async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((tcp, _)) => {
            // A failure only costs latency.
            let _ = tcp.set_nodelay(true);
            Some(tcp)
        }
        Err(error) => {
            // Most likely out of file descriptors: others must end first.
            tracing::warn!(%error, "A connection could not be accepted");
            sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn serve_connection(
    stream: TlsStream<TcpStream>,
    peer: Peer,
    router: Router,
    age: Age,
    drain: &CancellationToken,
    kill: &CancellationToken,
) {
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().call(request)
    });
    let (stream, first_word) = Parting::new(stream);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = drain.cancelled() => None,
        () = sleep(age.server()) => None,
    };
    if ended.is_none() {
        // hyper closes a connection without a word that it has not heard from yet, though a request may be on its way.
        ended = tokio::select! {
            biased;
            _ = first_word => None,
            ended = connection.as_mut() => Some(ended),
            () = kill.cancelled() => None,
            () = sleep(FIRST_WORD) => None,
        };
    }
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = kill.cancelled() => None,
            () = sleep(age.left.saturating_sub(age.server())) => None,
        };
    }
    if let Some(Err(error)) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "A connection broke");
    }
}
