//! Checks that a request's body is made of gRPC messages. tonic would call one that is not INTERNAL, as if it were our fault.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use status::{Problem, Reason};
use tonic::Status;

use super::cut_off::is_grpc;

/// A message's prefix: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;
/// The longest message that tonic decodes.
const LONGEST: usize = 4 * 1024 * 1024;

pub(crate) async fn check(request: Request, next: Next) -> Response {
    let compresses = request.headers().get("grpc-encoding").is_some_and(|encoding| encoding != "identity");
    let one = contracts::method(request.uri().path()).is_some_and(|method| !method.client_streaming);
    let checked =
        |body| Body::new(Framed { body, prefix: Vec::with_capacity(PREFIX), left: 0, compresses, awaited: one });
    next.run(if is_grpc(request.headers()) { request.map(checked) } else { request }).await
}

/// A body that ends with a readable status where its frames do not hold.
struct Framed {
    body: Body,
    /// What has come of a prefix.
    prefix: Vec<u8>,
    /// What is to come of a message.
    left: usize,
    compresses: bool,
    /// Whether a message must still come.
    awaited: bool,
}

impl Framed {
    fn follow(&mut self, mut data: &[u8]) -> Result<(), Problem> {
        while !data.is_empty() {
            if self.left > 0 {
                let step = self.left.min(data.len());
                self.left -= step;
                data = &data[step..];
                continue;
            }
            let (step, rest) = data.split_at((PREFIX - self.prefix.len()).min(data.len()));
            self.prefix.extend_from_slice(step);
            data = rest;
            if let Some([flag, length @ ..]) = self.prefix.first_chunk::<PREFIX>().copied() {
                self.left = self.announced(flag, u32::from_be_bytes(length))?;
                self.prefix.clear();
                self.awaited = false;
            }
        }
        Ok(())
    }

    fn announced(&self, flag: u8, length: u32) -> Result<usize, Problem> {
        if flag > u8::from(self.compresses) {
            return Err(malformed("A message is marked as compressed, and no encoding is named"));
        }
        usize::try_from(length).ok().filter(|length| *length <= LONGEST).ok_or_else(|| {
            Problem::new(Reason::PayloadTooLarge).message(format!("A message may have at most {LONGEST} bytes"))
        })
    }

    fn end(&self) -> Result<(), Problem> {
        if self.left > 0 || !self.prefix.is_empty() {
            return Err(malformed("The request breaks off within a message"));
        }
        if self.awaited { Err(malformed("The request has no message")) } else { Ok(()) }
    }
}

fn malformed(text: &str) -> Problem {
    Problem::new(Reason::MalformedRequest).message(text)
}

impl HttpBody for Framed {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)?);
        let checked = match frame.as_ref().and_then(Frame::data_ref) {
            Some(data) => self.follow(data),
            None => self.end(),
        };
        Poll::Ready(match checked {
            Ok(()) => frame.map(Ok),
            Err(problem) => Some(Err(Status::from(problem).into())),
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
