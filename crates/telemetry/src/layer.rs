use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::trace;

mod call;
mod side;

use call::Call;
use side::Side;

/// The template of the route that answered, for instance `/api/v1/posts/{post_id}`. Whoever routes puts it into the response's
/// extensions; a path itself would be a label without bounds.
#[derive(Debug, Clone)]
pub struct Route(pub Arc<str>);

/// Around a server: each call, gRPC or plain HTTP, is a span in the caller's trace, and is measured.
#[derive(Debug, Clone)]
pub struct ServerLayer(Side);

impl ServerLayer {
    /// For the server of `service`.
    pub fn new(service: &str) -> Self {
        Self(Side::server(service))
    }
}

/// Around a channel: each call is a span, its trace context goes along, and it is measured.
#[derive(Debug, Clone)]
pub struct ClientLayer(Side);

impl ClientLayer {
    /// For calls that `service` makes to `server`.
    pub fn new(service: &str, server: &str) -> Self {
        Self(Side::client(service, server))
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, side: self.0.clone() }
    }
}

impl<S> Layer<S> for ClientLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, side: self.0.clone() }
    }
}

/// A service whose calls are traced and measured.
#[derive(Debug, Clone)]
pub struct Observed<S> {
    inner: S,
    side: Side,
}

impl<S, B, R> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: 'static,
    R: Body<Data = Bytes>,
{
    type Response = Response<ObservedBody<R>>;
    type Error = S::Error;
    type Future = ObservedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let call = Call::start(&self.side, &request);
        if self.side.is_server() {
            trace::extract(call.span(), self.side.service(), request.headers());
        } else {
            trace::belong(call.span(), self.side.service());
            trace::inject(call.span(), request.headers_mut());
        }
        let future = call.span().in_scope(|| self.inner.call(request));
        ObservedFuture { future, call: Some(call) }
    }
}

pin_project! {
    /// A call on its way to an answer. Dropped before that, it counts as cancelled.
    pub struct ObservedFuture<F> {
        #[pin]
        future: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for ObservedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: 'static,
{
    type Output = Result<Response<ObservedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let span = this.call.as_ref().map_or_else(tracing::Span::none, |call| call.span().clone());
        let outcome = ready!(span.in_scope(|| this.future.poll(context)));
        let mut call = this.call.take();
        Poll::Ready(match outcome {
            Ok(response) => {
                if let Some(call) = &mut call {
                    call.answered(&response);
                }
                Ok(response.map(|body| ObservedBody { body, call }))
            }
            Err(error) => {
                if let Some(call) = &mut call {
                    let status = (&error as &dyn Any).downcast_ref::<Status>().map(Status::code);
                    call.failed(status.unwrap_or(Code::Unavailable));
                }
                Err(error)
            }
        })
    }
}

pin_project! {
    /// The body of an answer: a gRPC call ends with its trailers.
    pub struct ObservedBody<B> {
        #[pin]
        body: B,
        call: Option<Call>,
    }
}

impl<B: Body<Data = Bytes>> Body for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let span = this.call.as_ref().map_or_else(tracing::Span::none, |call| call.span().clone());
        let frame = ready!(span.in_scope(|| this.body.poll_frame(context)));
        let (data, trailers): (Option<&Bytes>, Option<&HeaderMap>) = match &frame {
            Some(Ok(frame)) => (frame.data_ref(), frame.trailers_ref()),
            Some(Err(_)) | None => (None, None),
        };
        if let Some(data) = data {
            if let Some(call) = this.call {
                call.passed(data);
            }
        } else if let Some(mut call) = this.call.take() {
            call.ended(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
