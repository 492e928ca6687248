use std::sync::LazyLock;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// W3C Trace Context: the headers `traceparent` and `tracestate`.
static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// The current span as a W3C `traceparent`, to be kept with work that is done later; `None` outside a trace.
pub fn traceparent() -> Option<String> {
    let mut headers = HeaderMap::new();
    inject(&Span::current(), &mut headers);
    headers.get("traceparent")?.to_str().ok().map(str::to_owned)
}

/// Makes `span`, which must not have been entered yet, part of the trace of `traceparent`. One that is not valid is ignored.
pub fn adopt(span: &Span, traceparent: &str) {
    let Ok(value) = traceparent.parse() else { return };
    extract(span, &HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), value)]));
}

/// Makes `span` a child of the span that the headers name, if they do.
pub(crate) fn extract(span: &Span, headers: &HeaderMap) {
    let parent = PROPAGATOR.extract_with_context(&Context::new(), &Incoming(headers));
    if parent.span().span_context().is_valid() {
        // An error means that this process traces nothing, or that the span has begun: it then stays in its own trace.
        let _own_trace = span.set_parent(parent);
    }
}

/// Names `span` in the headers of a call that it makes.
pub(crate) fn inject(span: &Span, headers: &mut HeaderMap) {
    PROPAGATOR.inject_context(&span.context(), &mut Outgoing(headers));
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Outgoing<'a>(&'a mut HeaderMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(key), http::HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
