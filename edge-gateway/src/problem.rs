//! Everything that goes wrong, as `application/problem+json` (RFC 9457).

use std::{any::Any, sync::Arc};

use axum::{
    body::Body,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use status::{Problem, Reason};

use crate::{exchange::Exchange, limit::whole_seconds};

pub(crate) const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// How long a client is told to wait before it tries a service again that does not answer.
const UNAVAILABLE_SECONDS: u64 = 1;

/// A problem on its way out, with what only HTTP has.
#[derive(Debug)]
pub(crate) struct Failure {
    problem: Problem,
    headers: HeaderMap,
}

impl<P: Into<Problem>> From<P> for Failure {
    fn from(problem: P) -> Self {
        Self { problem: problem.into(), headers: HeaderMap::new() }
    }
}

impl Failure {
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// Drops what only HTTP has.
    pub(crate) fn into_problem(self) -> Problem {
        self.problem
    }
}

/// The problem of an answer whose body [`render`] has yet to write.
#[derive(Clone)]
struct Pending(Arc<Problem>);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status(self.problem.reason());
        *response.headers_mut() = self.headers;
        describe(&self.problem, response.headers_mut());
        response.extensions_mut().insert(Pending(Arc::new(self.problem)));
        response
    }
}

fn status(reason: Reason) -> StatusCode {
    StatusCode::from_u16(reason.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Writes the headers that belong to a problem: when to come again, and what a 401 asks for (RFC 6750).
fn describe(problem: &Problem, headers: &mut HeaderMap) {
    if let Some(seconds) = retry_after(problem) {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if let Some(challenge) = challenge(problem.reason()) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
}

fn retry_after(problem: &Problem) -> Option<u64> {
    problem
        .retry_delay()
        .map(whole_seconds)
        .or_else(|| (problem.reason() == Reason::Unavailable).then_some(UNAVAILABLE_SECONDS))
}

fn challenge(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::TokenInvalid => Some(
            r#"Bearer realm="guildhall", error="invalid_token", error_description="The access token is not valid""#,
        ),
        Reason::TokenExpired => {
            Some(r#"Bearer realm="guildhall", error="invalid_token", error_description="The access token has expired""#)
        }
        Reason::TokenRevoked => {
            Some(r#"Bearer realm="guildhall", error="invalid_token", error_description="The session has ended""#)
        }
        Reason::ScopeMissing => Some(r#"Bearer realm="guildhall", error="insufficient_scope""#),
        _ if status(reason) == StatusCode::UNAUTHORIZED => Some(r#"Bearer realm="guildhall""#),
        _ => None,
    }
}

/// The members of a problem, less `instance`, which only the request knows. Also the payload of a stream's error frame.
pub fn body(problem: &Problem) -> Value {
    Value::Object(members(problem, status(problem.reason())))
}

fn members(problem: &Problem, status: StatusCode) -> Map<String, Value> {
    let reason = problem.reason();
    let mut members = Map::new();
    members.insert("type".into(), format!("/docs/errors/{}", reason.name()).into());
    members.insert("title".into(), reason.title().into());
    members.insert("status".into(), status.as_u16().into());
    members.insert("detail".into(), problem.text().into());
    members.insert("reason".into(), reason.name().into());
    if !problem.violation_list().is_empty() {
        let violation =
            |violation: &status::Violation| json!({"field": violation.field, "description": violation.description});
        members.insert("violations".into(), problem.violation_list().iter().map(violation).collect());
    }
    if let Some(seconds) = retry_after(problem) {
        members.insert("retryAfter".into(), seconds.into());
    }
    members
}

/// Writes the bodies of problems. Here and nowhere else, so that each of them names its request.
pub(crate) async fn render(exchange: axum::Extension<Exchange>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(Pending(problem)) = response.extensions_mut().remove() else { return response };
    log(&problem, &exchange);
    // A stale `If-Match` is a failed precondition (RFC 9110, 13.1.1); a stale `etag` in the body is a conflict.
    if problem.reason() == Reason::EtagMismatch && exchange.has_if_match() {
        *response.status_mut() = StatusCode::PRECONDITION_FAILED;
    }
    let mut members = members(&problem, response.status());
    members.insert("instance".into(), exchange.id_text().into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.body_mut() = Body::from(Value::Object(members).to_string());
    response
}

fn log(problem: &Problem, exchange: &Exchange) {
    let Some(cause) = problem.cause() else { return };
    let (reason, id, cause) = (problem.reason().name(), exchange.id_text(), cause as &dyn std::error::Error);
    if problem.reason() == Reason::Internal {
        tracing::error!(reason, request.id = id, error = cause, "a request failed");
    } else {
        tracing::debug!(reason, request.id = id, error = cause, "a request was refused");
    }
}

/// A handler that panicked is a problem like another; its message stays here.
#[expect(clippy::needless_pass_by_value, reason = "the signature that `CatchPanicLayer` asks for")]
pub(crate) fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let message =
        payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    tracing::error!(panic = message.unwrap_or("no message"), "a handler panicked");
    Failure::from(Reason::Internal).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_problem_says_what_where_and_when_to_come_again_and_hides_its_cause() {
        let problem = Problem::new(Reason::InvalidFields)
            .violation("post.tags[3]", "at most 50 characters")
            .retry_after(Duration::from_millis(1500))
            .because(std::io::Error::other("10.0.0.3:5432 refused"));
        let body = body(&problem);
        assert_eq!(body["type"], "/docs/errors/INVALID_FIELDS");
        assert_eq!(body["status"], 400);
        assert_eq!(body["reason"], "INVALID_FIELDS");
        assert_eq!(body["violations"], json!([{"field": "post.tags[3]", "description": "at most 50 characters"}]));
        assert_eq!(body["retryAfter"], 2);
        assert!(!body.to_string().contains("10.0.0.3"));
    }

    #[test]
    fn a_panic_is_an_internal_error_that_says_nothing() {
        let response = panicked(Box::new("hunter2".to_owned()));
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let Pending(problem) = response.extensions().get().expect("a problem");
        assert!(!body(problem).to_string().contains("hunter2"));
    }

    #[test]
    fn every_401_carries_a_challenge_and_an_unavailable_service_a_time() {
        for reason in [
            Reason::TokenMissing,
            Reason::TokenInvalid,
            Reason::TokenExpired,
            Reason::TokenRevoked,
            Reason::CredentialsInvalid,
        ] {
            let response = Failure::from(reason).into_response();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert!(response.headers()[header::WWW_AUTHENTICATE].to_str().expect("ASCII").starts_with("Bearer realm="));
        }
        let response = Failure::from(Reason::Unavailable).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
