use std::sync::Arc;
use std::time::Instant;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, Method, Request, Response, header};
use metrics::{Gauge, Label};
use tonic::{Code, Status};
use tracing::{Span, field};

use super::Route;
use super::side::{Rpc, Side};
use crate::trace;

/// What travels.
#[derive(Debug, Clone)]
enum Protocol {
    Grpc { rpc: Arc<Rpc>, code: Option<Code>, web: Option<Web> },
    Http { method: &'static str, route: Arc<str>, status: Option<u16> },
}

/// How gRPC-Web writes its frames.
#[derive(Debug, Clone, Copy)]
enum Web {
    Binary,
    /// In base64.
    Text,
}

/// One call, from its request to the end of its answer; measured when it is dropped.
pub(super) struct Call {
    side: Side,
    protocol: Protocol,
    span: Span,
    started: Instant,
    in_flight: Gauge,
}

impl Call {
    pub(super) fn start<B>(side: &Side, request: &Request<B>) -> Self {
        let protocol = Protocol::of(side, request);
        let span = protocol.span(side);
        let in_flight = protocol.in_flight(side);
        in_flight.increment(1.0);
        Self { side: side.clone(), protocol, span, started: Instant::now(), in_flight }
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// The head of the answer has come.
    pub(super) fn answered<B>(&mut self, response: &Response<B>) {
        match &mut self.protocol {
            Protocol::Grpc { code, web, .. } => {
                *code = grpc_code(response.headers());
                *web = Web::of(response.headers());
            }
            Protocol::Http { route, status, .. } => {
                *status = Some(response.status().as_u16());
                if let Some(Route(template)) = response.extensions().get() {
                    *route = Arc::clone(template);
                }
            }
        }
    }

    /// A part of the answer's body has come.
    pub(super) fn passed(&mut self, data: &[u8]) {
        if let Protocol::Grpc { code, web: Some(web), .. } = &mut self.protocol {
            *code = web.code(data).or(*code);
        }
    }

    /// The answer is complete; a gRPC answer ends with its status.
    pub(super) fn ended(&mut self, trailers: Option<&HeaderMap>) {
        if let Protocol::Grpc { code, .. } = &mut self.protocol {
            *code = trailers.and_then(grpc_code).or(*code).or(Some(Code::Unknown));
        }
    }

    /// There was no answer.
    pub(super) fn failed(&mut self, failure: Code) {
        if let Protocol::Grpc { code, .. } = &mut self.protocol {
            *code = Some(failure);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        self.in_flight.decrement(1.0);
        match &self.protocol {
            Protocol::Grpc { rpc, code, .. } => {
                // Without a status somebody went away before the end.
                let code = code.unwrap_or(Code::Cancelled);
                let name = code_name(code);
                self.span.record("rpc.response.status_code", name);
                if is_failure(code) {
                    self.span.record("otel.status_code", "ERROR");
                }
                if self.side.is_server() {
                    let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                    let method = rpc.path();
                    self.span.in_scope(
                        || tracing::debug!(target: "access", status = name, duration_ms, "{method} answered {name}"),
                    );
                }
                rpc.took(elapsed, code, name);
            }
            Protocol::Http { method, route, status } => {
                self.span.record("http.route", &**route);
                trace::rename(&self.span, || format!("{method} {route}"));
                if let Some(status) = status {
                    self.span.record("http.response.status_code", status);
                }
                if status.is_some_and(|status| status >= 500) {
                    self.span.record("otel.status_code", "ERROR");
                }
                let mut labels = self.side.labels(method);
                labels.push(Label::new("route", Arc::clone(route)));
                labels
                    .push(Label::new("status", status.map_or_else(|| "none".to_owned(), |status| status.to_string())));
                let name = if self.side.is_server() {
                    "guildhall_http_server_seconds"
                } else {
                    "guildhall_http_client_seconds"
                };
                metrics::histogram!(name, labels).record(elapsed);
            }
        }
    }
}

impl Web {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let subtype = headers.get(header::CONTENT_TYPE)?.as_bytes().strip_prefix(b"application/grpc-web")?;
        Some(if subtype.starts_with(b"-text") { Self::Text } else { Self::Binary })
    }

    /// The status in the trailers, which come as a last part of the body: a frame whose first bit is set, of lines as HTTP/1.1 has
    /// them. A part of a message may look like one; what counts is the last.
    fn code(self, part: &[u8]) -> Option<Code> {
        let decoded;
        let frame = match self {
            Self::Binary => part,
            // The first bit alone is `g` in base64.
            Self::Text if part.starts_with(b"g") => {
                decoded = BASE64_STANDARD.decode(part).ok()?;
                &decoded
            }
            Self::Text => return None,
        };
        let mut lines = frame.strip_prefix(&[0x80])?.get(size_of::<u32>()..)?.split(|byte| *byte == b'\n');
        let status = lines.find_map(|line| line.strip_prefix(b"grpc-status:"))?;
        Some(Code::from_bytes(status.trim_ascii()))
    }
}

impl Protocol {
    fn of<B>(side: &Side, request: &Request<B>) -> Self {
        let path = request.uri().path();
        let content_type = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        if content_type.starts_with(b"application/grpc") {
            return Self::Grpc { rpc: side.rpc(method_label(path)), code: None, web: None };
        }
        let passthrough = contracts::PASSTHROUGHS.iter().find(|passthrough| passthrough.path == path);
        let route = passthrough.map_or("unmatched", |passthrough| passthrough.path);
        Self::Http { method: http_method_label(request.method()), route: Arc::from(route), status: None }
    }

