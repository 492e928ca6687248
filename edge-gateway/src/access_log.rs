//! The access log: one line per request, written when the last byte of its answer has gone or its client has.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{Method, StatusCode, Version};
use http_body::{Frame, SizeHint};

use crate::{
    exchange::{Exchange, Peer, REQUEST_ID},
    gateway::Gateway,
};

/// Begins the exchange, and ends it with its line.
pub(crate) async fn record(State(gateway): State<Arc<Gateway>>, mut request: Request, next: Next) -> Response {
    let peer = *request.extensions().get::<Peer>().expect("the listener puts it into every request");
    let exchange = Exchange::begin(request.headers(), peer, &gateway.config, &gateway.source);
    let mut line = Line {
        exchange: exchange.clone(),
        method: request.method().clone(),
        version: request.version(),
        tls: peer.tls,
        started: Instant::now(),
        status: None,
        bytes: 0,
        complete: false,
        span: tracing::Span::current(),
    };
    request.extensions_mut().insert(exchange.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, exchange.id().clone());
    line.status = Some(response.status());
    response.map(|body| Body::new(Recorded { body, line }))
}

/// What a line says. The path is the route's template: a path may carry a person's id, a query a secret.
struct Line {
    exchange: Exchange,
    method: Method,
    version: Version,
    tls: bool,
    started: Instant,
    status: Option<StatusCode>,
    bytes: u64,
    complete: bool,
    /// Where the body ends, nobody is in the request's span any more.
    span: tracing::Span,
}

/// What nginx calls a client that left before it had an answer.
const CLIENT_LEFT: u16 = 499;

impl Drop for Line {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        let status = self.status.map_or(CLIENT_LEFT, |status| status.as_u16());
        tracing::info!(
            target: "access",
            status,
            http.method = %self.method,
            http.route = self.exchange.route(),
            http.version = ?self.version,
            tls = self.tls,
            bytes = self.bytes,
            duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            complete = self.complete,
            client = %self.exchange.client(),
            user.id = self.exchange.user().map(tracing::field::display),
            request.id = self.exchange.id_text(),
            "{} {} answered {status}", self.method, self.exchange.route(),
        );
    }
}

/// A body that counts what goes out.
struct Recorded {
    body: Body,
    line: Line,
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => self.line.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => {}
            None => self.line.complete = true,
        }
        self.line.complete |= self.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use http::HeaderMap;
    use http_body_util::BodyExt;
    use ids::Source;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line() -> Line {
        let peer = Peer { address: ([192, 0, 2, 1], 1).into(), tls: false };
        let exchange = Exchange::begin(&HeaderMap::new(), peer, &crate::tests::config(), &Source::system());
        exchange.routed("/api/v1/posts/{post_id}");
        let (method, version, started) = (Method::GET, Version::HTTP_2, Instant::now());
        Line {
            exchange,
            method,
            version,
            tls: false,
            started,
            status: None,
            bytes: 0,
            complete: false,
            span: tracing::Span::none(),
        }
    }

    fn logged(write: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, write);
        let bytes = lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn one_line_tells_route_status_and_bytes_once_the_answer_has_gone() {
        let mut recorded = Recorded { body: Body::from("12345"), line: line() };
        recorded.line.status = Some(StatusCode::OK);
        let text = logged(|| {
            futures_util::future::FutureExt::now_or_never(recorded.collect())
                .expect("the body is there")
                .expect("bytes");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in ["GET /api/v1/posts/{post_id} answered 200", "bytes=5", "complete=true", "client=192.0.2.1"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_client_that_left_without_an_answer_is_499() {
        let text = logged(|| drop(line()));
        assert!(text.contains("answered 499") && text.contains("complete=false"), "{text}");
    }
}
