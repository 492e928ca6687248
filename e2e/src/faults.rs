//! Faults on purpose: processes are killed, halted and restarted, databases and networks taken away, all on a seed, while clients
//! write ([`load`]) and keep a [`journal`] of what they were told. Afterwards the journal is compared with the databases ([`check`]).
//!
//! To add a scenario: an `async fn` in `scenario/` that takes a [`Run`] and answers with [`Findings`], a variant of [`Scenario`], and
//! its line in [`Run::make`]. `cargo xtask faults` runs all of them at length; `cargo xtask test` runs short seeds, which are in `tests/faults`.

pub mod check;
pub mod cluster;
pub mod journal;
pub mod load;
pub mod proxy;
mod scenario;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::{SeedableRng as _, rngs::StdRng};

pub use xtask::faults::Scenario;

/// Defects that are shown in full; the rest is counted.
const SHOWN: usize = 20;

/// How one scenario is run.
pub struct Run {
    /// Decides about every moment and choice, but not about the machine's own pace.
    pub seed: u64,
    /// The program under test.
    pub program: PathBuf,
    /// The program as it was before the newest migration.
    pub previous: Option<PathBuf>,
    pub length: Length,
    /// How often the fault is made, where that is not the length's matter.
    pub times: Option<u32>,
    began: Instant,
}

/// How much of a scenario is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// A seed that fits into a run of all tests.
    Short,
    /// What the project promises.
    Long,
}

/// What a scenario found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Calls that clients made.
    pub calls: usize,
    /// Those that were acknowledged.
    pub acknowledged: usize,
    /// Those that were answered by a refusal.
    pub refused: usize,
    /// Those without an answer.
    pub unknown: usize,
    /// How often a client went elsewhere with a call that nobody had looked at.
    pub moves: usize,
    /// Facts that were compared with the databases.
    pub checked: usize,
    /// What is not as promised.
    pub defects: Vec<String>,
}

impl Run {
    pub fn new(seed: u64, program: impl Into<PathBuf>, length: Length) -> Self {
        Self { seed, program: program.into(), previous: None, length, times: None, began: Instant::now() }
    }

    /// The dice of the faults. Those of the clients are others, so that neither depends on how fast the other goes.
    pub fn dice(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// How often the fault is made: as was asked for, or else by the length.
    pub fn times(&self, short: u32, long: u32) -> u32 {
        self.times.unwrap_or_else(|| self.choose(short, long))
    }

    /// The one or the other, by the length.
    pub fn choose<T>(&self, short: T, long: T) -> T {
        match self.length {
            Length::Short => short,
            Length::Long => long,
        }
    }

    /// Tells what is done, with its time since the beginning.
    pub fn tell(&self, what: fmt::Arguments<'_>) {
        println!("  [{:8.3} s] {what}", self.began.elapsed().as_secs_f64());
    }

    /// Fails a test, with what was found.
    #[track_caller]
    pub fn expect_no_defect(&self, findings: &Findings) {
        println!("{findings}");
        assert!(findings.defects.is_empty(), "seed {}: {} defects, shown above", self.seed, findings.defects.len());
        assert!(findings.checked > 0, "nothing was checked");
    }
}

impl Findings {
    /// Notes what is not as promised.
    pub fn defect(&mut self, what: impl Into<String>) {
        self.defects.push(what.into());
    }

    /// Adds what was found elsewhere.
    pub fn add(&mut self, mut other: Self) {
        self.calls += other.calls;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.moves += other.moves;
        self.checked += other.checked;
        self.defects.append(&mut other.defects);
    }

    /// Counts one more fact that was compared, and notes a defect if it does not hold.
    pub fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.defects.push(otherwise());
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, acknowledged, refused, unknown, moves, checked, defects } = self;
        writeln!(
            f,
            "  {calls} calls: {acknowledged} acknowledged, {refused} refused, {unknown} without an answer; {moves} moves to another edge"
        )?;
        write!(f, "  {checked} facts checked, {} defects", defects.len())?;
        for defect in defects.iter().take(SHOWN) {
            write!(f, "\n    {defect}")?;
        }
        if defects.len() > SHOWN {
            write!(f, "\n    and {} more", defects.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// A moment between the two, in milliseconds.
pub(crate) fn moment(dice: &mut StdRng, milliseconds: std::ops::Range<u64>) -> Duration {
    use rand::RngExt as _;
    Duration::from_millis(dice.random_range(milliseconds))
}
