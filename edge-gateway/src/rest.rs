//! A REST call: JSON in, one gRPC call upstream, JSON, a stream or raw bytes out.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use futures_util::{Stream, StreamExt, future, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use status::{Problem, Reason};
use tokio::sync::oneshot;

use crate::{
    admission::{self, Admitted},
    body::{self, Outcome, Received},
    deadline::Deadline,
    exchange::Exchange,
    freshness::{self, Live},
    gateway::Gateway,
    headers,
    problem::Failure,
    transcode::{Converted, Format, Limit, Match},
};

pub(crate) async fn handle(
    gateway: Arc<Gateway>,
    exchange: Exchange,
    matched: Match,
    request: Request,
) -> Result<Response, Failure> {
    exchange.routed(matched.template());
    let (parts, body) = request.into_parts();
    let admitted = admission::admit(&gateway, matched.rpc(), &parts.headers, &exchange).await?;
    let call = Call { gateway: &gateway, exchange: &exchange, matched: &matched, parts: &parts, admitted: &admitted };
    match call.answer(body).await {
        Ok(mut response) => {
            admitted.write(response.headers_mut());
            Ok(response)
        }
        Err(mut failure) => {
            admitted.write(failure.headers_mut());
            Err(failure)
        }
    }
}

struct Call<'a> {
    gateway: &'a Gateway,
    exchange: &'a Exchange,
    matched: &'a Match,
    parts: &'a Parts,
    admitted: &'a Admitted,
}

impl Call<'_> {
    async fn answer(&self, body: Body) -> Result<Response, Failure> {
        let (rpc, settings) = (self.matched.rpc(), &self.gateway.config);
        let format = self.matched.negotiate(&self.parts.headers)?;
        let deadline = Deadline::of_rest(&self.parts.headers, rpc, &settings.deadline)?;
        if self.parts.headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
            return Err(Problem::new(Reason::UnsupportedMediaType)
                .message("Compressed request bodies are not supported.")
                .into());
        }
        if rpc.server_streaming {
            let end = deadline.within_token(self.admitted.user(), self.gateway);
            return deadline.bound(self.many(body, format, end)).await;
        }
        deadline.bound(self.one(body)).await
    }

    fn metadata(&self) -> HeaderMap {
        let mut metadata = headers::metadata(&self.parts.headers, self.matched.rpc(), self.exchange);
        self.admitted.introduce(&mut metadata);
        metadata
    }

    async fn one(&self, body: Body) -> Result<Response, Failure> {
        let rpc = self.matched.rpc();
        let client = self.gateway.upstreams.client(rpc, self.gateway.config.request.message_bytes).await?;
        let answer = if rpc.client_streaming {
            let (messages, refused, received) = self.messages(body)?;
            // Whichever comes first: an answer, or a message that cannot be sent. Then the call is dropped, and so cancelled.
            tokio::select! {
                biased;
                Ok(problem) = refused => {
                    return Err(received.error().map_or(problem, Problem::from).into());
                }
                answer = client.one(self.metadata(), messages) => answer?,
            }
        } else {
            let message = self.message(body).await?;
            client.one(self.metadata(), stream::once(future::ready(message))).await?
        };
        let (metadata, message, _) = answer.into_parts();
        let (status, declared) = headers::declared(&metadata.into_headers(), rpc);
        Ok(self.render(status, declared, self.matched.response(&message)?))
    }

    async fn many(&self, body: Body, format: Format, end: Deadline) -> Result<Response, Failure> {
        let rpc = self.matched.rpc();
        let client = self.gateway.upstreams.client(rpc, self.gateway.config.request.message_bytes).await?;
        let message = self.message(body).await?;
        let answer = client.many(self.metadata(), stream::once(future::ready(message))).await?;
        let (metadata, messages, _) = answer.into_parts();
        let (status, declared) = headers::declared(&metadata.into_headers(), rpc);
        let streamed = self.matched.response_stream(format, end.bound_stream(messages)).await?;
        let mut response = Response::new(Body::from_stream(streamed.body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, streamed.content_type);
        freshness::cache_control(headers, rpc, self.admitted.user().is_some());
        if format == Format::Events {
            // nginx and its kin hold back what they proxy unless told not to.
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        }
        headers.extend(declared);
        if rpc.limit != Limit::Bulk {
            response.extensions_mut().insert(Live);
        }
        Ok(response)
    }

    /// The one request message.
    async fn message(&self, body: Body) -> Result<Bytes, Failure> {
        let limits = &self.gateway.config.request;
        body::check_length(&self.parts.headers, limits.body_bytes as u64)?;
        let received = Received::new(body, limits.body_bytes as u64, limits.body_idle);
        let body = received.collect().await?;
        Ok(self.matched.request(self.parts.uri.query(), &self.parts.headers, &body)?)
    }

    /// The request messages as they come in, the problem with the first of them that cannot be read, and what became of
    /// the body.
    fn messages(
        &self,
        body: Body,
    ) -> Result<(impl Stream<Item = Bytes> + Send + 'static, oneshot::Receiver<Problem>, Outcome), Failure> {
        let limits = &self.gateway.config.request;
        body::check_length(&self.parts.headers, limits.stream_bytes)?;
        let received = Received::new(body, limits.stream_bytes, limits.body_idle);
        let outcome = received.outcome();
        let (query, chunks) = (self.parts.uri.query(), received.chunks());
        let messages = self.matched.request_stream(query, &self.parts.headers, chunks, limits.message_bytes)?;
        let (refuse, refused) = oneshot::channel();
        let messages = messages.scan(Some(refuse), |refuse, message| {
            let message = message.map_err(|problem| refuse.take().map(|refuse| refuse.send(problem)));
            // After a problem the stream stays open until the call is dropped: ended, it would pass for whole.
            async { if let Ok(message) = message { Some(message) } else { future::pending().await } }
        });
        Ok((messages, refused, outcome))
    }

    fn render(&self, status: StatusCode, declared: HeaderMap, converted: Converted) -> Response {
        let rpc = self.matched.rpc();
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        freshness::cache_control(headers, rpc, self.admitted.user().is_some());
        headers.insert(header::CONTENT_TYPE, converted.content_type);
        headers.extend(declared);
        let is_read = matches!(self.parts.method, Method::GET | Method::HEAD);
        if is_read && status == StatusCode::OK {
            let tag = headers
                .entry(header::ETAG)
                .or_insert_with(|| freshness::entity_tag(converted.etag.as_deref(), &converted.body));
            if freshness::is_known(&self.parts.headers, tag) {
                headers.remove(header::CONTENT_TYPE);
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return response;
            }
        }
        *response.status_mut() = status;
        if status != StatusCode::NOT_MODIFIED && status != StatusCode::NO_CONTENT {
            *response.body_mut() = Body::from(converted.body);
        }
        response
    }
}
