//! Native gRPC, forwarded as it comes, and gRPC-Web, translated to it. Messages are not looked into.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Version, header};
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use status::{Problem, Reason};
use tonic::{Status, service::Routes};
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    admission,
    body::Received,
    deadline::Deadline,
    exchange::Exchange,
    gateway::{Gateway, is_exposed},
    headers,
    problem::Failure,
    transcode::{Limit, Rpc, Table},
    upstream,
};

/// The two ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Native,
    Web,
}

impl Kind {
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let subtype = headers.get(header::CONTENT_TYPE)?.as_bytes().strip_prefix(b"application/grpc")?;
        match subtype {
            [] | [b'+' | b';', ..] => Some(Self::Native),
            // What tonic-web translates. It would let anything else through as it is.
            b"-web" | b"-web+proto" | b"-web-text" | b"-web-text+proto" => Some(Self::Web),
            _ => None,
        }
    }

    /// A refusal before anything else was looked at. Its status stands among the headers, where gRPC-Web takes it too.
    pub(crate) fn refuse(self, problem: Problem) -> Response {
        let mut response = Status::from(problem).into_http();
        if self == Self::Web {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc-web+proto"));
        }
        response
    }
}

pub(crate) async fn handle(gateway: Arc<Gateway>, exchange: Exchange, kind: Kind, request: Request) -> Response {
    if request.method() != http::Method::POST {
        return Failure::from(Reason::MethodNotAllowed)
            .header(header::ALLOW, HeaderValue::from_static("POST"))
            .into_response();
    }
    if kind == Kind::Native && request.version() < Version::HTTP_2 {
        return Failure::from(
            Problem::new(Reason::MalformedRequest).message("gRPC needs HTTP/2. Over HTTP/1.1 use gRPC-Web."),
        )
        .into_response();
    }
    let call = service_fn(|request| {
        let (gateway, exchange) = (Arc::clone(&gateway), exchange.clone());
        async move { Ok::<_, Infallible>(call(gateway, exchange, request).await) }
    });
    let answer = match kind {
        Kind::Native => call.oneshot(request.map(tonic::body::Body::new)).await,
        Kind::Web => GrpcWebLayer::new().layer(call).oneshot(request).await,
    };
    match answer {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

type Answer = http::Response<tonic::body::Body>;

async fn call(gateway: Arc<Gateway>, exchange: Exchange, request: http::Request<tonic::body::Body>) -> Answer {
    let path = request.uri().path().to_owned();
    let rpc = gateway.table.rpc(&path).filter(|rpc| is_exposed(rpc));
    let answer = match rpc {
        Some(rpc) => {
            exchange.routed(rpc.path.path());
            forward(&gateway, &exchange, rpc, request).await
        }
        None => gateway.own.answer(&gateway, &exchange, request).await,
    };
    answer.unwrap_or_else(|failure| {
        let mut response = Status::from(failure.into_problem()).into_http();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    })
}

async fn forward(
    gateway: &Gateway,
    exchange: &Exchange,
    rpc: &Rpc,
    request: http::Request<tonic::body::Body>,
) -> Result<Answer, Failure> {
    let limits = &gateway.config.request;
    let (parts, body) = request.into_parts();
    let admitted = admission::admit(gateway, rpc, &parts.headers, exchange).await?;
    let deadline = Deadline::of_grpc(&parts.headers, rpc, &gateway.config.deadline)?;
    let end = deadline.within_token(admitted.user(), gateway);
    let mut headers = headers::grpc(&parts.headers, rpc, exchange);
    admitted.introduce(&mut headers);
    let most = if rpc.client_streaming { limits.stream_bytes } else { limits.body_bytes as u64 };
    let received = Received::new(
        Body::new(body),
        most,
        if rpc.client_streaming { gateway.config.deadline.stream } else { limits.body_idle },
    );
    let outcome = received.outcome();
    let mut forwarded = http::Request::new(tonic::body::Body::new(received));
    *forwarded.method_mut() = parts.method;
    *forwarded.uri_mut() = rpc.path.clone().into();
    *forwarded.headers_mut() = headers;
    let call = async {
        let channel = gateway.upstreams.channel(upstream::owner(rpc)).await?;
        channel.oneshot(forwarded).await.map_err(|status| Problem::from(&status))
    };
    let answer = deadline.bound(call).await.map_err(|problem| outcome.error().map_or(problem, Problem::from))?;
    let (mut parts, body) = answer.into_parts();
    parts.headers = headers::end_to_end(&parts.headers);
    headers::without_internal(&mut parts.headers);
    hide_internals(&mut parts.headers);
    admitted.write(&mut parts.headers);
    Ok(http::Response::from_parts(parts, end.bound_body(body)))
}

/// Replaces the text of an INTERNAL or UNKNOWN status: it may come from a library and tell what is inside.
pub(crate) fn hide_internals(trailers: &mut HeaderMap) {
    let Some(status) = Status::from_header_map(trailers) else { return };
    if !matches!(status.code(), tonic::Code::Internal | tonic::Code::Unknown) {
        return;
    }
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        trailers.remove(name);
    }
    // Reading the problem drops foreign text, and keeps what our own services said.
    if Status::from(Problem::from(&status)).add_header(trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
}

/// The services that the edge itself answers: health, and reflection of what can be called through it.
pub(crate) struct Own {
    routes: Routes,
    health: HealthReporter,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the contracts cannot be reflected")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the contracts' descriptors cannot be read")]
    Descriptors(#[from] prost::DecodeError),
}

impl Own {
    pub(crate) fn new(table: &Table) -> Result<Self, Error> {
        let descriptors = routable(FileDescriptorSet::decode(contracts::DESCRIPTOR_SET)?, table);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_file_descriptor_set(descriptors.clone())
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let (health, health_service) = tonic_health::server::health_reporter();
        let routes = Routes::new(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        Ok(Self { routes, health })
    }

    /// What `grpc.health.v1` says of the edge as a whole.
    pub(crate) async fn serving(&self, serving: bool) {
        let status =
            if serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
        self.health.set_service_status("", status).await;
    }

    async fn answer(
        &self,
        gateway: &Gateway,
        exchange: &Exchange,
        request: http::Request<tonic::body::Body>,
    ) -> Result<Answer, Failure> {
        admission::address(gateway, Limit::Read, exchange).await?;
        if !request.uri().path().starts_with("/grpc.") {
            return Err(Reason::RouteNotFound.into());
        }
        exchange.routed("grpc");
        let answer = self.routes.clone().oneshot(request).await;
        Ok(match answer {
            Ok(response) => response,
            Err(never) => match never {},
        })
    }
}

/// What the details of any error are made of: clients that learn types by reflection show them by it.
const ERROR_DETAILS: &str = "google/rpc/error_details.proto";

/// The descriptors with the methods that the edge forwards, the services that have one, and the files that these and errors
/// need.
fn routable(mut descriptors: FileDescriptorSet, table: &Table) -> FileDescriptorSet {
    for file in &mut descriptors.file {
        let package = file.package().to_owned();
        for service in &mut file.service {
            let name = format!("{package}.{}", service.name());
            service
                .method
                .retain(|method| table.rpc(&format!("/{name}/{}", method.name())).is_some_and(|rpc| is_exposed(rpc)));
        }
        file.service.retain(|service| !service.method.is_empty());
    }
    let mut needed = vec![ERROR_DETAILS.to_owned()];
    needed.extend(descriptors.file.iter().filter(|file| !file.service.is_empty()).map(|file| file.name().to_owned()));
    let mut next = 0;
    while let Some(name) = needed.get(next).cloned() {
        next += 1;
        let dependencies = descriptors.file.iter().filter(|file| file.name() == name).flat_map(|file| &file.dependency);
        let new: Vec<String> = dependencies.filter(|dependency| !needed.contains(dependency)).cloned().collect();
        needed.extend(new);
    }
    descriptors.file.retain(|file: &FileDescriptorProto| needed.iter().any(|name| name == file.name()));
    descriptors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_media_types_are_grpc() {
        let kind = |media_type: &'static str| {
            Kind::of(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))]))
        };
        assert_eq!(kind("application/grpc"), Some(Kind::Native));
        assert_eq!(kind("application/grpc+proto"), Some(Kind::Native));
        assert_eq!(kind("application/grpc-web+proto"), Some(Kind::Web));
        assert_eq!(kind("application/grpc-web-text"), Some(Kind::Web));
        for other in ["application/grpcfoo", "application/grpc-web+json", "application/grpc-webbing"] {
            assert_eq!(kind(other), None, "{other}");
        }
        assert_eq!(kind("application/json"), None);
    }

    #[test]
    fn the_text_of_an_internal_status_is_hidden_and_another_kept() {
        let hidden = |code: &'static str| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(code));
            trailers.insert("grpc-message", HeaderValue::from_static("relation%20posts%20does%20not%20exist"));
            hide_internals(&mut trailers);
            (
                trailers["grpc-status"].clone(),
                trailers.get("grpc-message").is_some_and(|text| text.as_bytes().starts_with(b"relation")),
            )
        };
        assert_eq!(hidden("13"), (HeaderValue::from_static("13"), false));
        assert!(!hidden("2").1);
        assert_eq!(hidden("5"), (HeaderValue::from_static("5"), true));
    }
}
