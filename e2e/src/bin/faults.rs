//! The fault harness as a program: what `cargo xtask faults` runs.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use e2e::faults::{Findings, Length, Run, Scenario};
use futures_util::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use xtask::faults::Options;

/// Breaks Guildhall on purpose, and compares what clients were told with the databases.
#[derive(Parser)]
#[command(bin_name = "cargo xtask faults")]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// The program as it was before the newest migration.
    #[arg(long, value_name = "PROGRAM")]
    previous: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let defects = runtime.expect("a runtime").block_on(async {
        // Whoever ends this from outside ends what it started: all of it is held by the run, which is dropped here.
        tokio::select! {
            defects = run(arguments) => Some(defects),
            () = told_to_end() => None,
        }
    });
    if defects == Some(0) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Until somebody ends this from outside.
async fn told_to_end() {
    let hear = |kind| signal(kind).expect("signals can be heard");
    let (mut terminate, mut interrupt) = (hear(SignalKind::terminate()), hear(SignalKind::interrupt()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Runs the scenarios one after the other, and counts the defects.
async fn run(Arguments { options, previous }: Arguments) -> usize {
    let length = if options.short { Length::Short } else { Length::Long };
    let mut all = Vec::new();
    for &scenario in options.chosen() {
        println!("==> {}, seed {}", scenario.name(), options.seed);
        let logs = options.logs.as_ref().map(|directory| directory.join(scenario.name()));
        if let Some(directory) = &logs {
            std::fs::create_dir_all(directory).expect("the directory for logs can be made");
        }
        let mut run = Run::new(options.seed, program(), length);
        run.times = options.runs;
        run.previous.clone_from(&previous);
        let began = Instant::now();
        // One that cannot go on says why, and takes nothing from the others.
        let made = AssertUnwindSafe(run.make(scenario, logs.as_deref())).catch_unwind().await;
        let findings = made.unwrap_or_else(|_| Findings {
            defects: vec!["it could not go on: see above, where it says why".to_owned()],
            ..Findings::default()
        });
        println!("{findings}");
        all.push((scenario, began.elapsed(), findings));
    }
    summarize(&all);
    let defects = all.iter().map(|(_, _, findings)| findings.defects.len()).sum();
    println!("==> {defects} defects");
    defects
}

fn summarize(all: &[(Scenario, Duration, Findings)]) {
    println!("==> scenario    seconds   calls  acknowledged  refused  no answer    facts  defects");
    for (scenario, took, findings) in all {
        let Findings { calls, acknowledged, refused, unknown, checked, defects, .. } = findings;
        println!(
            "    {:<10}  {:>7}  {calls:>6}  {acknowledged:>12}  {refused:>7}  {unknown:>9}  {checked:>7}  {:>7}",
            scenario.name(),
            took.as_secs(),
            defects.len()
        );
    }
}

/// Cargo builds it beside this program.
fn program() -> PathBuf {
    std::env::current_exe().expect("this program is a file").with_file_name("guildhall-under-test")
}
