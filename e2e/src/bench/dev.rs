//! What `guildhall dev` takes: how soon it is ready, and how much memory it has when nobody calls.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use xtask::bench::DevOptions;

use super::{machine, progress};
use crate::Guildhall;

pub async fn run(program: &Path, options: &DevOptions) -> Result<()> {
    let machine = machine::description();
    println!("{machine}");
    let DevOptions { rounds, idle, json } = options;
    let bar = progress(u64::from(*rounds));
    let (mut first, mut again, mut idled, mut highest) = (Vec::new(), Vec::new(), 0, 0);
    for round in 1..=*rounds {
        let began = Instant::now();
        let mut guildhall = Guildhall::start(program, "127.0.0.1:0").await;
        first.push(began.elapsed());
        if round == *rounds {
            tokio::time::sleep(Duration::from_secs(*idle)).await;
            (idled, highest) = machine::memory(guildhall.dev.pid)?;
        }
        guildhall.stop().await;
        let began = Instant::now();
        guildhall.restart().await;
        again.push(began.elapsed());
        bar.inc(1);
    }
    bar.finish_and_clear();

    let rows = [
        ("from exec on an empty directory to every /readyz", shown(&mut first)),
        ("from exec on data that is there to every /readyz", shown(&mut again)),
        ("resident memory", format!("{} MB after {idle} s without a call; at most {} MB", mega(idled), mega(highest))),
    ];
    let widths = rows.iter().fold((0, 0), |(what, figure), row| (what.max(row.0.len()), figure.max(row.1.len())));
    println!("| {:<1$} | {2:<3$} |", "`guildhall dev`", widths.0, "", widths.1);
    println!("|-{:-<1$}-|-{2:-<3$}-|", "", widths.0, "", widths.1);
    for (what, figure) in &rows {
        println!("| {what:<0$} | {figure:<1$} |", widths.0, widths.1);
    }
    println!("\nTimes: the median and, in brackets, the least and the most, to within 20 ms. Rounds: {rounds}.");
    let Some(path) = json else { return Ok(()) };
    let seconds = |times: &[Duration]| times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
    let all = json!({
        "machine": machine,
        "firstStartSeconds": seconds(&first),
        "laterStartSeconds": seconds(&again),
        "idleKilobytes": idled,
        "highestKilobytes": highest,
    });
    std::fs::write(path, format!("{all:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}

fn shown(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |index: usize| times.get(index).map_or(0, Duration::as_millis);
    format!("{} ms ({} to {})", at(times.len() / 2), at(0), at(times.len().saturating_sub(1)))
}

fn mega(kilobytes: u64) -> u64 {
    kilobytes / 1000
}
