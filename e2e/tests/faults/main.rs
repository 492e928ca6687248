//! Short seeds of the fault harness; `cargo xtask faults` runs all scenarios, at length. Those that measure how soon something
//! happens are run there alone, where nothing else uses the machine.

use e2e::faults::{Length, Run, Scenario};
use tokio::sync::Mutex;

const SEED: u64 = 20_261_121;

/// A deployment has up to seven processes: two at once would only wait for each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn short(scenario: Scenario) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let run = Run::new(SEED, env!("CARGO_BIN_EXE_guildhall-under-test"), Length::Short);
    let findings = scenario.run(&run, None).await;
    run.expect_no_defect(&findings);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_loses_nothing_and_does_nothing_twice() {
    short(Scenario::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_postgresql_is_answered_by_503_with_retry_after() {
    short(Scenario::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_halted_or_lost_with_all_it_had_loses_nothing() {
    short(Scenario::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_halted_and_goes_on_does_nothing_twice() {
    short(Scenario::Pause).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_slow_silent_or_cut_loses_nothing() {
    short(Scenario::Partition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_of_svids_and_of_their_authority_fails_no_call() {
    short(Scenario::Rotation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_by_content_itself() {
    short(Scenario::Strangers).await;
}
