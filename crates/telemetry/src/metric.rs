use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::ErrorCounter;

/// Upper bounds of the buckets of every `*_seconds` histogram: from a cache hit to a long stream.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// How often samples are moved into their buckets, so that they do not pile up when nobody asks for the metrics.
const UPKEEP: Duration = Duration::from_secs(5);

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
