//! What an operator sees when Redis goes and comes back. A binary of its own, since metrics and log are the process's.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ids::Source;
use keyspace::testing::Server;
use limit::{Claim, InProcess, Key, Limits, OnRedis, Rate};
use metrics_exporter_prometheus::PrometheusBuilder;

/// Where the log goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_of_state_is_one_line_of_the_log_and_metrics_tell_the_state() {
    let metrics = PrometheusBuilder::new().install_recorder().expect("the first recorder");
    let shows = |line: &str| metrics.render().lines().any(|found| found == line);
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_target(true).init();
    let lines = || -> Vec<_> { log.lines().into_iter().filter(|line| line.contains("limit::")).collect() };

    let server = Server::start(&[]).await;
    let limits = OnRedis::new(server.keyspace(), &[7; 32], InProcess::new(1000, Source::system()));
    let limits = limits.patience(Duration::from_secs(10));
    let claim = Claim { key: Key::new("test", "a"), rate: Rate::new(1000, Duration::from_hours(1)) };
    limits.take(&[claim]).await.expect("there is room");
    assert!(shows("guildhall_limit_shared 1") && shows("guildhall_limit_unshared_total 0"), "{}", metrics.render());

    server.pause().await;
    for _ in 0..20 {
        limits.take(&[claim]).await.expect("there is room");
    }
    assert!(shows("guildhall_limit_shared 0") && shows("guildhall_limit_unshared_total 20"), "{}", metrics.render());
    server.resume().await;
    let back = async {
        while !shows("guildhall_limit_shared 1") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), back).await.expect("it is back");
    limits.take(&[claim]).await.expect("there is room");
    assert!(shows("guildhall_limit_unshared_total 20"), "{}", metrics.render());

    let lines = lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("Redis did not answer in time"), "{lines:?}");
    assert!(lines[1].contains("INFO"), "{lines:?}");
}
