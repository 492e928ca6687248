use std::future::Future;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use telemetry::Metrics;
use tokio::net::TcpListener;

use crate::BoxError;
use crate::gate::Gates;

#[derive(Clone)]
struct Shown {
    gates: Gates,
    metrics: Metrics,
}

/// Serves the admin port: plain HTTP, because a kubelet has no SVID. It says nothing that is secret.
pub(crate) async fn serve(
    listener: TcpListener,
    gates: Gates,
    metrics: Metrics,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), BoxError> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(exposition))
        .with_state(Shown { gates, metrics });
    Ok(axum::serve(listener, routes).with_graceful_shutdown(stop).await?)
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
