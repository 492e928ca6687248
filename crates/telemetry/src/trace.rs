use std::sync::{Arc, LazyLock};

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// W3C Trace Context: the headers `traceparent` and `tracestate`.
static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// Whose span it is. It goes down from a span to those below, so that several services of one process are told apart.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<str>);

/// The service that the current thread works for, inside a span.
pub(crate) fn service() -> Option<Arc<str>> {
    Context::map_current(|context| context.get::<Service>().map(|service| Arc::clone(&service.0)))
}

/// The current span as a W3C `traceparent`, to be kept with work that is done later; `None` outside a trace.
pub fn traceparent() -> Option<String> {
    let mut headers = HeaderMap::new();
    inject(&Span::current(), &mut headers);
    headers.get("traceparent")?.to_str().ok().map(str::to_owned)
}

/// Makes `span`, which must not have been entered yet, one of `service`, in the trace that `headers` name; if they name none, it
/// begins one.
pub(crate) fn extract(span: &Span, service: &Arc<str>, headers: &HeaderMap) {
    let context = Context::new().with_value(Service(Arc::clone(service)));
    place(span, PROPAGATOR.extract_with_context(&context, &Incoming(headers)));
}

/// Makes `span`, which must not have been entered yet, one of `service`, in the trace of the current span; if there is none, it
/// begins one.
pub(crate) fn belong(span: &Span, service: &Arc<str>) {
    if self::service().is_none_or(|current| current != *service) {
        place(span, Context::current_with_value(Service(Arc::clone(service))));
    }
}

/// Makes `span`, which must not have been entered yet, one of `service`, in the trace of `traceparent`. Without one that is valid it
/// begins one.
pub(crate) fn join(span: &Span, service: Option<&str>, traceparent: Option<&str>) {
    let context = service.map_or_else(Context::new, |service| Context::new().with_value(Service(service.into())));
    let headers = traceparent.and_then(|value| value.parse().ok());
    let headers = headers.map(|value| (http::HeaderName::from_static("traceparent"), value));
    place(span, PROPAGATOR.extract_with_context(&context, &Incoming(&HeaderMap::from_iter(headers))));
}

/// Gives `span` its name once that is known.
pub(crate) fn rename(span: &Span, name: impl FnOnce() -> String) {
    let context = span.context();
    let span = context.span();
    if span.is_recording() {
        span.update_name(name());
    }
}

fn place(span: &Span, parent: Context) {
    // An error means that this process traces nothing, or that the span has begun: it then stays where it is.
    let _stays = span.set_parent(parent);
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
