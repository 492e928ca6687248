//! `cargo xtask faults`: builds the fault harness of `e2e`, with the program that it breaks, and runs it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{postgres, redis, tool};

/// The scenario that needs the previous version too.
const MIGRATION: &str = "migration";

#[derive(Args)]
pub struct Options {
    /// What is broken; without any, all of it in turn: kill-dev, kill, restart, postgres, redis, pause, partition, rotation, replicas,
    /// migration, strangers.
    scenarios: Vec<String>,
    /// Repeats an earlier run's moments and choices.
    #[arg(long)]
    seed: Option<u64>,
    /// How often the fault is made (rounds of it, where there are several things to break), instead of what the project promises.
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// As short as in `cargo xtask test`.
    #[arg(long)]
    short: bool,
    /// Keeps what the processes of a deployment print, a file for each.
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Builds with optimisation: more calls between two faults.
    #[arg(long)]
    release: bool,
}

pub fn run(options: &Options) -> Result<()> {
    postgres::install()?;
    redis::install()?;
    let profile: &[&str] = if options.release { &["--release"] } else { &[] };
    let build = ["--locked", "--quiet", "-p", "e2e", "--bin", "guildhall-under-test"];
    tool::run(Command::new("cargo").arg("build").args(build).args(profile))?;
    let run = ["--locked", "--quiet", "-p", "e2e", "--bin", "faults"];
    let mut harness = Command::new("cargo");
    harness.arg("run").args(run).args(profile).arg("--").args(&options.scenarios);
    if options.scenarios.is_empty() || options.scenarios.iter().any(|name| name == MIGRATION) {
        harness.arg("--previous").arg(previous()?);
    }
    if let Some(seed) = options.seed {
        harness.arg(format!("--seed={seed}"));
    }
    if let Some(runs) = options.runs {
        harness.arg(format!("--runs={runs}"));
    }
    if options.short {
        harness.arg("--short");
    }
    if let Some(logs) = &options.logs {
        harness.arg("--logs").arg(logs);
    }
    tool::run(&mut harness)
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
    build.args(["build", "--locked", "--quiet", "-p", "guildhall", "--bin", "guildhall"]).current_dir(&home);
    tool::run(build.env("CARGO_TARGET_DIR", home.join("target")))?;
    Ok(program)
}
