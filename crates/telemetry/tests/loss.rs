//! A collector that takes nothing: spans are dropped and counted, and nobody waits for it.

use std::time::{Duration, Instant};

use telemetry::{Format, Settings};
use tokio::net::TcpListener;

const SPANS: u64 = 6000;
/// Those that may wait.
const QUEUE: u64 = 4096;

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_nobody_takes_are_dropped_and_counted_and_hold_up_nothing() {
    // It takes connections, and then says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let telemetry = telemetry::init(&Settings {
        format: Format::Json,
        filter: "off".to_owned(),
        otlp_endpoint: Some(format!("http://{}", silent.local_addr().unwrap())),
        service_name: "test".to_owned(),
    })
    .unwrap();
    let dropped = |reason: &str| {
        let series = format!(r#"guildhall_trace_dropped_spans_total{{reason="{reason}"}} "#);
        let metrics = telemetry.metrics().render();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{series}is not in\n{metrics}")).parse::<u64>().unwrap()
    };
    assert_eq!((dropped("queue_full"), dropped("export_failed")), (0, 0));

    let began = Instant::now();
    for _ in 0..SPANS {
        tracing::info_span!("work").in_scope(|| {});
    }
    assert!(began.elapsed() < Duration::from_secs(3), "spans wait for the collector: {:?}", began.elapsed());
    // What the exporter has in hand makes room for more.
    let overflow = dropped("queue_full");
    assert!((1..=SPANS - QUEUE).contains(&overflow), "{overflow}");

    let began = Instant::now();
    while dropped("export_failed") == 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "an export that nobody answers fails");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
