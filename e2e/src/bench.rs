//! Benchmarks, run by `cargo xtask bench`. What is compared takes turns in one run, in an order that changes from round to round, so
//! that a machine that is busy with something else hits all alike: the figures are those of one machine on one day, the ratios are
//! what they say.
//!
//! To add one: a module with a `run`, and a variant of [`xtask::bench::Command`]. What is compared is a [`Contest`].

pub mod dev;
pub mod edge;
mod machine;
pub mod mesh;
mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::task::JoinSet;
use xtask::bench::Options;

use report::Standing;

/// Callers at a time: one, who sees what a call takes, and many, who see what the machine can do.
const CALLERS: [u32; 2] = [1, 32];
/// Many callers make so many times the calls of one, since they are done sooner.
const MORE_CALLS: u32 = 4;
/// The part of a turn that warms up, before the first round.
const WARM_UP: u32 = 5;
/// Of the order of turns.
const SEED: u64 = 20_261_121;

/// Makes one call, and fails unless it is answered as it should be.
type Call = Arc<dyn Fn() -> Answer + Send + Sync>;
type Answer = BoxFuture<'static, Result<()>>;

/// Contenders for the same work. The first is what the others are compared with.
struct Contest {
    work: String,
    callers: u32,
    /// Of each contender in a round.
    calls: u32,
    contenders: Vec<(&'static str, Call)>,
    /// Those whose time on a processor counts.
    processes: Vec<(&'static str, u32)>,
}

/// What one contender's calls of one round took.
struct Turn {
    latencies: Vec<Duration>,
    elapsed: Duration,
    /// By process.
    cpu: Vec<Duration>,
}

/// Lets all contenders of all contests have their turns, and prints how they stand.
async fn compare(contests: &[Contest], options: &Options) -> Result<()> {
    let machine = machine::description();
    println!("{machine}");
    let mut turns: Vec<Vec<Vec<Turn>>> = Vec::new();
    let mut dice = StdRng::seed_from_u64(SEED);
    let all: usize = contests.iter().map(|contest| contest.contenders.len()).sum();
    let bar = progress(all as u64 * (u64::from(options.rounds) + 1));
    for contest in contests {
        for contender in 0..contest.contenders.len() {
            contest.turn(contender, contest.calls.div_ceil(WARM_UP)).await?;
            bar.inc(1);
        }
        turns.push(contest.contenders.iter().map(|_| Vec::new()).collect());
    }
    for _ in 0..options.rounds {
        for number in shuffled(contests.len(), &mut dice) {
            let contest = &contests[number];
            // One right after the other: what is compared is what happened in the same seconds.
            for contender in shuffled(contest.contenders.len(), &mut dice) {
                turns[number][contender].push(contest.turn(contender, contest.calls).await?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let standings: Vec<Standing> =
        contests.iter().zip(&turns).flat_map(|(contest, turns)| Standing::of(contest, turns)).collect();
    report::print(&machine, &standings, options)
}

impl Contest {
    async fn turn(&self, contender: usize, calls: u32) -> Result<Turn> {
        let (name, call) = &self.contenders[contender];
        let before = self.cpu()?;
        let began = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..self.callers {
            let share = calls / self.callers + u32::from(caller < calls % self.callers);
            callers.spawn(repeat(Arc::clone(call), share));
        }
        let mut latencies = Vec::new();
        while let Some(ended) = callers.join_next().await {
            let measured = ended.context("a caller panicked")?;
            latencies.extend(measured.with_context(|| format!("{}: {name}", self.work))?);
        }
        let elapsed = began.elapsed();
        let cpu = self.cpu()?.iter().zip(before).map(|(after, before)| after.saturating_sub(before)).collect();
        Ok(Turn { latencies, elapsed, cpu })
    }

    fn cpu(&self) -> Result<Vec<Duration>> {
        self.processes.iter().map(|(_, id)| machine::cpu(*id)).collect()
    }
}

async fn repeat(call: Call, times: u32) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        call().await?;
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}

/// "1 at a time" and "32 at a time", with the calls of a turn.
fn paces(calls: u32) -> [(u32, u32, String); 2] {
    CALLERS.map(|callers| {
        let calls = if callers == 1 { calls } else { calls.saturating_mul(MORE_CALLS) };
        (callers, calls, format!("{callers} at a time"))
    })
}

fn shuffled(length: usize, dice: &mut StdRng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    order.shuffle(dice);
    order
}

/// Drawn on a terminal alone.
fn progress(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} turns, {eta} left").expect("a valid template");
    ProgressBar::new(steps).with_style(style)
}
