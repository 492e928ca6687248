//! Whether a call is sent again, and when.
//!
//! What is certain to have had no effect may be repeated whatever the call is; what may have had one, only where the
//! contract says that twice is as good as once, and an answer that has begun never. A budget keeps clients from making an
//! outage worse: it is spent by calls that a server has seen, or will. One that finds nobody at an address goes on to the
//! next for nothing, and so does one that is turned away because its connection is about to end. Those two have only looked
//! for somebody to ask, so they go on with retries off, too.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use ids::Source;
use metrics::{Counter, Label};
use status::{Problem, Reason};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

use super::balance::fraction;

/// How often a call is sent at most.
const SENDS: u32 = 4;
/// The first pause, at most; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(25);
/// No call is kept waiting for longer. A server that asks for more is obeyed by not repeating the call: whoever made it is
/// told how long to wait.
const LONGEST: Duration = Duration::from_secs(1);

/// Why a call has brought no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No endpoint may be asked.
    AllOut,
    /// There is no connection to that endpoint, so that nothing was sent. Is there another?
    Unreached { others: bool },
    /// The server has not looked at the call, because the connection is ending: a new one will do.
    TurnedAway,
    /// The server has not looked at the call, because it has too many.
    Refused,
    /// Nobody knows what has happened.
    Broken,
}

/// The retries of the calls to one service.
pub(crate) struct Retry {
    enabled: bool,
    source: Source,
    budget: Mutex<Budget>,
    answered: Counter,
    failed: Counter,
    exhausted: Counter,
}

/// The sends of one call.
pub(crate) struct Sends<'a> {
    retry: &'a Retry,
    repeatable: bool,
    count: u32,
    /// How many of them were repetitions; the others were passed on.
    repetitions: u32,
}

/// What follows an outcome.
enum Next {
    /// Nothing: it stands.
    Stands,
    /// The call goes on to another endpoint or connection, at once and for nothing.
    PassOn,
    /// It is sent again if the budget allows it, after that pause at least.
    Repeat(Duration),
}

impl Retry {
    /// `labels` say who calls whom.
    pub(crate) fn new(labels: &[Label; 2], source: Source, enabled: bool) -> Self {
        let retries = |outcome| {
            let labels = labels.iter().cloned().chain([Label::new("outcome", outcome)]).collect::<Vec<_>>();
            metrics::counter!("guildhall_mesh_retries_total", labels)
        };
        let exhausted = metrics::counter!("guildhall_mesh_retry_budget_exhausted_total", labels.iter());
        let (answered, failed) = (retries("answered"), retries("failed"));
        for counter in [&answered, &failed, &exhausted] {
            counter.increment(0);
        }
        Self { enabled, source, budget: Mutex::new(Budget::new(Instant::now())), answered, failed, exhausted }
    }

    /// Whether the contract, or HTTP (RFC 9110, section 9.2.1), lets anybody send the request twice.
    pub(crate) fn is_repeatable<B>(&self, request: &Request<B>) -> bool {
        let idempotency = contracts::method(request.uri().path()).map(|method| method.idempotency);
        let harmless = idempotency.is_some_and(|idempotency| idempotency != contracts::Idempotency::Unknown);
        self.enabled && (harmless || request.method().is_safe())
    }

