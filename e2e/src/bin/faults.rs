//! The fault harness as a program: what `cargo xtask faults` runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum as _};
use e2e::faults::{Length, Run, Scenario};

/// Breaks Guildhall on purpose, and compares what clients were told with the databases.
#[derive(Parser)]
#[command(bin_name = "cargo xtask faults")]
struct Arguments {
    /// What is broken; without any, all of it in turn.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Repeats an earlier run's moments and choices.
    #[arg(long, default_value_t = 20_261_121)]
    seed: u64,
    /// How often the fault is made (rounds of it, where there are several things to break), instead of what the project promises.
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// As short as in `cargo xtask test`.
    #[arg(long)]
    short: bool,
    /// The program as it was before the newest migration.
    #[arg(long, value_name = "PROGRAM")]
    previous: Option<PathBuf>,
    /// Keeps what the processes of a deployment print, a file for each.
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let defects = runtime.expect("a runtime").block_on(async {
        // Whoever ends this from outside ends what it started.
        tokio::select! {
            defects = run(arguments) => Some(defects),
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    if defects == Some(0) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(arguments: Arguments) -> usize {
    let scenarios = match arguments.scenarios.as_slice() {
        [] => Scenario::value_variants().to_vec(),
        named => named.to_vec(),
    };
    let mut defects = 0;
    for scenario in scenarios {
        let name = scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let length = if arguments.short { Length::Short } else { Length::Long };
        println!("==> {name}, seed {}", arguments.seed);
        let logs = arguments.logs.as_ref().map(|directory| directory.join(&name));
        if let Some(directory) = &logs {
            std::fs::create_dir_all(directory).expect("the directory for logs can be made");
        }
        let mut run = Run::new(arguments.seed, program(), length);
        run.times = arguments.runs;
        run.previous.clone_from(&arguments.previous);
        let findings = scenario.run(&run, logs.as_deref()).await;
        println!("{findings}");
        defects += findings.defects.len();
    }
    println!("==> {defects} defects");
    defects
}

/// Cargo builds it beside this program.
fn program() -> PathBuf {
    std::env::current_exe().expect("this program is a file").with_file_name("guildhall-under-test")
}
