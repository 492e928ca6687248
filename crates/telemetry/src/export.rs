//! Spans on their way out: bounded, counted, and under the name of the service that they belong to.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::Counter;
use opentelemetry::{Context, KeyValue, StringValue, Value};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use tokio::runtime::Handle;

use crate::trace::Service;

/// Spans that may wait to be exported; more are dropped and counted.
const QUEUE: usize = 4096;
/// How long one export may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// Why a span is dropped.
pub(crate) const REASONS: [&str; 2] = [QUEUE_FULL, EXPORT_FAILED];
const QUEUE_FULL: &str = "queue_full";
const EXPORT_FAILED: &str = "export_failed";
/// The attribute by which a span travels from [`Exit`] to [`Exporters`]. It never leaves the process.
const SERVICE: &str = "guildhall.service";

/// Takes the spans that have ended. The SDK's own processor does the work, but does not tell how many it drops; so no more are
/// given to it than it has room for.
pub(crate) struct Exit {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    overflow: Counter,
}

impl Exit {
    /// To the collector at `endpoint`. What belongs to no service goes under the name of the `process`. Only in a tokio runtime.
    pub(crate) fn new(endpoint: &str, process: &str) -> Result<Self, ExporterBuildError> {
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporters = Exporters::new(endpoint, process, Arc::clone(&waiting))?;
        let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
        let batches = BatchSpanProcessor::builder(exporters).with_batch_config(config).build();
        Ok(Self { batches, waiting, overflow: dropped(QUEUE_FULL) })
    }
}

/// Spans that nobody will see, by the reason.
pub(crate) fn dropped(reason: &'static str) -> Counter {
    metrics::counter!("guildhall_trace_dropped_spans_total", "reason" => reason)
}

impl SpanProcessor for Exit {
    fn on_start(&self, span: &mut Span, parent: &Context) {
        if let Some(Service(service)) = parent.get() {
            opentelemetry::trace::Span::set_attribute(span, KeyValue::new(SERVICE, Arc::clone(service)));
        }
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < QUEUE {
            self.batches.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.overflow.increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }
}

impl fmt::Debug for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exit").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

/// An exporter for each service. A resource is a property of an exporter, and in `guildhall dev` several services share a process:
/// people who look at a trace have to see who did what there too.
struct Exporters {
    endpoint: String,
    process: StringValue,
    waiting: Arc<AtomicUsize>,
    failed: Counter,
    /// Connections need a runtime, and the thread that exports has none.
    runtime: Handle,
    by_service: Mutex<HashMap<StringValue, Arc<opentelemetry_otlp::SpanExporter>>>,
}

impl Exporters {
    fn new(endpoint: &str, process: &str, waiting: Arc<AtomicUsize>) -> Result<Self, ExporterBuildError> {
        let exporters = Self {
            endpoint: endpoint.to_owned(),
            process: process.to_owned().into(),
            waiting,
            failed: dropped(EXPORT_FAILED),
            runtime: Handle::current(),
            by_service: Mutex::default(),
        };
        // At once, so that an endpoint that cannot work is an error of the start.
        exporters.of(&exporters.process)?;
        Ok(exporters)
    }

    fn of(&self, service: &StringValue) -> Result<Arc<opentelemetry_otlp::SpanExporter>, ExporterBuildError> {
        let mut by_service = self.by_service.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exporter) = by_service.get(service) {
            return Ok(Arc::clone(exporter));
        }
        let _runtime = self.runtime.enter();
        let builder = opentelemetry_otlp::SpanExporter::builder().with_tonic();
        let mut exporter = builder.with_endpoint(&self.endpoint).with_timeout(TIMEOUT).build()?;
        let resource = Resource::builder()
            .with_attribute(KeyValue::new("service.namespace", "guildhall"))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_service_name(service.clone())
            .build();
        exporter.set_resource(&resource);
        let exporter = Arc::new(exporter);
        by_service.insert(service.clone(), Arc::clone(&exporter));
        Ok(exporter)
    }
}

impl SpanExporter for Exporters {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
        let mut parts = HashMap::<StringValue, Vec<SpanData>>::new();
        for mut span in batch {
            let service = take_service(&mut span).unwrap_or_else(|| self.process.clone());
            parts.entry(service).or_default().push(span);
        }
        let mut outcome = Ok(());
        for (service, spans) in parts {
            let count = spans.len() as u64;
            let exported = match self.of(&service) {
                Ok(exporter) => exporter.export(spans).await,
                Err(error) => Err(opentelemetry_sdk::error::OTelSdkError::InternalFailure(error.to_string())),
            };
            if exported.is_err() {
                self.failed.increment(count);
                outcome = exported;
            }
        }
        outcome
    }
}

impl fmt::Debug for Exporters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporters").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn take_service(span: &mut SpanData) -> Option<StringValue> {
    let at = span.attributes.iter().position(|attribute| attribute.key.as_str() == SERVICE)?;
    match span.attributes.swap_remove(at).value {
        Value::String(service) => Some(service),
        _ => None,
    }
}
