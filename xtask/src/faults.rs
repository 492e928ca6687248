//! `cargo xtask faults`: builds the fault harness of `e2e`, with the program that it breaks, and becomes it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{postgres, redis, tool};

/// What is broken, and what must hold nevertheless. The times are those of a run at length on two cores with nothing else to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// `kill -9` of all of `guildhall dev`, 100 times: nothing acknowledged is lost, nothing happens twice (3 min)
    KillDev,
    /// `kill -9` of each process in turn, 100 times (8 min)
    Kill,
    /// Restarts in order, two replicas of each process, 20 times: no call fails, none runs twice (6 min)
    Restart,
    /// PostgreSQL restarts, as if told to and as if it crashed, 10 times each: errors are 503 with Retry-After (2 min)
    Postgres,
    /// Redis is halted for 30 s, and lost with all that it had for 30 s, 3 times each (4 min)
    Redis,
    /// Each process is halted for up to 13 s, longer than its leases, and goes on, 5 times (6 min)
    Pause,
    /// Each network is slow, silent or cut for up to 13 s, 5 times (5 min)
    Partition,
    /// SVIDs are replaced every 5 s, and their authority once, under calls on fresh connections that nobody repeats (11 min)
    Rotation,
    /// Two replicas of each service: each piece of work is done once, and a dead replica's by the other (5 min)
    Replicas,
    /// A new version migrates the databases while the previous one serves from them: no call fails (2 min, and once the build)
    Migration,
    /// Without an SVID, with a foreign one and with the wrong one nobody gets through to content (5 s)
    Strangers,
}

/// What is run. The program in `e2e` has the same command line.
#[derive(Args)]
pub struct Options {
    /// What is broken; without any, all of it in turn.
    #[arg(value_enum, value_name = "SCENARIO")]
    pub scenarios: Vec<Scenario>,
    /// Decides about moments and choices. The same seed does the same again, at the pace of the machine.
    #[arg(long, default_value_t = 20_261_121)]
    pub seed: u64,
    /// How often the fault is made (rounds of it, where there are several things to break), instead of what the project promises.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: Option<u32>,
    /// As short as in `cargo xtask test`: some ten seconds each.
    #[arg(long)]
    pub short: bool,
    /// Keeps what the processes print: a directory for each scenario, in it a file for each process.
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
}

#[derive(Args)]
pub struct Build {
    #[command(flatten)]
    options: Options,
    /// Builds with optimisation: more calls between two faults.
    #[arg(long)]
    release: bool,
}

impl Scenario {
    /// As the command line has it.
    pub fn name(self) -> String {
        self.to_possible_value().expect("no scenario is left out").get_name().to_owned()
    }
}

impl Options {
    /// The scenarios that are run.
    pub fn chosen(&self) -> &[Scenario] {
        if self.scenarios.is_empty() { Scenario::value_variants() } else { &self.scenarios }
    }
}

pub fn run(Build { options, release }: &Build) -> Result<()> {
    postgres::install()?;
    redis::install()?;
    let profile: &[&str] = if *release { &["--release"] } else { &[] };
    let build = ["--locked", "-p", "e2e", "--bin", "guildhall-under-test"];
    tool::run(Command::new("cargo").arg("build").args(build).args(profile))?;
    let run = ["--locked", "-p", "e2e", "--bin", "faults"];
    let mut harness = Command::new("cargo");
    harness.arg("run").args(run).args(profile).arg("--").args(options.scenarios.iter().map(|scenario| scenario.name()));
    if options.chosen().contains(&Scenario::Migration) {
        harness.arg("--previous").arg(previous()?);
    }
    harness.arg(format!("--seed={}", options.seed));
    if let Some(runs) = options.runs {
        harness.arg(format!("--runs={runs}"));
    }
    if options.short {
        harness.arg("--short");
    }
    if let Some(logs) = &options.logs {
        harness.arg("--logs").arg(logs);
    }
    // The harness ends what it started when it is told to end. As a child of this process it would not be told.
    Err(harness.exec()).context("cannot start cargo")
}

/// The program of the last commit before the newest migration, built once into the cache.
fn previous() -> Result<PathBuf> {
    let migrations = [":(glob)crates/*/migrations/**", ":(glob)services/*/migrations/**"];
    let git = |arguments: &[&str]| tool::output(Command::new("git").args(arguments).args(["--"]).args(migrations));
    // A migration that is not committed yet is newer than any that is.
    let commit = if git(&["status", "--porcelain"])?.is_empty() {
        let newest = git(&["log", "-1", "--format=%H", "--diff-filter=A"])?;
        ensure!(!newest.is_empty(), "the history has no migration: a shallow clone needs `git fetch --unshallow`");
        format!("{}^", newest.trim())
    } else {
        "HEAD".to_owned()
    };
    let commit = tool::output(Command::new("git").args(["rev-parse", "--verify", &commit]))
        .context("there is no commit before the newest migration: a shallow clone needs `git fetch --unshallow`")?;
    let commit = commit.trim();
    // A target directory of its own, since cargo takes checkouts that share one for the same.
    let kept = tool::cache()?.join("previous");
    let home = kept.join(commit);
    let program = home.join("target/debug/guildhall");
    if program.exists() {
        return Ok(program);
    }
    println!("    building the version before the newest migration, {commit}, in {}", home.display());
    // Only one is of use at a time, and each takes gigabytes.
    if kept.exists() {
        fs::remove_dir_all(&kept)?;
    }
    fs::create_dir_all(&home)?;
    let mut archive = Command::new("git").args(["archive", commit]).stdout(Stdio::piped()).spawn()?;
    let sources = archive.stdout.take().context("git archive has no output")?;
    let unpacked = Command::new("tar").arg("-x").arg("-C").arg(&home).stdin(sources).status()?;
    ensure!(archive.wait()?.success() && unpacked.success(), "the sources of {commit} cannot be unpacked");
    let mut build = Command::new("cargo");
    build.args(["build", "--locked", "-p", "guildhall", "--bin", "guildhall"]).current_dir(&home);
    tool::run(build.env("CARGO_TARGET_DIR", home.join("target")))?;
    Ok(program)
}
