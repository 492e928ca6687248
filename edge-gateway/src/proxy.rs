//! The paths that the contract passes through, unread, to their owner's own HTTP router.

use std::sync::Arc;

use axum::{body::Body, extract::Request, response::Response};
use contracts::{LimitClass, PASSTHROUGHS, Passthrough};
use http::Uri;
use status::Problem;
use tower::ServiceExt;

use crate::{
    admission,
    body::{self, Outcome, Received},
    deadline::Deadline,
    exchange::Exchange,
    gateway::Gateway,
    headers,
    problem::Failure,
    transcode::Limit,
};

/// The declaration of an exact path. A path for every workload is one for everybody.
pub(crate) fn find(path: &str) -> Option<&'static Passthrough> {
    PASSTHROUGHS.iter().find(|passthrough| {
        passthrough.path == path && passthrough.workloads.iter().any(|workload| matches!(*workload, crate::NAME | "*"))
    })
}

pub(crate) async fn handle(
    gateway: Arc<Gateway>,
    exchange: Exchange,
    passthrough: &Passthrough,
    request: Request,
) -> Result<Response, Failure> {
    exchange.routed(passthrough.path);
    let grant = admission::address(&gateway, class(passthrough), &exchange).await?;
    let deadline = Deadline::of_passthrough(&gateway.config.deadline);
    let (forwarded, received) = forward(request, &exchange, &gateway)?;
    let call = async {
        let channel = gateway.upstreams.channel(passthrough.owner).await?;
        channel.oneshot(forwarded).await.map_err(|status| Problem::from(&status))
    };
    let response = deadline.bound(call).await.map_err(|problem| received.error().map_or(problem, Problem::from))?;
    let (mut parts, body) = response.into_parts();
    parts.headers = headers::end_to_end(&parts.headers);
    headers::without_internal(&mut parts.headers);
    grant.write(&mut parts.headers);
    Ok(Response::from_parts(parts, Body::new(body)))
}

fn class(passthrough: &Passthrough) -> Limit {
    match passthrough.limit {
        LimitClass::Read => Limit::Read,
        LimitClass::Write => Limit::Write,
        LimitClass::Search => Limit::Search,
        LimitClass::Credential => Limit::Credential,
        LimitClass::Bulk => Limit::Bulk,
    }
}

fn forward(
    request: Request,
    exchange: &Exchange,
    gateway: &Gateway,
) -> Result<(http::Request<tonic::body::Body>, Outcome), Failure> {
    let (parts, body) = request.into_parts();
    body::check_length(&parts.headers, gateway.config.request.body_bytes as u64)?;
    let received = Received::new(body, gateway.config.request.body_bytes as u64, gateway.config.request.body_idle);
    let outcome = received.outcome();
    let mut forwarded = http::Request::new(tonic::body::Body::new(received));
    *forwarded.method_mut() = parts.method;
    *forwarded.uri_mut() = relative(&parts.uri);
    *forwarded.headers_mut() = headers::forwarded(&parts.headers, exchange);
    Ok((forwarded, outcome))
}

/// Path and query alone: which host the client named is no concern of the service.
fn relative(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from)
}
