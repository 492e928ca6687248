//! What Linux knows of this machine and of a process.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// `/proc` counts in these (`USER_HZ`, which is 100 wherever Rust's Linux targets run).
const TICK: Duration = Duration::from_millis(10);

/// The machine, the system and the compiler, in one line.
pub(super) fn description() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|total| kilobytes(&total)).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let compiler = Command::new("rustc").arg("--version").output();
    let compiler = compiler.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let build = if cfg!(debug_assertions) { "DEBUG BUILD: the figures say nothing" } else { "release build" };
    format!(
        "{model}, {cores} cores, {} GB, Linux {}, {compiler}, {build}; load {} before",
        memory / 1_000_000,
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    )
}

/// Time on a processor so far, in the process's code and in the kernel's for it.
pub(super) fn cpu(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is the program's name, in brackets and with anything in it; the 14th and 15th are the ticks.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>();
    Ok(TICK * ticks.with_context(|| format!("{path} is not what proc(5) says"))?)
}

/// Resident memory in kB, and the most that it ever was.
pub(super) fn memory(process: u32) -> Result<(u64, u64)> {
    let path = format!("/proc/{process}/status");
    let read = |name| field(&path, name).and_then(|size| kilobytes(&size));
    read("VmRSS").zip(read("VmHWM")).with_context(|| format!("{path} does not say how much memory it has"))
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

fn kilobytes(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.parse().ok()
}
