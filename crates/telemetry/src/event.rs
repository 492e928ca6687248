//! Spans of an event's way: `create` in the transaction of its change, `send` from the outbox to the bus, `process` by each consumer.
//! All three are in the trace of the call that changed something.

use std::sync::Arc;

use ids::EventId;
use tracing::Span;

use crate::trace;

/// A change of `service` tells of itself; the span is in the present trace, or begins one.
pub fn create(service: &str, topic: &str, id: EventId) -> Span {
    let span = span("create", "producer", topic, id, None);
    trace::belong(&span, &Arc::from(service));
    span
}

/// The relay of `service` hands an event to the bus. `traceparent` is that of its creation.
pub fn send(service: &str, topic: &str, id: EventId, traceparent: Option<&str>) -> Span {
    let span = span("send", "client", topic, id, None);
    trace::join(&span, Some(service), traceparent);
    span
}

/// A consumer, `<service>.<what it keeps>`, handles an event. `traceparent` is that of its creation.
pub fn process(consumer: &str, topic: &str, id: EventId, traceparent: Option<&str>) -> Span {
    let span = span("process", "consumer", topic, id, Some(consumer));
    // What every process consumes (`chassis.revocations`) is the process's own business.
    let service = consumer.split('.').next().filter(|service| *service != "chassis");
    trace::join(&span, service, traceparent);
    span
}

fn span(operation: &'static str, kind: &'static str, topic: &str, id: EventId, consumer: Option<&str>) -> Span {
    tracing::info_span!(
        "event",
        otel.name = format_args!("{operation} {topic}"),
        otel.kind = kind,
        otel.status_code = tracing::field::Empty,
        messaging.system = "guildhall",
        messaging.operation.name = operation,
        messaging.operation.type = operation,
        messaging.destination.name = topic,
        messaging.consumer.group.name = consumer,
        messaging.message.id = %id,
    )
}
