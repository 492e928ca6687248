//! Short seeds of the fault harness; `cargo xtask faults` runs all scenarios, at length. Those that measure how soon something
//! happens are run there alone, where nothing else uses the machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use e2e::eventually;
use e2e::faults::{Length, Run, Scenario};
use e2e::process::Process;
use tokio::sync::Mutex;

const SEED: u64 = 20_261_121;

/// How soon processes that are ended are gone, on a machine that is busy.
const SOON: Duration = Duration::from_secs(30);

/// A deployment has up to seven processes: two at once would only wait for each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn short(scenario: Scenario) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let run = Run::new(SEED, env!("CARGO_BIN_EXE_guildhall-under-test"), Length::Short);
    let findings = run.make(scenario, None).await;
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

#[tokio::test]
async fn a_harness_that_is_told_to_end_ends_all_that_it_started() {
    let _turn = ONE_AT_A_TIME.lock().await;
    // PostgreSQL runs as somebody else, who has to get through it.
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir();
    let directory = directory.expect("a temporary directory");
    let said = directory.path().join("said");
    let arguments = ["kill", "--runs", "1000"].map(str::to_owned);
    let mut harness = Process::new("the harness", env!("CARGO_BIN_EXE_faults").as_ref(), arguments)
        .set("TMPDIR", directory.path().display().to_string())
        .stdout(&said);
    harness.start();
    harness.until(async || fs::read_to_string(&said).ok().filter(|said| said.contains("kill 1 of"))).await;
    let started = processes_in(directory.path()).join("\n");
    for program in ["serve auth", "serve content", "serve edge-gateway", " agent ", "postgres", "redis-server"] {
        assert!(started.contains(program), "no {program} in\n{started}");
    }
    let ended = harness.stop().await;
    assert!(!ended.success(), "the harness says that it found no defect");
    eventually(SOON, "nothing runs any more", async || processes_in(directory.path()).is_empty().then_some(())).await;
    let left: Vec<_> = fs::read_dir(directory.path()).expect("it is there").flatten().map(|left| left.path()).collect();
    assert_eq!(left, [said]);
}

/// Each has a place in the directory that the harness was given: as its working directory, or among its arguments.
fn processes_in(directory: &Path) -> Vec<String> {
    let ids = fs::read_dir("/proc").expect("processes").map(|entry| entry.expect("an entry").path());
    let there = ids.filter_map(|process| {
        // One that ends meanwhile is none.
        let command = String::from_utf8_lossy(&fs::read(process.join("cmdline")).ok()?).replace('\0', " ");
        let works_there = fs::read_link(process.join("cwd")).is_ok_and(|at| at.starts_with(directory));
        (works_there || command.contains(&directory.display().to_string())).then_some(command)
    });
    there.collect()
}
