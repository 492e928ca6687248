use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{FilterExt, FilterFn, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::log::{self, Format, Style};
use crate::metric::Metrics;

/// Log lines that may wait to be written; more are dropped and counted.
const LOG_QUEUE: usize = 16 * 1024;
/// Spans that may wait to be exported; more are dropped.
const SPAN_QUEUE: usize = 4096;
/// How long one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How a process tells about itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What log lines look like.
    pub format: Format,
    /// Which events are logged, in the syntax of `tracing_subscriber::EnvFilter`: `info,content=debug`.
    pub filter: String,
    /// Where traces go, by OTLP over gRPC: `http://localhost:4317`. Without one, trace ids exist but are not exported.
    pub otlp_endpoint: Option<String>,
    /// The process's name in traces.
    pub service_name: String,
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter cannot be read.
    #[error("the log filter is not valid")]
    Filter(#[from] ParseError),
    /// The exporter of traces cannot be made.
    #[error("traces cannot be exported")]
    Exporter(#[from] ExporterBuildError),
    /// The recorder of metrics cannot be made.
    #[error("metrics cannot be recorded")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Something else in this process takes the events.
    #[error("another subscriber has been installed in this process")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
}

/// The telemetry of this process. Clones are the same.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    tracer: SdkTracerProvider,
    writer: Mutex<Option<WorkerGuard>>,
}

impl Telemetry {
    /// The metrics of this process.
    pub fn metrics(&self) -> Metrics {
        self.0.metrics.clone()
    }

    /// Sends the spans and writes the lines that wait. It blocks for at most a few seconds, and is the last thing that a
    /// process does: later lines are lost.
    pub fn shutdown(&self) {
        if let Err(error) = self.0.tracer.shutdown_with_timeout(EXPORT_TIMEOUT) {
            tracing::warn!(error = %error, "The last spans were not exported");
        }
        // Dropping the guard writes what is queued.
        drop(self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

static STARTED: Mutex<Option<Telemetry>> = Mutex::new(None);

/// Starts the telemetry of this process. Called again, it changes nothing and answers what is there.
///
/// With an OTLP endpoint it must be called in a tokio runtime that lives as long as the process.
pub fn init(settings: &Settings) -> Result<Telemetry, Error> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(telemetry) = started.as_ref() {
        return Ok(telemetry.clone());
    }
    let telemetry = start(settings)?;
    *started = Some(telemetry.clone());
    Ok(telemetry)
}

fn start(settings: &Settings) -> Result<Telemetry, Error> {
    let filter: EnvFilter = settings.filter.parse()?;
    let tracer = tracer_provider(settings)?;
    let (lines, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_QUEUE)
        .thread_name("log-writer")
        .finish(std::io::stdout());
    let metrics = Metrics::install(lines.error_counter())?;
    tracing_subscriber::registry()
        .with(tracing_opentelemetry::layer().with_tracer(tracer.tracer("guildhall")).with_filter(spans()))
        // The log keeps every span whatever its filter for events is: their fields and the trace's id stand on each line.
        .with(
            log::layer(Style::of(settings.format, std::io::stdout().is_terminal()), lines)
                .with_filter(spans().or(filter)),
        )
        .try_init()?;
    Ok(Telemetry(Arc::new(Inner { metrics, tracer, writer: Mutex::new(Some(guard)) })))
}

/// Our spans: what libraries trace below INFO is not for operators.
fn spans() -> FilterFn {
    filter_fn(|metadata| metadata.is_span() && *metadata.level() <= LevelFilter::INFO)
}

fn tracer_provider(settings: &Settings) -> Result<SdkTracerProvider, Error> {
    let resource = Resource::builder().with_service_name(settings.service_name.clone()).build();
    let provider = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = &settings.otlp_endpoint else {
        return Ok(provider.with_sampler(Sampler::AlwaysOff).build());
    };
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT).build()?;
    let batches = BatchConfigBuilder::default().with_max_queue_size(SPAN_QUEUE).build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    Ok(provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn))).with_span_processor(processor).build())
}
