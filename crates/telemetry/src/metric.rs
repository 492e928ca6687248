use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::ErrorCounter;

/// Upper bounds of the buckets of every `*_seconds` histogram: from a cache hit to a long stream.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// How often samples are moved into their buckets, so that they do not pile up when nobody asks for the metrics.
const UPKEEP: Duration = Duration::from_secs(5);

/// What each metric says, for who reads them in Prometheus. A metric that is not here has no help text.
const MEANINGS: [(&str, &str); 20] = [
    ("guildhall_cache_requests_total", "Look-ups in a cache, by outcome."),
    ("guildhall_db_pool_connections", "Open connections to a database."),
    ("guildhall_db_pool_idle_connections", "Open connections to a database that nobody uses."),
    ("guildhall_db_pool_wait_seconds", "How long callers waited for a connection to a database."),
    ("guildhall_edge_connections_refused_total", "Connections over what one client address may have open."),
    ("guildhall_edge_rate_limited_total", "Requests refused because their rate limit was reached, by class."),
    ("guildhall_events_dead_letters_total", "Events that a consumer gave up on."),
    ("guildhall_events_failures_total", "Attempts to handle an event that failed."),
    ("guildhall_events_handled_total", "Events that were handled."),
    ("guildhall_events_outbox_lag_seconds", "Age of the oldest event that is not published yet."),
    ("guildhall_events_published_total", "Events handed to the bus."),
    ("guildhall_http_client_in_flight", "HTTP requests to other services under way."),
    ("guildhall_http_client_seconds", "How long HTTP requests to other services took."),
    ("guildhall_http_server_in_flight", "HTTP requests being answered."),
    ("guildhall_http_server_seconds", "How long HTTP requests took to answer."),
    ("guildhall_log_dropped_lines_total", "Lines of the log that were dropped because nobody took them fast enough."),
    ("guildhall_rpc_client_in_flight", "Calls to other services under way."),
    ("guildhall_rpc_client_seconds", "How long calls to other services took."),
    ("guildhall_rpc_server_in_flight", "Calls being answered."),
    ("guildhall_rpc_server_seconds", "How long calls took to answer."),
];

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    prometheus: PrometheusHandle,
    dropped_lines: ErrorCounter,
}

impl Metrics {
    /// Takes over as the process's recorder.
    pub(crate) fn install(dropped_lines: ErrorCounter) -> Result<Self, BuildError> {
        let prometheus = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
            .install_recorder()?;
        for (name, meaning) in MEANINGS {
            // The exporter keeps the text by name alone, whatever the kind.
            metrics::describe_counter!(name, meaning);
        }
        let handle = prometheus.clone();
        // A thread and not a task: it outlives every runtime of the process.
        std::thread::Builder::new()
            .name("metrics-upkeep".to_owned())
            .spawn(move || keep_up(&handle))
            .map_err(|error| BuildError::FailedToCreateRuntime(error.to_string()))?;
        Ok(Self { prometheus, dropped_lines })
    }

    /// All of them, in Prometheus' text format (version 0.0.4).
    pub fn render(&self) -> String {
        let dropped = u64::try_from(self.dropped_lines.dropped_lines()).unwrap_or(u64::MAX);
        metrics::counter!("guildhall_log_dropped_lines_total").absolute(dropped);
        self.prometheus.render()
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread is for nothing else")]
fn keep_up(prometheus: &PrometheusHandle) -> ! {
    loop {
        std::thread::sleep(UPKEEP);
        prometheus.run_upkeep();
    }
}
