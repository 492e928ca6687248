//! A REST call and its answer, in as few words as a test wants.

use reqwest::{RequestBuilder, StatusCode, header};
use serde_json::Value;

/// A call being put together.
#[must_use = "a call does nothing until it is sent"]
pub struct Call {
    request: RequestBuilder,
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub headers: header::HeaderMap,
    pub body: Vec<u8>,
}

impl Call {
    pub(crate) fn new(request: RequestBuilder) -> Self {
        Self { request }
    }

    pub fn token(self, token: &str) -> Self {
        Self { request: self.request.bearer_auth(token) }
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value) }
    }

    pub fn json(self, body: &Value) -> Self {
        Self { request: self.request.json(body) }
    }

    pub fn body(self, media_type: &str, body: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.header(header::CONTENT_TYPE, media_type).body(body) }
    }

    /// Sends it; a test that expects the connection to fail uses [`Call::try_send`].
    pub async fn send(self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    pub async fn try_send(self) -> Result<Answer, reqwest::Error> {
        let response = self.request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
    }
}

impl Answer {
    /// The answer, if it has this status; otherwise the test ends with what it said.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "often the status is all that matters")]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    /// Expects a problem (RFC 9457) with this status and reason.
    #[track_caller]
    pub fn expect_problem(self, status: u16, reason: &str) -> Value {
        let answer = self.expect_status(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["reason"], reason, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        problem
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
