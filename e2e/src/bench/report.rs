//! The table, which Markdown reads too.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use xtask::bench::Options;

use super::{Contest, Turn};

/// How one contender stands after all rounds.
pub(super) struct Standing {
    work: String,
    contender: &'static str,
    /// What the others of the same work are compared with.
    is_first: bool,
    calls: usize,
    p50: Duration,
    p99: Duration,
    /// Calls a second.
    rate: f64,
    /// Microseconds a call, by process.
    cpu: Vec<(&'static str, f64)>,
    /// Against the first contender.
    p50_ratio: Ratio,
    cpu_ratio: Ratio,
}

/// The median of the rounds, and the least and the most.
#[derive(Clone, Copy)]
struct Ratio {
    middle: f64,
    least: f64,
    most: f64,
}

impl Standing {
    /// `turns` of each contender, by round.
    pub(super) fn of(contest: &Contest, turns: &[Vec<Turn>]) -> Vec<Self> {
        let first = turns.first().map_or(&[][..], Vec::as_slice);
        let stand = |(number, turns): (usize, &Vec<Turn>)| {
            let all = sorted(turns.iter().flat_map(|turn| &turn.latencies));
            let against = |measure: fn(&Turn) -> f64| {
                Ratio::of(turns.iter().zip(first).map(|(turn, first)| measure(turn) / measure(first)))
            };
            let calls: f64 = turns.iter().map(Turn::calls).sum();
            let spent = |process: usize| turns.iter().map(|turn| turn.cpu[process]).sum::<Duration>().as_secs_f64();
            let processes = contest.processes.iter().enumerate();
            Self {
                work: contest.work.clone(),
                contender: contest.contenders[number].0,
                is_first: number == 0,
                calls: all.len(),
                p50: percentile(&all, 50),
                p99: percentile(&all, 99),
                rate: median(turns.iter().map(|turn| turn.calls() / turn.elapsed.as_secs_f64())),
                cpu: processes.map(|(process, (name, _))| (*name, spent(process) * 1e6 / calls)).collect(),
                p50_ratio: against(|turn| percentile(&sorted(&turn.latencies), 50).as_secs_f64()),
                cpu_ratio: against(|turn| turn.cpu.iter().sum::<Duration>().as_secs_f64() / turn.calls()),
            }
        };
        turns.iter().enumerate().map(stand).collect()
    }

    fn cells(&self) -> [String; 8] {
        let Self { work, contender, is_first, p50, p99, rate, cpu, p50_ratio, cpu_ratio, .. } = self;
        let sum = format!("{:.0} µs", cpu.iter().map(|(_, micros)| micros).sum::<f64>());
        let cpu = match cpu.as_slice() {
            [_] => sum,
            several => {
                let each = several.iter().map(|(name, micros)| format!("{name} {micros:.0}"));
                format!("{sum} ({})", each.collect::<Vec<_>>().join(", "))
            }
        };
        let ratio = |ratio: &Ratio| if *is_first { "1".to_owned() } else { ratio.shown() };
        [
            if *is_first { work.clone() } else { String::new() },
            (*contender).to_owned(),
            format!("{:.3} ms", p50.as_secs_f64() * 1e3),
            format!("{:.3} ms", p99.as_secs_f64() * 1e3),
            format!("{rate:.0}"),
            cpu,
            ratio(p50_ratio),
            ratio(cpu_ratio),
        ]
    }

    fn json(&self) -> Value {
        let Self { work, contender, calls, p50, p99, rate, cpu, p50_ratio, cpu_ratio, .. } = self;
        let ratio = |ratio: &Ratio| json!({"median": ratio.middle, "least": ratio.least, "most": ratio.most});
        json!({
            "work": work,
            "contender": contender,
            "calls": calls,
            "p50Seconds": p50.as_secs_f64(),
            "p99Seconds": p99.as_secs_f64(),
            "callsPerSecond": rate,
            "cpuMicrosecondsPerCall": cpu.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
            "p50Ratio": ratio(p50_ratio),
            "cpuRatio": ratio(cpu_ratio),
        })
    }
}

impl Turn {
    #[expect(clippy::cast_precision_loss, reason = "there are never so many")]
    fn calls(&self) -> f64 {
        self.latencies.len() as f64
    }
}

impl Ratio {
    fn of(rounds: impl Iterator<Item = f64>) -> Self {
        let rounds = ordered(rounds);
        let at = |index: usize| rounds.get(index).copied().unwrap_or(f64::NAN);
        Self { middle: at(rounds.len() / 2), least: at(0), most: at(rounds.len().saturating_sub(1)) }
    }

    /// A turn may be too short for the ticks of the machine.
    fn shown(self) -> String {
        let Self { middle, least, most } = self;
        if [middle, least, most].iter().all(|ratio| ratio.is_finite()) {
            format!("{middle:.2} ({least:.2} to {most:.2})")
        } else {
            "too short".to_owned()
        }
    }
}

/// Prints the table, and writes it where the options say.
pub(super) fn print(machine: &str, standings: &[Standing], options: &Options) -> Result<()> {
    let head = ["", "", "p50", "p99", "calls/s", "CPU per call", "p50, as a ratio", "CPU, as a ratio"];
    let rows = standings.iter().map(Standing::cells);
    let rows: Vec<[String; 8]> = [head.map(str::to_owned)].into_iter().chain(rows).collect();
    let widths: Vec<usize> =
        (0..head.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            println!("|{}", widths.iter().map(|width| "-".repeat(width + 2) + "|").collect::<String>());
        }
    }
    println!(
        "\nRatios: against the first row of the group, round by round; the median and, in brackets, the least and the most. Rounds: {}.",
        options.rounds
    );
    let Some(path) = &options.json else { return Ok(()) };
    let rows: Vec<Value> = standings.iter().map(Standing::json).collect();
    let all = json!({"machine": machine, "rounds": options.rounds, "rows": rows});
    fs::write(path, format!("{all:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}

fn sorted<'a>(latencies: impl IntoIterator<Item = &'a Duration>) -> Vec<Duration> {
    let mut latencies: Vec<Duration> = latencies.into_iter().copied().collect();
    latencies.sort_unstable();
    latencies
}

/// The nearest rank.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn ordered(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    Ratio::of(values).middle
}
