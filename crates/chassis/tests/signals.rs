//! Signals, in a process of its own: the test runs itself once more and signals that.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Marks the process that is signalled.
const SIGNALLED: &str = "GUILDHALL_TEST_SIGNALLED";

#[test]
fn the_first_signal_drains_and_the_second_ends_the_process_at_once() {
    if std::env::var_os(SIGNALLED).is_some() {
        return wait_for_signals();
    }
    for [first, second] in [["TERM", "INT"], ["INT", "TERM"]] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--nocapture")
            .env(SIGNALLED, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut saw = |line: &str| lines.by_ref().map_while(Result::ok).any(|found| found.ends_with(line));
        let kill = |signal| Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(saw("waiting"));
        assert!(kill(first).success());
        assert!(saw("draining"), "SIG{first} starts the drain");
        assert!(kill(second).success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "SIG{second} ends the process");
    }
}

fn wait_for_signals() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let drain = chassis::drain_on_signal().unwrap();
        println!("waiting");
        drain.cancelled().await;
        println!("draining");
        std::future::pending::<()>().await;
    });
}
