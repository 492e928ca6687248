use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::ErrorCounter;

use crate::export;

/// Upper bounds of the buckets of every `*_seconds` histogram: from a cache hit to a long stream.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// How often samples are moved into their buckets, so that they do not pile up when nobody asks for the metrics.
const UPKEEP: Duration = Duration::from_secs(5);

/// What each metric says, for who reads them in Prometheus. A metric that is not here has no help text.
const MEANINGS: [(&str, &str); 40] = [
    ("guildhall_cache_requests_total", "Look-ups in a cache, by outcome."),
    ("guildhall_db_pool_connections", "Open connections to a database."),
    ("guildhall_db_pool_idle_connections", "Open connections to a database that nobody uses."),
    ("guildhall_db_pool_wait_seconds", "How long callers waited for a connection to a database."),
    ("guildhall_edge_connections_refused_total", "Connections over what one client address may have open."),
    ("guildhall_edge_rate_limited_total", "Requests refused because their rate limit was reached, by class."),
    ("guildhall_events_dead_letters_total", "Events that a consumer gave up on."),
    ("guildhall_events_failures_total", "Attempts to handle an event that failed."),
    ("guildhall_events_handled_total", "Events that were handled."),
    ("guildhall_events_lag_seconds", "Age of the oldest event in Redis that a consumer is not done with."),
    ("guildhall_events_lost_total", "Events that were deleted from Redis before a consumer handled them."),
    ("guildhall_events_outbox_lag_seconds", "Age of the oldest event that is not published yet."),
    ("guildhall_events_pending", "Events in Redis that a consumer is not done with."),
    ("guildhall_events_published_total", "Events handed to the bus."),
    ("guildhall_events_republished_total", "Events published again because the bus had lost what it acknowledged."),
    ("guildhall_events_streams_owned", "Streams that this process handles for a consumer."),
    ("guildhall_http_client_in_flight", "HTTP requests to other services under way."),
    ("guildhall_http_client_seconds", "How long HTTP requests to other services took."),
    ("guildhall_http_server_in_flight", "HTTP requests being answered."),
    ("guildhall_http_server_seconds", "How long HTTP requests took to answer."),
    (
        "guildhall_limit_shared",
        "Whether all processes count calls against the limits together (1), or each by itself since Redis is away (0).",
    ),
    ("guildhall_limit_unshared_total", "Calls counted against the limits by this process alone, since Redis was away."),
    ("guildhall_log_dropped_lines_total", "Lines of the log that were dropped because nobody took them fast enough."),
    ("guildhall_mesh_all_endpoints_out_total", "Calls refused at once because no endpoint could be asked."),
    (
        "guildhall_mesh_answer_estimate_seconds",
        "Peak-EWMA of an endpoint's time to an answer, by which calls are balanced.",
    ),
    ("guildhall_mesh_breaker_open", "Channels whose breaker keeps calls from an endpoint."),
    ("guildhall_mesh_breaker_opened_total", "Times that a breaker put an endpoint out."),
    ("guildhall_mesh_endpoints", "Endpoints that calls to a service may go to."),
    ("guildhall_mesh_lookup_failures_total", "Look-ups of an endpoint's name that failed."),
    ("guildhall_mesh_picks_total", "Attempts of calls that went to an endpoint."),
    ("guildhall_mesh_retries_total", "Calls that were sent again, by the outcome of that attempt."),
    (
        "guildhall_mesh_retry_budget_exhausted_total",
        "Failed calls that were not sent again because the retry budget was spent.",
    ),
    ("guildhall_mesh_svid_expiry_seconds", "Time until the X.509-SVID expires."),
    ("guildhall_redis_errors_total", "Commands to Redis that failed, by what failed."),
    ("guildhall_redis_seconds", "How long commands to Redis took."),
    ("guildhall_rpc_client_in_flight", "Calls to other services under way."),
    ("guildhall_rpc_client_seconds", "How long calls to other services took."),
    ("guildhall_rpc_server_in_flight", "Calls being answered."),
    ("guildhall_rpc_server_seconds", "How long calls took to answer."),
    ("guildhall_trace_dropped_spans_total", "Spans that were not exported, by the reason."),
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
        for reason in export::REASONS {
            export::dropped(reason).increment(0);
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