    /// A call begins.
    pub(crate) fn begin(&self, repeatable: bool) -> Sends<'_> {
        self.budget().deposit();
        Sends { retry: self, repeatable, count: 0, repetitions: 0 }
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sends<'_> {
    /// How long to wait before the call is sent again; `None` when this outcome stands. `replayable` says whether its body
    /// can be sent again, `deadline` when it must be over.
    pub(crate) fn again(
        &mut self,
        outcome: &Result<Response<Body>, Failure>,
        replayable: bool,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Option<Duration> {
        self.measure(outcome);
        let next = self.next(outcome);
        // Each endpoint that cannot be reached is met once, so they need no bound.
        let unreached = matches!(outcome, Err(Failure { kind: Kind::Unreached { others: true }, .. }));
        self.count += u32::from(!unreached);
        if !replayable || self.count >= SENDS {
            return None;
        }
        let pause = match next {
            Next::PassOn => Duration::ZERO,
            Next::Repeat(wanted) if wanted <= LONGEST => self.pause().max(wanted),
            Next::Repeat(_) | Next::Stands => return None,
        };
        if deadline.is_some_and(|deadline| now + pause >= deadline) {
            return None;
        }
        if let Next::Repeat(_) = next {
            if !self.retry.budget().withdraw(now) {
                self.retry.exhausted.increment(1);
                return None;
            }
            self.repetitions += 1;
        }
        Some(pause)
    }

    fn next(&self, outcome: &Result<Response<Body>, Failure>) -> Next {
        let repeat = |allowed, wanted| if allowed { Next::Repeat(wanted) } else { Next::Stands };
        let kind = match outcome {
            Err(failure) => failure.kind,
            Ok(answer) => {
                let Some(problem) = unavailable(answer) else { return Next::Stands };
                return repeat(self.repeatable, problem.retry_delay().unwrap_or_default());
            }
        };
        match kind {
            Kind::AllOut => Next::Stands,
            Kind::TurnedAway | Kind::Unreached { others: true } => Next::PassOn,
            Kind::Refused | Kind::Unreached { others: false } => repeat(self.retry.enabled, Duration::ZERO),
            Kind::Broken => repeat(self.repeatable, Duration::ZERO),
        }
    }

    /// From half to all of it, so that those who failed together do not come back together.
    fn pause(&self) -> Duration {
        let longest = (PAUSE * 2_u32.pow(self.repetitions)).min(LONGEST);
        longest.mul_f64(f64::midpoint(1.0, fraction(&self.retry.source)))
    }

    fn measure(&self, outcome: &Result<Response<Body>, Failure>) {
        if self.repetitions > 0 {
            let answered = outcome.as_ref().is_ok_and(|answer| unavailable(answer).is_none());
            if answered { &self.retry.answered } else { &self.retry.failed }.increment(1);
        }
    }
}

/// What the server says when it says, and nothing before that, that it cannot serve the call.
pub(crate) fn unavailable<B>(answer: &Response<B>) -> Option<Problem> {
    let status = Status::from_header_map(answer.headers())?;
    (status.code() == Code::Unavailable).then(|| Problem::from(&status))
}

/// The refusal of a call that could not be made, or whose fate is not known.
pub(crate) fn cannot_be_served(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Problem {
    Problem::new(Reason::Unavailable).retry_after(LONGEST).because(cause)
}

/// A fifth of the calls, and ten a second beyond that. Unspent it grows to what ten seconds bring.
///
/// tower's `TpsBudget` gives the same, but reads the clock by itself.
struct Budget {
    tokens: f64,
    at: Instant,
}

impl Budget {
    const PER_CALL: f64 = 0.2;
    const PER_SECOND: f64 = 10.0;
    const MOST: f64 = 100.0;

    fn new(now: Instant) -> Self {
        Self { tokens: Self::PER_SECOND, at: now }
    }

    fn deposit(&mut self) {
        self.tokens = (self.tokens + Self::PER_CALL).min(Self::MOST);
    }

    fn withdraw(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * Self::PER_SECOND).min(Self::MOST);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(enabled: bool) -> Retry {
        let labels = [Label::new("service", "edge-gateway"), Label::new("server", "content")];
        Retry::new(&labels, Source::system(), enabled)
    }

    fn failure(kind: Kind) -> Result<Response<Body>, Failure> {
        Err(Failure { kind, problem: Problem::new(Reason::Unavailable) })
    }

    fn answer(problem: Problem) -> Response<Body> {
        Status::from(problem).into_http()
    }

    fn is_sent_again(enabled: bool, repeatable: bool, outcome: &Result<Response<Body>, Failure>) -> bool {
        retry(enabled).begin(repeatable && enabled).again(outcome, true, None, Instant::now()).is_some()
    }

    #[test]
    fn what_may_have_had_an_effect_is_repeated_only_where_the_contract_allows_it() {
        for outcome in [failure(Kind::Broken), Ok(answer(Problem::new(Reason::Unavailable)))] {
            assert!(is_sent_again(true, true, &outcome));
            assert!(!is_sent_again(true, false, &outcome));
        }
        for kind in
            [Kind::Unreached { others: true }, Kind::Unreached { others: false }, Kind::TurnedAway, Kind::Refused]
        {
            assert!(is_sent_again(true, false, &failure(kind)), "{kind:?}");
        }
    }

    #[test]
    fn with_retries_off_only_what_nobody_was_asked_goes_on() {
        for kind in [Kind::Unreached { others: false }, Kind::Refused, Kind::Broken, Kind::AllOut] {
            assert!(!is_sent_again(false, true, &failure(kind)), "{kind:?}");
        }
        assert!(!is_sent_again(false, true, &Ok(answer(Problem::new(Reason::Unavailable)))));
        for kind in [Kind::Unreached { others: true }, Kind::TurnedAway] {
            assert!(is_sent_again(false, false, &failure(kind)), "{kind:?}");
        }
    }

    #[test]
    fn an_answer_stands_unless_it_is_unavailable() {
        for reason in [Reason::Internal, Reason::NotFound, Reason::DeadlineExceeded, Reason::RateLimited] {
            assert!(!is_sent_again(true, true, &Ok(answer(Problem::new(reason)))), "{reason:?}");
        }
        // The head of a stream, whose status is to come after its messages.
        assert!(!is_sent_again(true, true, &Ok(Response::new(Body::empty()))));
        assert!(!is_sent_again(true, true, &failure(Kind::AllOut)));
    }

    #[test]
    fn a_body_that_was_not_kept_and_a_deadline_that_comes_first_end_it() {
        let (retry, now, broken) = (retry(true), Instant::now(), failure(Kind::Broken));
        assert_eq!(retry.begin(true).again(&broken, false, None, now), None);
        assert_eq!(retry.begin(true).again(&broken, true, Some(now + PAUSE / 4), now), None);
        assert!(retry.begin(true).again(&broken, true, Some(now + PAUSE * 2), now).is_some());
    }

    #[test]
    fn pauses_double_with_jitter_and_there_are_four_sends() {
        let (retry, now, broken) = (retry(true), Instant::now(), failure(Kind::Broken));
        for _ in 0..3 {
            let mut sends = retry.begin(true);
            let pauses: Vec<_> = std::iter::from_fn(|| sends.again(&broken, true, None, now)).collect();
            assert_eq!(pauses.len(), 3);
            for (pause, longest) in pauses.into_iter().zip([25, 50, 100].map(Duration::from_millis)) {
                assert!((longest / 2..=longest).contains(&pause), "{pause:?} of {longest:?}");
            }
        }
    }

    #[test]
    fn endpoints_that_cannot_be_reached_cost_nothing_while_there_are_others() {
        let (retry, now) = (retry(true), Instant::now());
        let mut sends = retry.begin(false);
        for _ in 0..500 {
            let unreached = failure(Kind::Unreached { others: true });
            assert_eq!(sends.again(&unreached, true, None, now), Some(Duration::ZERO));
        }
        assert!(sends.again(&failure(Kind::Unreached { others: false }), true, None, now) >= Some(PAUSE / 2));
    }

    #[test]
    fn the_servers_word_on_when_to_come_back_is_kept() {
        let (retry, now) = (retry(true), Instant::now());
        let after = |delay| Ok(answer(Problem::new(Reason::Unavailable).retry_after(delay)));
        let delay = Duration::from_millis(700);
        assert_eq!(retry.begin(true).again(&after(delay), true, None, now), Some(delay));
        let soon = now + Duration::from_millis(600);
        assert_eq!(retry.begin(true).again(&after(delay), true, Some(soon), now), None, "it would be too late");
        assert_eq!(retry.begin(true).again(&after(Duration::from_secs(5)), true, None, now), None, "too long to wait");
    }

    #[test]
    fn a_storm_stays_within_the_budget() {
        let (retry, begin, broken) = (retry(true), Instant::now(), failure(Kind::Broken));
        let (calls_per_second, seconds) = (50, 60);
        let mut sends = 0_u32;
        for call in 0..calls_per_second * seconds {
            let now = begin + Duration::from_secs(1) * call / calls_per_second;
            let mut this = retry.begin(true);
            sends += 1;
            while this.again(&broken, true, None, now).is_some() {
                sends += 1;
            }
        }
        let calls = calls_per_second * seconds;
        // One second's worth is there from the start.
        assert!(sends <= calls * 12 / 10 + 10 * (seconds + 1), "{sends} sends of {calls} calls");
        assert!(sends >= calls * 12 / 10 + 10 * (seconds - 1), "and the budget is spent: {sends} sends");
    }

    #[test]
    fn what_is_safe_says_the_contract_or_http() {
        let retry = retry(true);
        let grpc = |path: &str| retry.is_repeatable(&Request::post(path).body(()).unwrap());
        assert!(grpc("/guildhall.content.v1.PostService/GetPost"));
        assert!(grpc("/guildhall.content.v1.PostService/DeletePost"), "twice is as good as once");
        assert!(!grpc("/guildhall.content.v1.PostService/CreatePost"));
        assert!(!grpc("/nobody.v1.Service/Knows"));
        assert!(retry.is_repeatable(&Request::get("/.well-known/jwks.json").body(()).unwrap()));
        assert!(!grpc("/oauth2/token"));
    }
}
