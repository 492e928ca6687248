//! Leaves an endpoint alone that does not serve, and finds out whether it does again.

use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row put an endpoint out.
const CONSECUTIVE: u32 = 7;
/// And so do fewer than half of at least so many calls within [`WINDOW`] that succeed: a broken endpoint that answers now
/// and then never fails often enough in a row.
const CALLS: u32 = 20;
/// In seconds.
const WINDOW: usize = 10;
/// How long an endpoint is left alone at first; twice as long after each probe that fails.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);
/// How long a probe that is due waits for a call that can be repeated.
pub(super) const OVERDUE: Duration = Duration::from_secs(10);

/// What a call says about the endpoint that it went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It serves, whatever it thinks of this call. An error that a request can bring about (INTERNAL too) is an answer:
    /// else whoever finds such a request could take the service away from everybody.
    Serves,
    /// It says that it cannot (UNAVAILABLE), the connection broke, or nothing came back for long.
    Fails,
    /// Nobody listens there. It is asked again every second or so: that costs nobody anything, and the process that is
    /// being started in its place is missed for no longer.
    Absent,
    /// It was not this endpoint's doing how the call ended.
    Nothing,
}

/// Whether calls may go to the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// One call may, to find out; better one that can be repeated.
    Probe,
    /// One call is to find out, whatever it is: nothing is lost where nobody listened, and elsewhere no call came that could
    /// be repeated.
    Overdue,
    /// None may, for so long.
    Shut(Duration),
    /// Nobody listened there, and none need try for so long. One that has nowhere else to go may: the process may have come
    /// up just as the others went down.
    Absent(Duration),
}

/// What a verdict has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is left alone for so long.
    Out(Duration),
    /// A probe has failed: it stays out, for so long.
    Still(Duration),
    Back,
}

/// The breaker of one endpoint.
pub(crate) struct Breaker(State);

enum State {
    In { failures: u32, window: Window },
    Out { until: Instant, probes: u32, absent: bool },
    Probing { probes: u32, absent: bool },
}

impl Breaker {
    pub(crate) fn new(now: Instant) -> Self {
        Self(State::In { failures: 0, window: Window::new(now) })
    }

    pub(crate) fn gate(&self, now: Instant) -> Gate {
        match self.0 {
            State::In { .. } => Gate::Open,
            State::Out { until, absent, .. } if until + if absent { Duration::ZERO } else { OVERDUE } <= now => {
                Gate::Overdue
            }
            State::Out { until, .. } if until <= now => Gate::Probe,
            State::Out { until, absent: true, .. } => Gate::Absent(until - now),
            State::Out { until, .. } => Gate::Shut(until - now),
            State::Probing { absent: true, .. } => Gate::Absent(SHORTEST),
            State::Probing { .. } => Gate::Shut(SHORTEST),
        }
    }

    /// The next call is the probe.
    pub(crate) fn probe(&mut self) {
        if let State::Out { probes, absent, .. } = self.0 {
            self.0 = State::Probing { probes, absent };
        }
    }

    /// Takes note of how a call ended. `jitter`, from 0 to 1, keeps clients from coming back all at once.
    pub(crate) fn record(&mut self, verdict: Verdict, probe: bool, now: Instant, jitter: f64) -> Option<Change> {
        match &mut self.0 {
            State::In { failures, window } => {
                let failed = match verdict {
                    Verdict::Nothing => return None,
                    Verdict::Serves => false,
                    Verdict::Fails | Verdict::Absent => true,
                };
                *failures = if failed { *failures + 1 } else { 0 };
                window.record(failed, now);
                if *failures < CONSECUTIVE && !window.is_poor() {
                    return None;
                }
                Some(Change::Out(self.put_out(verdict, 0, now, jitter)))
            }
            State::Probing { probes, absent } if probe => {
                let (probes, absent) = (*probes, *absent);
                match verdict {
                    Verdict::Serves => {
                        *self = Self::new(now);
                        Some(Change::Back)
                    }
                    Verdict::Nothing => {
                        self.0 = State::Out { until: now, probes, absent };
                        None
                    }
                    Verdict::Fails | Verdict::Absent => {
                        Some(Change::Still(self.put_out(verdict, probes.saturating_add(1), now, jitter)))
                    }
                }
            }
            // It was sent before the endpoint was put out.
            State::Out { .. } | State::Probing { .. } => None,
        }
    }

    fn put_out(&mut self, verdict: Verdict, probes: u32, now: Instant, jitter: f64) -> Duration {
        let absent = verdict == Verdict::Absent;
        let doublings = if absent { 0 } else { probes.min(6) };
        let penalty = (SHORTEST * 2_u32.pow(doublings)).mul_f64(1.0 + jitter / 2.0).min(LONGEST);
        self.0 = State::Out { until: now + penalty, probes, absent };
        penalty
    }
}

/// Calls by the second in which they ended, for the last [`WINDOW`] seconds.
struct Window {
    since: Instant,
    /// The second that the newest count is of.
    second: u64,
    counts: [Count; WINDOW],
}

