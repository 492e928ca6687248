use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{FilterExt, ParseError, dynamic_filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::export::{self, Exit};
use crate::log::{self, Format, Style};
use crate::metric::Metrics;

/// Log lines that may wait to be written; more are dropped and counted.
const LOG_QUEUE: usize = 16 * 1024;
/// The target of the spans of statements. There are many, so that they exist only where a trace is recorded, and no log line lists
/// them.
const SQL: &str = "sql";

/// How a process tells about itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What log lines look like.
    pub format: Format,
    /// Which events are logged, in the syntax of `tracing_subscriber::EnvFilter`: `info,content=debug`.
    pub filter: String,
    /// Where traces go, by OTLP over gRPC: `http://localhost:4317`. Without one, trace ids exist but are not exported.
    pub otlp_endpoint: Option<String>,
    /// The process's name in traces, for what belongs to no service: spans of a service go under its own name.
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
        if let Err(error) = self.0.tracer.shutdown_with_timeout(export::TIMEOUT) {
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
    let (lines, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_QUEUE)
        .thread_name("log-writer")
        .finish(std::io::stdout());
    let metrics = Metrics::install(lines.error_counter())?;
    let tracer = tracer_provider(settings)?;
    // Each of these costs every call something, and says nothing of it: spans are made in a few places, and tasks move from thread to
    // thread. What waits has spans of its own.
    let spans = tracing_opentelemetry::layer().with_location(false).with_threads(false).with_tracked_inactivity(false);
    tracing_subscriber::registry()
        .with(spans.with_tracer(tracer.tracer("guildhall")).with_filter(chosen(is_traced)))
        // The log keeps every span whatever its filter for events is: their fields and the trace's id stand on each line.
        .with(
            log::layer(Style::of(settings.format, std::io::stdout().is_terminal()), lines)
                .with_filter(chosen(is_span_of_ours).or(filter)),
        )
        .try_init()?;
    Ok(Telemetry(Arc::new(Inner { metrics, tracer, writer: Mutex::new(Some(guard)) })))
}

/// What libraries trace below INFO is not for operators.
fn is_span_of_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() <= LevelFilter::INFO
}

fn is_traced(metadata: &Metadata<'_>) -> bool {
    is_span_of_ours(metadata) || (metadata.is_span() && metadata.target() == SQL)
}

/// A filter that is asked each time. One whose answer is kept per callsite is not, and then a span meets what the last question on
/// this thread was answered: `log::log_enabled!`, as sqlx asks after each statement, would take the next span out of its trace.
fn chosen<S>(choice: fn(&Metadata<'_>) -> bool) -> impl Filter<S> {
    dynamic_filter_fn(move |metadata, _| choice(metadata))
        .with_callsite_filter(move |metadata| if choice(metadata) { Interest::sometimes() } else { Interest::never() })
}

/// The environment chooses the sampler, as OpenTelemetry says (`OTEL_TRACES_SAMPLER`); by default every trace is exported whose
/// beginner wants it to be.
fn tracer_provider(settings: &Settings) -> Result<SdkTracerProvider, Error> {
    let provider = SdkTracerProvider::builder();
    Ok(match &settings.otlp_endpoint {
        Some(endpoint) => provider.with_span_processor(Exit::new(endpoint, &settings.service_name)?),
        None => provider.with_sampler(Sampler::AlwaysOff),
    }
    .build())
}
