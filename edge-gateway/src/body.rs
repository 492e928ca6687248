//! Request bodies as they come in: bounded in size, and in the time they may stand still.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyDataStream, BodyExt};
use status::{Problem, Reason};
use tokio::time::{Instant, Sleep};

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("the body is too large")]
    TooLarge,
    #[error("the body stood still for too long")]
    TooSlow,
    #[error("the body broke off")]
    Broken,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::TooLarge => Self::new(Reason::PayloadTooLarge),
            Error::TooSlow => Self::new(Reason::RequestTimeout),
            Error::Broken => Self::new(Reason::MalformedRequest).message("The request's body broke off."),
        }
    }
}

/// Refuses by `Content-Length`, before a byte is read.
pub(crate) fn check_length(headers: &HeaderMap, most: u64) -> Result<(), Error> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most) { Err(Error::TooLarge) } else { Ok(()) }
}

/// A request's body.
pub(crate) struct Received {
    body: Body,
    left: u64,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    outcome: Outcome,
}

/// What became of a body that was handed on: the receiver's own error says less.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome(Arc<OnceLock<Error>>);

impl Outcome {
    pub(crate) fn error(&self) -> Option<Error> {
        self.0.get().copied()
    }
}

impl Received {
    /// At most `most` bytes, and never `idle` between two parts.
    pub(crate) fn new(body: Body, most: u64, idle: Duration) -> Self {
        Self { body, left: most, idle, timer: Box::pin(tokio::time::sleep(idle)), outcome: Outcome::default() }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }

    pub(crate) async fn collect(self) -> Result<Bytes, Error> {
        BodyExt::collect(self).await.map(http_body_util::Collected::to_bytes)
    }

    pub(crate) fn chunks(self) -> impl Stream<Item = Result<Bytes, Problem>> + Send + 'static {
        BodyDataStream::new(self).map(|chunk| chunk.map_err(Problem::from))
    }

    fn poll_received(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            std::task::ready!(self.timer.as_mut().poll(context));
            return Poll::Ready(Some(Err(Error::TooSlow)));
        };
        let Some(frame) = frame else { return Poll::Ready(None) };
        let Ok(frame) = frame else { return Poll::Ready(Some(Err(Error::Broken))) };
        let deadline = Instant::now() + self.idle;
        self.timer.as_mut().reset(deadline);
        match self.left.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64)) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(Error::TooLarge))),
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = std::task::ready!(self.poll_received(context));
        if let Some(Err(error)) = &frame {
            self.outcome.0.get_or_init(|| *error);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Unknown, whatever the body says: tonic-web gives the length of the base64 for what it has decoded from it.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const IDLE: Duration = Duration::from_millis(400);

    fn body(chunks: Vec<&'static str>) -> Body {
        Body::from_stream(stream::iter(chunks.into_iter().map(Ok::<_, std::convert::Infallible>)))
    }

    #[tokio::test]
    async fn a_body_of_just_the_size_is_read_and_a_larger_one_is_not() {
        assert_eq!(Received::new(body(vec!["ab", "cd"]), 4, IDLE).collect().await, Ok(Bytes::from("abcd")));
        let received = Received::new(body(vec!["ab", "cde"]), 4, IDLE);
        let outcome = received.outcome();
        assert_eq!(received.collect().await, Err(Error::TooLarge));
        assert_eq!(outcome.error(), Some(Error::TooLarge));
    }

    #[tokio::test]
    async fn a_body_that_stands_still_is_given_up_and_a_slow_one_is_not() {
        let chunks = |pause: Duration| {
            Body::from_stream(stream::iter(["a", "b", "c"]).then(move |chunk| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, std::convert::Infallible>(chunk)
            }))
        };
        assert_eq!(Received::new(chunks(IDLE / 8), 10, IDLE).collect().await, Ok(Bytes::from("abc")));
        assert_eq!(Received::new(chunks(IDLE * 2), 10, IDLE).collect().await, Err(Error::TooSlow));
    }
}
