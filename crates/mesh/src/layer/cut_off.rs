//! Ends an answer that must not go on: its deadline has passed, or its token has expired.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use status::Problem;
use tonic::Status;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's body, until `end` says why it must stop.
///
/// A gRPC answer then ends with trailers that say so too. Other answers have no place for that and break off.
pub(crate) struct CutOff {
    body: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
    /// `None` once it has resolved.
    end: Option<BoxFuture<'static, Problem>>,
    grpc: bool,
}

/// Bounds an answer by `end`.
pub(crate) fn cut_off<B>(answer: Response<B>, end: impl Future<Output = Problem> + Send + 'static) -> Response<CutOff>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let grpc = is_grpc(answer.headers());
    answer.map(|body| CutOff { body: Box::pin(body.map_err(Into::into)), end: Some(Box::pin(end)), grpc })
}

/// Whether the headers are those of a gRPC message.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

impl Body for CutOff {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(end) = self.end.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(problem) = end.as_mut().poll(cx) {
            self.end = None;
            let status = Status::from(problem);
            return Poll::Ready(Some(if self.grpc { trailers(&status) } else { Err(status.into()) }));
        }
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn trailers(status: &Status) -> Result<Frame<Bytes>, BoxError> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}
