//! The one port's handler: what it holds, its layers, and where a request goes.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use contracts::Passthrough;
use http::{HeaderValue, Method, StatusCode, header};
use ids::Source;
use mesh::token::Verifier;
use status::Reason;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    access_log, admission,
    config::Config,
    cors,
    exchange::Exchange,
    freshness, grpc, guard,
    limit::Limiter,
    problem::{self, Failure},
    proxy, rest,
    transcode::{Limit, Match, Routed, Rpc, Table},
    upstream::Upstreams,
    web::Pages,
};

/// What handling a request needs.
pub(crate) struct Gateway {
    pub(crate) config: Arc<Config>,
    pub(crate) source: Source,
    pub(crate) table: Table,
    pub(crate) upstreams: Upstreams,
    pub(crate) verifier: Verifier,
    pub(crate) limiter: Limiter,
    pub(crate) pages: Pages,
    /// The edge's own gRPC services: health and reflection.
    pub(crate) own: grpc::Own,
}

/// The handler with its layers.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let layers = ServiceBuilder::new()
        // Outermost: a span and metrics per request, whatever becomes of it.
        .layer(telemetry::ServerLayer::new(crate::NAME))
        // Every answer has a request id and a line in the log, which carries the span's trace id.
        .layer(from_fn_with_state(Arc::clone(&gateway), access_log::record))
        // Outside of what writes or compresses bodies: to HEAD, a problem too comes without one.
        .layer(from_fn(guard::without_head_body))
        // Outside of all that can fail: writes the body of any problem that comes out.
        .layer(from_fn(problem::render))
        .layer(from_fn(guard::harden))
        .layer(CatchPanicLayer::custom(problem::panicked))
        // The CORS layer takes every OPTIONS for a preflight.
        .layer(from_fn_with_state(Arc::clone(&gateway), plain_options))
        // Browsers must be able to read problems too, so outside of what refuses.
        .layer(cors::layer(&gateway.config.cors))
        // Outside of compression, since only there is known whether an entity tag is still exact.
        .layer(from_fn(freshness::weaken))
        .layer(freshness::compression())
        // The last thing before any work: what is too large is refused unread.
        .layer(from_fn_with_state(Arc::clone(&gateway), guard::measure));
    Router::new().fallback(dispatch).with_state(gateway).layer(layers)
}

/// Answers an OPTIONS that is no preflight, and so a question about the address itself. What follows does not see it.
async fn plain_options(
    gateway: State<Arc<Gateway>>,
    exchange: Extension<Exchange>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() != Method::OPTIONS || request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return next.run(request).await;
    }
    match guard::refusal(&gateway.config.request, &request) {
        Some(refusal) => refusal,
        None => dispatch(gateway, exchange, request).await,
    }
}

async fn dispatch(
    State(gateway): State<Arc<Gateway>>,
    Extension(exchange): Extension<Exchange>,
    request: Request,
) -> Response {
    let mut response = match grpc::Kind::of(request.headers()) {
        Some(kind) => grpc::handle(gateway, exchange.clone(), kind, request).await,
        None => http(gateway, exchange.clone(), request).await.unwrap_or_else(IntoResponse::into_response),
    };
    response.extensions_mut().insert(telemetry::Route(exchange.route().into()));
    response
}

async fn http(gateway: Arc<Gateway>, exchange: Exchange, request: Request) -> Result<Response, Failure> {
    match Destination::of(&gateway, request.method(), request.uri().path()) {
        Destination::Page => {
            exchange.routed("page");
            admission::address(&gateway, Limit::Read, &exchange).await?;
            gateway.pages.answer(request.uri().path(), request.headers()).ok_or_else(|| Reason::RouteNotFound.into())
        }
        Destination::Passthrough(passthrough) => proxy::handle(gateway, exchange, passthrough, request).await,
        Destination::Rpc(matched) => rest::handle(gateway, exchange, *matched, request).await,
        Destination::OtherMethods(allow) => {
            admission::address(&gateway, Limit::Read, &exchange).await?;
            if request.method() == Method::OPTIONS {
                return Ok((StatusCode::NO_CONTENT, [(header::ALLOW, allow)]).into_response());
            }
            Err(Failure::from(Reason::MethodNotAllowed).header(header::ALLOW, allow))
        }
        Destination::Nowhere => {
            admission::address(&gateway, Limit::Read, &exchange).await?;
            Err(Reason::RouteNotFound.into())
        }
    }
}

/// Where a request goes that is not gRPC.
enum Destination {
    Page,
    Passthrough(&'static Passthrough),
    Rpc(Box<Match>),
    /// The path exists with these methods.
    OtherMethods(HeaderValue),
    Nowhere,
}

impl Destination {
    fn of(gateway: &Gateway, method: &Method, path: &str) -> Self {
        if gateway.pages.has(path) {
            return if matches!(*method, Method::GET | Method::HEAD) {
                Self::Page
            } else {
                Self::other_methods(["GET"])
            };
        }
        if let Some(passthrough) = proxy::find(path) {
            return if passthrough.allows(method.as_str()) {
                Self::Passthrough(passthrough)
            } else {
                Self::other_methods(passthrough.methods.iter().copied())
            };
        }
        match gateway.table.route(method, path) {
            Routed::Found(matched) if is_exposed(matched.rpc()) => Self::Rpc(Box::new(matched)),
            Routed::MethodNotAllowed { allow } => Self::other_methods(allow.iter().map(Method::as_str)),
            Routed::Found(_) | Routed::NotFound => Self::Nowhere,
        }
    }

    /// HEAD goes where GET does, and OPTIONS everywhere.
    fn other_methods<'a>(methods: impl IntoIterator<Item = &'a str>) -> Self {
        let mut allow: BTreeSet<&str> = methods.into_iter().collect();
        if allow.contains("GET") {
            allow.insert("HEAD");
        }
        allow.insert("OPTIONS");
        let allow = allow.into_iter().collect::<Vec<_>>().join(", ");
        Self::OtherMethods(HeaderValue::try_from(allow).expect("methods are visible ASCII"))
    }
}

/// Whether the contract names the edge as a caller. `*` does not: it means workloads, which call each other without the edge.
pub(crate) fn is_exposed(rpc: &Rpc) -> bool {
    rpc.access.as_ref().is_some_and(|access| access.workloads.iter().any(|workload| workload == crate::NAME))
}
