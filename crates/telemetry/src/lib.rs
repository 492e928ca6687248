//! What a process tells about itself: logs, traces and metrics, none of which slow a call down.
//!
//! - Logs are one JSON object per line (or text for people, on a terminal) with the trace's id on each. A thread of their own
//!   writes them; its queue is bounded, and what does not fit is dropped and counted.
//! - Traces follow W3C Trace Context from process to process and go out by OTLP in batches from a bounded queue.
//! - Metrics are rendered by [`Metrics::render`] in Prometheus' text format.
//!
//! [`init`] is called once at the start of a process; several services in one process share it, which is why every metric of
//! theirs carries a `service` label. To measure one more thing, use the macros of the `metrics` crate, name the metric
//! `guildhall_<noun>_<unit or total>`, and keep its labels to a few known values: never one per user, path or id.
//!
//! What a `.proto` marks `debug_redact` stays out of the logs: a field of that name is written as `[redacted]`, and the
//! generated messages redact themselves when they are formatted.

pub mod event;
mod export;
mod layer;
mod log;
mod metric;
mod redact;
mod setup;
mod trace;

pub use layer::{ClientLayer, Observed, Route, ServerLayer};
pub use log::Format;
pub use metric::Metrics;
pub use setup::{Error, Settings, Telemetry, init};
pub use trace::traceparent;
