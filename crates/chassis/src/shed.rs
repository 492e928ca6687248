use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use futures_util::future::{self, Either, Ready};
use http::{Request, Response};
use http_body_util::BodyExt;
use mesh::server::refusal;
use status::{Problem, Reason};
use tokio::sync::Semaphore;
use tower::{Layer, Service};

/// When a refused caller may try again.
const RETRY: Duration = Duration::from_secs(1);

/// Refuses calls above a number at once, so that those within it are answered in time. A call counts until the last byte of
/// its answer, which tower's limit does not do: a stream would count for nothing.
#[derive(Clone)]
pub(crate) struct ShedLayer(Arc<Semaphore>);

impl ShedLayer {
    pub(crate) fn new(max_calls: usize) -> Self {
        Self(Arc::new(Semaphore::new(max_calls.min(Semaphore::MAX_PERMITS))))
    }
}

impl<S> Layer<S> for ShedLayer {
    type Service = Shed<S>;

    fn layer(&self, inner: S) -> Shed<S> {
        Shed { inner, places: Arc::clone(&self.0) }
    }
}

#[derive(Clone)]
pub(crate) struct Shed<S> {
    inner: S,
    places: Arc<Semaphore>,
}

type Answer = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for Shed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Pin<Box<dyn Future<Output = Answer> + Send>>, Ready<Answer>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let problem = Problem::new(Reason::Unavailable).message("Too many calls at once").retry_after(RETRY);
            return Either::Right(future::ready(Ok(refusal(request.headers(), problem))));
        };
        let answer = self.inner.call(request);
        Either::Left(Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| {
                // The body holds the place until it is dropped.
                Body::new(body.map_frame(move |frame| {
                    let _held = &place;
                    frame
                }))
            }))
        }))
    }
}