#[derive(Clone, Copy, Default)]
struct Count {
    calls: u32,
    failed: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { since: now, second: 0, counts: [Count::default(); WINDOW] }
    }

    fn record(&mut self, failed: bool, now: Instant) {
        let second = now.saturating_duration_since(self.since).as_secs();
        for passed in (self.second + 1..=second).rev().take(WINDOW) {
            *self.count(passed) = Count::default();
        }
        self.second = self.second.max(second);
        let count = self.count(self.second);
        count.calls = count.calls.saturating_add(1);
        count.failed = count.failed.saturating_add(u32::from(failed));
    }

    fn is_poor(&self) -> bool {
        let sum = |of: fn(&Count) -> u32| self.counts.iter().map(of).fold(0_u32, u32::saturating_add);
        let (calls, failed) = (sum(|count| count.calls), sum(|count| count.failed));
        calls >= CALLS && failed > calls / 2
    }

    fn count(&mut self, second: u64) -> &mut Count {
        let place = usize::try_from(second % WINDOW as u64).expect("smaller than the window");
        &mut self.counts[place]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIDDLE: f64 = 0.5;

    /// Puts the endpoint out at `now`: for how long.
    fn out(breaker: &mut Breaker, verdict: Verdict, now: Instant) -> Duration {
        for _ in 1..CONSECUTIVE {
            assert_eq!(breaker.record(verdict, false, now, MIDDLE), None);
            assert_eq!(breaker.gate(now), Gate::Open);
        }
        match breaker.record(verdict, false, now, MIDDLE) {
            Some(Change::Out(penalty)) => penalty,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn seven_failures_in_a_row_put_an_endpoint_out_and_six_do_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        for _ in 0..2 {
            for _ in 1..CONSECUTIVE {
                assert_eq!(breaker.record(Verdict::Fails, false, now, MIDDLE), None);
            }
            breaker.record(Verdict::Serves, false, now, MIDDLE);
        }
        let mut breaker = Breaker::new(now);
        let penalty = out(&mut breaker, Verdict::Fails, now);
        assert_eq!(breaker.gate(now), Gate::Shut(penalty));
        assert_eq!(breaker.gate(now + penalty), Gate::Probe);
        assert_eq!(breaker.gate(now + penalty + OVERDUE), Gate::Overdue);
    }

    #[test]
    fn fewer_successes_than_failures_put_it_out_once_there_are_twenty_calls() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        // Five fail, one serves: never seven in a row.
        let calls = (1..=CALLS).map(|call| if call % 6 == 0 { Verdict::Serves } else { Verdict::Fails });
        let changes: Vec<_> = calls.map(|verdict| breaker.record(verdict, false, now, MIDDLE)).collect();
        let (last, before) = changes.split_last().unwrap();
        assert!(before.iter().all(Option::is_none));
        assert!(matches!(last, Some(Change::Out(_))));

        let mut half = Breaker::new(now);
        for call in 0..1000 {
            let verdict = if call % 2 == 0 { Verdict::Serves } else { Verdict::Fails };
            assert_eq!(half.record(verdict, false, now, MIDDLE), None, "half of them serve");
        }
    }

    #[test]
    fn what_was_longer_ago_than_the_window_does_not_count() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        for call in 0..200 {
            // Two a second: nineteen or twenty in the window would be twenty at last, so leave a gap before that.
            let pause = if call % 18 == 17 { 11_000 } else { 500 };
            let verdict = if call % 6 == 5 { Verdict::Serves } else { Verdict::Fails };
            assert_eq!(breaker.record(verdict, false, now, MIDDLE), None, "{call}");
            now += Duration::from_millis(pause);
        }
    }

    #[test]
    fn one_call_probes_and_decides() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        now += out(&mut breaker, Verdict::Fails, now);
        breaker.probe();
        assert!(matches!(breaker.gate(now), Gate::Shut(_)), "one at a time");
        assert_eq!(breaker.record(Verdict::Serves, false, now, MIDDLE), None, "that one was sent earlier");
        assert!(matches!(breaker.gate(now), Gate::Shut(_)));
        assert_eq!(breaker.record(Verdict::Nothing, true, now, MIDDLE), None);
        assert_eq!(breaker.gate(now), Gate::Probe, "a probe that tells nothing leaves it to the next");
        breaker.probe();
        assert_eq!(breaker.record(Verdict::Serves, true, now, MIDDLE), Some(Change::Back));
        assert_eq!(breaker.gate(now), Gate::Open);
        assert_eq!(out(&mut breaker, Verdict::Fails, now), SHORTEST.mul_f64(1.25), "it begins anew");
    }

    proptest! {
        #[test]
        fn the_penalty_doubles_with_jitter_up_to_a_minute(jitter in 0.0_f64..1.0) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(now);
            now += out(&mut breaker, Verdict::Fails, now);
            let mut seconds = 1.0;
            for _ in 0..100 {
                seconds = f64::min(seconds * 2.0, 64.0);
                breaker.probe();
                let Some(Change::Still(penalty)) = breaker.record(Verdict::Fails, true, now, jitter) else { panic!() };
                let expected = (seconds * (1.0 + jitter / 2.0)).min(60.0);
                prop_assert!((penalty.as_secs_f64() - expected).abs() < 1e-6);
                prop_assert!((SHORTEST..=LONGEST).contains(&penalty));
                prop_assert_eq!(breaker.gate(now), Gate::Shut(penalty));
                now += penalty;
            }
        }
    }

    #[test]
    fn where_nobody_listens_is_asked_again_every_second() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        now += out(&mut breaker, Verdict::Absent, now);
        for _ in 0..20 {
            breaker.probe();
            let Some(Change::Still(penalty)) = breaker.record(Verdict::Absent, true, now, 1.0) else { panic!() };
            assert_eq!(penalty, SHORTEST.mul_f64(1.5));
            assert_eq!(breaker.gate(now), Gate::Absent(penalty), "and by whoever has nowhere else to go");
            now += penalty;
        }
    }
}
