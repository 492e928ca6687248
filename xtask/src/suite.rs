//! `cargo xtask test`: every check and every test, in order, each with its time; the counts come last.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::{postgres, redis, tool};

#[derive(Args)]
pub struct Options {
    /// Runs only these steps; all when none is named.
    #[arg(long = "step", value_enum)]
    steps: Vec<Step>,
    /// Passed on to `cargo test`, such as the name of a test or `-p content`.
    #[arg(last = true)]
    cargo: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The sources are formatted.
    Format,
    /// clippy has no warning.
    Clippy,
    /// Dependencies: no banned crate, allowed licences, known sources.
    Deny,
    /// The contracts follow the rules of `buf.yaml`.
    Buf,
    /// Unit, property, conformance and end-to-end tests on SQLite, PostgreSQL and Redis.
    Tests,
}

/// How many tests ran.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

pub fn run(options: &Options) -> Result<()> {
    let steps = if options.steps.is_empty() { Step::value_variants().to_vec() } else { options.steps.clone() };
    let began = Instant::now();
    let mut failures = Vec::new();
    let mut notes = Vec::new();
    let mut counts = Counts::default();
    for step in &steps {
        let name = step.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        println!("==> {name}");
        let step_began = Instant::now();
        let result = match step {
            Step::Format => component("fmt", "rustfmt", &["fmt", "--all", "--check"], &mut notes),
            Step::Clippy => component(
                "clippy",
                "clippy",
                &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"],
                &mut notes,
            ),
            Step::Deny => tool::cargo_deny().and_then(|deny| {
                tool::run(Command::new(deny).args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
            }),
            Step::Buf => tool::buf().and_then(|buf| tool::run(Command::new(buf).arg("lint"))),
            Step::Tests => tests(&options.cargo, &mut counts),
        };
        let spent = shown(step_began.elapsed());
        match result {
            Ok(()) => println!("    {name} done in {spent}"),
            Err(error) => {
                println!("    {name} FAILED after {spent}: {error:#}");
                failures.push(name);
            }
        }
    }

    println!("==> {} steps in {}", steps.len(), shown(began.elapsed()));
    for note in notes {
        println!("    {note}");
    }
    if steps.contains(&Step::Tests) {
        println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    }
    if !failures.is_empty() {
        bail!("failed: {}", failures.join(", "));
    }
    Ok(())
}

/// Runs a part of the Rust toolchain that may not be installed. Then the run's last lines say so: it is not silent, and it is
/// no failure of the sources.
fn component(subcommand: &str, name: &str, arguments: &[&str], notes: &mut Vec<String>) -> Result<()> {
    if tool::output(Command::new("cargo").args([subcommand, "--version"])).is_err() {
        notes.push(format!("NOT RUN: {name} is not installed here; add it with  rustup component add {name}"));
        return Ok(());
    }
    tool::run(Command::new("cargo").args(arguments))
}

fn tests(arguments: &[String], counts: &mut Counts) -> Result<()> {
    let postgres = postgres::Instance::start().context("the tests run on PostgreSQL too")?;
    println!("    PostgreSQL for this run listens at {}", postgres.url());
    let redis = redis::Instance::start().context("the tests run on Redis too")?;
    println!("    Redis for this run listens at {}", redis.url());
    let promtool = tool::promtool().context("the tests have promtool look at the metrics")?;
    let scope: &[&str] =
        if arguments.iter().any(|word| word == "-p" || word == "--package") { &[] } else { &["--workspace"] };
    let mut child = Command::new("cargo")
        .args(["test", "--locked", "--no-fail-fast"])
        .args(scope)
        .args(arguments)
        .env("GUILDHALL_TEST_POSTGRES", postgres.url())
        .env("GUILDHALL_TEST_REDIS", redis.url())
        .env("GUILDHALL_TEST_PROMTOOL", promtool)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        counts.add(&line);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test ended with {status}");
    }
    if counts.passed == 0 {
        bail!("no test was run");
    }
    Ok(())
}

impl Counts {
    /// Adds a closing line of libtest, `test result: ok. 3 passed; 0 failed; 1 ignored; …`; any other line adds nothing.
    fn add(&mut self, line: &str) {
        let Some((_, results)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in results.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn counts_add_up_over_the_closing_lines() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        counts.add("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        counts.add("test something::passed ... ok");
        assert_eq!((counts.passed, counts.failed, counts.ignored), (5, 4, 1));
    }
}
