//! What clients asked for and what they were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Findings;

/// Every call of every client, in the order in which they were begun.
pub struct Journal {
    began: Instant,
    entries: Mutex<Vec<Entry>>,
    acknowledged: AtomicUsize,
    moves: AtomicUsize,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The id of the person who called.
    pub person: String,
    pub write: Write,
    pub outcome: Outcome,
    /// When it was sent, since the journal was begun.
    pub sent: Duration,
}

/// What was asked for. A mark is a text that nobody else writes.
#[derive(Clone, Debug)]
pub enum Write {
    /// A post with the mark as its title and text.
    Create {
        mark: String,
    },
    /// The same with the mark as idempotency key, sent until it is acknowledged.
    Insist {
        mark: String,
    },
    /// A post of the person gets the mark as its text.
    Edit {
        post: String,
        mark: String,
    },
    /// A post of the person is published.
    Publish {
        post: String,
    },
    Like {
        post: String,
    },
    /// The person's name becomes the mark.
    Rename {
        mark: String,
    },
    /// Somebody new, with the mark in their address.
    Register {
        mark: String,
    },
    Suspend {
        user: String,
    },
    Reinstate {
        user: String,
    },
    /// A new access token; it leaves nothing to check.
    LogIn,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Nothing yet.
    Open,
    Acknowledged,
    Refused(Refusal),
    /// No answer: it may have happened or not.
    Unknown(String),
}

/// A refusal, as REST or gRPC said it.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// By HTTP's numbers.
    pub status: u16,
    /// Why, by the contract's enum.
    pub reason: String,
    /// Whether it says when to come again.
    pub retry_after: bool,
}

/// Which outcomes a scenario allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// Everything is acknowledged.
    Nothing,
    /// 503 with Retry-After too.
    Unavailable,
    /// Silence too, where a client's own connection may break.
    Silence,
    /// And 504, where somebody is halted or slow.
    Slowness,
}

impl Entry {
    /// The title of the post that this made.
    pub fn title(&self) -> Option<&str> {
        match &self.write {
            Write::Create { mark } | Write::Insist { mark } => Some(mark),
            _ => None,
        }
    }
}

impl Tolerance {
    fn allows(self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Acknowledged => true,
            Outcome::Refused(refusal) => match refusal.status {
                503 => self != Self::Nothing && refusal.retry_after,
                504 => self == Self::Slowness,
                _ => false,
            },
            Outcome::Unknown(_) => matches!(self, Self::Silence | Self::Slowness),
            Outcome::Open => false,
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            entries: Mutex::default(),
            acknowledged: AtomicUsize::default(),
            moves: AtomicUsize::default(),
        }
    }
}

impl Journal {
    /// Notes a call that is about to be sent, and answers with its number.
    pub fn begin(&self, person: &str, write: Write) -> usize {
        let mut entries = lock(&self.entries);
        entries.push(Entry { person: person.to_owned(), write, outcome: Outcome::Open, sent: self.began.elapsed() });
        entries.len() - 1
    }

    /// Notes what came of a call.
    pub fn end(&self, number: usize, outcome: Outcome) {
        if matches!(outcome, Outcome::Acknowledged) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.entries)[number].outcome = outcome;
    }

    /// Notes that a call went elsewhere because nobody had looked at it.
    pub fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// How many calls were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// All of it.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    /// The counts, and as defects whatever is not tolerated: each kind once, with the first that it befell.
    pub fn findings(&self, tolerance: Tolerance) -> Findings {
        let mut findings = Findings { moves: self.moves.load(Ordering::Relaxed), ..Findings::default() };
        let mut kinds: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for entry in lock(&self.entries).iter() {
            findings.calls += 1;
            match &entry.outcome {
                Outcome::Acknowledged => findings.acknowledged += 1,
                Outcome::Refused(_) => findings.refused += 1,
                Outcome::Open | Outcome::Unknown(_) => findings.unknown += 1,
            }
            findings.checked += 1;
            if !tolerance.allows(&entry.outcome) {
                let first = || (0, format!("{:?} at {:.3} s", entry.write, entry.sent.as_secs_f64()));
                kinds.entry(format!("{:?}", entry.outcome)).or_insert_with(first).0 += 1;
            }
        }
        findings.defects =
            kinds.into_iter().map(|(kind, (count, first))| format!("{count} calls: {kind}, first {first}")).collect();
        findings
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