    fn span(&self, side: &Side) -> Span {
        match self {
            Self::Grpc { rpc, .. } => tracing::info_span!(
                "rpc",
                otel.name = rpc.path().trim_start_matches('/'),
                otel.kind = side.kind(),
                otel.status_code = field::Empty,
                service.peer.name = side.peer(),
                rpc.system.name = "grpc",
                rpc.method = rpc.path().trim_start_matches('/'),
                rpc.response.status_code = field::Empty,
            ),
            Self::Http { method, .. } => tracing::info_span!(
                "http",
                otel.name = method,
                otel.kind = side.kind(),
                otel.status_code = field::Empty,
                service.peer.name = side.peer(),
                http.request.method = method,
                http.route = field::Empty,
                http.response.status_code = field::Empty,
            ),
        }
    }

    fn in_flight(&self, side: &Side) -> Gauge {
        match self {
            Self::Grpc { rpc, .. } => rpc.in_flight().clone(),
            Self::Http { method, .. } => {
                let name = if side.is_server() {
                    "guildhall_http_server_in_flight"
                } else {
                    "guildhall_http_client_in_flight"
                };
                metrics::gauge!(name, side.labels(method))
            }
        }
    }
}

/// A known method's path; strangers may ask for any, and must not make a label of each.
fn method_label(path: &str) -> &'static str {
    const FOUNDATION: [&str; 4] = [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ];
    let known = contracts::method(path).map(|method| method.path);
    known.or_else(|| FOUNDATION.into_iter().find(|known| *known == path)).unwrap_or("unknown")
}

fn http_method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn grpc_code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// Whether an operator should look: the others are the caller's doing.
fn is_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_grpc_web_is_in_the_frame_of_its_trailers_alone() {
        let trailers = b"\x80\0\0\0\x23grpc-message:gone\r\ngrpc-status:5\r\n";
        assert_eq!(Web::Binary.code(trailers), Some(Code::NotFound));
        assert_eq!(Web::Text.code(BASE64_STANDARD.encode(trailers).as_bytes()), Some(Code::NotFound));
        for other in [&b""[..], b"\x80", b"\x80\0\0\0\x05a:b\r\n", b"\0\0\0\0\x0fgrpc-status:0\r\n", b"g!"] {
            assert_eq!(Web::Binary.code(other), None, "{other:?}");
            assert_eq!(Web::Text.code(other), None, "{other:?}");
            assert_eq!(Web::Text.code(BASE64_STANDARD.encode(other).as_bytes()), None, "{other:?}");
        }
    }
}
