//! Until when a call may run: what the client asks for, within what the edge allows.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName};
use http_body::Frame;
use mesh::User;
use status::{Problem, Reason};
use tokio::time::{Instant, Sleep};

use crate::{
    config::Deadlines,
    gateway::Gateway,
    transcode::{Limit, Rpc},
};

/// The header by which a REST client sets its deadline, in seconds; fractions are allowed.
pub(crate) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// When a call ends, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    reason: Reason,
}

impl Deadline {
    /// From `Request-Timeout`.
    pub(crate) fn of_rest(headers: &HeaderMap, rpc: &Rpc, settings: &Deadlines) -> Result<Self, Problem> {
        let malformed = || {
            Problem::new(Reason::MalformedRequest)
                .violation("Request-Timeout", "must be a number of seconds above zero, such as `2.5`")
        };
        let asked = headers
            .get(REQUEST_TIMEOUT)
            .map(|value| value.to_str().ok().and_then(seconds).ok_or_else(malformed))
            .transpose()?;
        Ok(Self::after(asked, rpc, settings))
    }

    /// From `grpc-timeout` (gRPC over HTTP/2, "Timeout").
    pub(crate) fn of_grpc(headers: &HeaderMap, rpc: &Rpc, settings: &Deadlines) -> Result<Self, Problem> {
        let malformed =
            || Problem::new(Reason::MalformedRequest).violation("grpc-timeout", "must be up to 8 digits and a unit");
        let asked = headers
            .get(GRPC_TIMEOUT)
            .map(|value| value.to_str().ok().and_then(grpc_timeout).ok_or_else(malformed))
            .transpose()?;
        Ok(Self::after(asked, rpc, settings))
    }

    /// For a request that is passed through.
    pub(crate) fn of_passthrough(settings: &Deadlines) -> Self {
        Self { at: Instant::now() + settings.default, reason: Reason::DeadlineExceeded }
    }

    fn after(asked: Option<Duration>, rpc: &Rpc, settings: &Deadlines) -> Self {
        let long = rpc.client_streaming || rpc.server_streaming || rpc.limit == Limit::Bulk;
        let (default, most) = if long { (settings.stream, settings.stream) } else { (settings.default, settings.most) };
        Self { at: Instant::now() + asked.unwrap_or(default).min(most), reason: Reason::DeadlineExceeded }
    }

    /// A stream ends when its token does. For the answer alone: the service is told the deadline, and knows the token itself.
    pub(crate) fn within_token(self, user: Option<&User>, gateway: &Gateway) -> Self {
        let Some(user) = user else { return self };
        let expiry = Instant::now() + user.expires.since(gateway.source.now());
        if expiry < self.at { Self { at: expiry, reason: Reason::TokenExpired } } else { self }
    }

    /// Waits for `work` until the deadline, and passes on what is left of it to the calls made in it.
    pub(crate) async fn bound<T, E: From<Problem>>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        match tokio::time::timeout_at(self.at, mesh::deadline::scope(self.at, work)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Problem::new(self.reason).into()),
        }
    }

    /// The stream until the deadline, and then its error.
    pub(crate) fn bound_stream<T, S>(self, items: S) -> impl Stream<Item = Result<T, Problem>> + Send + 'static
    where
        T: Send + 'static,
        S: Stream<Item = Result<T, Problem>> + Send + 'static,
    {
        stream::unfold(Some(Box::pin(items)), move |items| async move {
            let mut items = items?;
            match tokio::time::timeout_at(self.at, items.next()).await {
                Ok(item) => item.map(|item| (item, Some(items))),
                Err(_elapsed) => Some((Err(self.reason.into()), None)),
            }
        })
    }

    /// The body of a gRPC answer until the deadline, and then trailers that say so.
    pub(crate) fn bound_body(self, body: tonic::body::Body) -> tonic::body::Body {
        tonic::body::Body::new(Bounded {
            body,
            sleep: Box::pin(tokio::time::sleep_until(self.at)),
            reason: self.reason,
            over: false,
        })
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = text.parse().ok().filter(|_| plain)?;
    Duration::try_from_secs_f64(seconds).ok().filter(|asked| !asked.is_zero())
}

fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// A gRPC body with an end.
struct Bounded {
    body: tonic::body::Body,
    sleep: Pin<Box<Sleep>>,
    reason: Reason,
    over: bool,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map(hide_internals)));
        }
        std::task::ready!(self.sleep.as_mut().poll(context));
        // Dropped here and not with the connection: the service behind shall stop now.
        self.body = tonic::body::Body::empty();
        self.over = true;
        Poll::Ready(Some(trailers(self.reason.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }
}

fn trailers(problem: Problem) -> Result<Frame<Bytes>, tonic::Status> {
    let mut trailers = HeaderMap::new();
    tonic::Status::from(problem).add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}

fn hide_internals(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            crate::grpc::hide_internals(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}
