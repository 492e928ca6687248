use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::gate::Gates;

/// Pause after a failed accept: it fails again at once while the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Shown {
    gates: Gates,
    metrics: Metrics,
}

/// What the port may cost, whoever finds it.
#[derive(Clone, Copy)]
struct Bounds {
    /// Open connections. A further one waits in the kernel's backlog.
    connections: usize,
    /// How long one may last. It has one request, and every answer is at hand.
    time: Duration,
}

const BOUNDS: Bounds = Bounds { connections: 64, time: Duration::from_secs(10) };

/// Serves the admin port: plain HTTP, because a kubelet has no SVID. It says nothing that is secret.
pub(crate) async fn serve(
    listener: TcpListener,
    gates: Gates,
    metrics: Metrics,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(exposition))
        .with_state(Shown { gates, metrics });
    accept(listener, routes, BOUNDS, stop).await;
}

/// Serves one request on each connection until `stop`, and then lets those that are open end.
async fn accept(listener: TcpListener, routes: Router, bounds: Bounds, stop: impl Future<Output = ()>) {
    let (free, connections) = (Arc::new(Semaphore::new(bounds.connections)), TaskTracker::new());
    let accepting = async {
        loop {
            let permit = Arc::clone(&free).acquire_owned().await.expect("the semaphore is never closed");
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes.clone()));
            connections.spawn(async move {
                let _held = permit;
                let _whoever_asked_has_left_or_is_too_slow = timeout(bounds.time, connection).await;
            });
        }
    };
    tokio::select! {
        () = stop => {}
        () = accepting => {}
    }
    connections.close();
    connections.wait().await;
}

/// 200, or 503 with the gates that are not ready and why.
async fn readiness(State(Shown { gates, .. }): State<Shown>) -> Response {
    let unready = gates.unready();
    let status = if unready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({ "ready": unready.is_empty(), "unready": unready }))).into_response()
}

/// Prometheus' text format.
async fn exposition(State(Shown { metrics, .. }): State<Shown>) -> Response {
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn answer(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.expect("the port closes it").expect("text");
        answer
    }

    #[tokio::test]
    async fn slow_connections_are_closed_and_more_than_the_most_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let routes = Router::new().route("/healthz", get(|| async { "ok\n" }));
        let bounds = Bounds { connections: 1, time: Duration::from_millis(300) };
        let serving = tokio::spawn(accept(listener, routes, bounds, async {
            let _ = stopped.await;
        }));

        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-slow: ").await.unwrap();
        let mut waiting = TcpStream::connect(address).await.unwrap();
        waiting.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let first = timeout(bounds.time / 3, waiting.readable()).await;
        assert!(first.is_err(), "there is room for one");
        assert_eq!(answer(slow).await, "");
        let answered = answer(waiting).await;
        assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with("ok\n"), "{answered}");

        stop.send(()).unwrap();
        timeout(SOON, serving).await.expect("it ends").unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
