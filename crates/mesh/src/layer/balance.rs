//! Which endpoint a call goes to: the less loaded of two that are drawn at random.
//!
//! Load is the peak-EWMA of the time to an answer, times the calls that wait for one (Finagle's, as Linkerd has it). tower's
//! `Balance` over its `PeakEwma` is the same but for what a mesh needs: a retry goes to an endpoint that this call has not
//! tried; an error that comes fast does not make an endpoint look fast; a new one is measured by its first call, where
//! tower's keeps a guess that fades over ten seconds; and the dice are a parameter.
//!
//! A call counts as waiting until the head of its answer: what answers once has finished by then, and a stream that stays
//! open says nothing about how busy its server is. The time to a stream's head is not taken either: it is no work.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ids::Source;
use metrics::{Counter, Gauge, Label};
use tokio::time::Instant;

use super::breaker::{Breaker, Change, Gate, Verdict};

/// What an endpoint is held for that has not answered yet.
const UNKNOWN: f64 = 0.03;
/// Differences below are noise. In seconds, as all loads are.
const LEAST: f64 = 0.0001;
/// An estimate loses all but 1/e of its weight in so many seconds.
const DECAY: f64 = 10.0;
/// Calls that may wait for one endpoint: what its server takes on one connection.
const WAITING: u32 = 1024;
/// A call that has waited so long for its answer, and is given up, counts as failed. Below that it is the caller who was
/// impatient, and callers choose their deadlines.
const PATIENCE: Duration = Duration::from_secs(5);
/// Endpoints of one service that have series of their own in the metrics; further ones share one, so that addresses that
/// come and go do not pile up.
const SERIES: usize = 128;

/// The endpoints of one service. `C` is what a call needs to get to one.
pub(crate) struct Balance<C> {
    connect: Connect<C>,
    source: Source,
    labels: [Label; 2],
    known: Gauge,
    outs: Counter,
    set: Mutex<Set<C>>,
}

type Connect<C> = Box<dyn Fn(&Arc<str>) -> C + Send + Sync>;

struct Set<C> {
    endpoints: Vec<Arc<Endpoint<C>>>,
    labelled: HashSet<Arc<str>>,
}

/// One process that serves.
pub(crate) struct Endpoint<C> {
    pub(crate) address: Arc<str>,
    pub(crate) connection: C,
    state: Mutex<State>,
    picks: Counter,
    out: Gauge,
    estimate: Gauge,
}

struct State {
    breaker: Breaker,
    load: Load,
}

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// Whether it may be sent again if it fails.
    pub(crate) repeatable: bool,
    /// Whether its time says nothing about the load.
    pub(crate) streaming: bool,
}

/// A call's place at an endpoint, until its answer has begun.
pub(crate) struct Pick<C> {
    pub(crate) endpoint: Arc<Endpoint<C>>,
    pub(crate) probe: bool,
    source: Source,
    outs: Counter,
    streaming: bool,
    since: Instant,
    ended: bool,
}

/// No endpoint can be asked, for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AllOut(pub(crate) Duration);

impl<C> Balance<C> {
    /// There is no endpoint yet. `labels` say who calls whom.
    pub(crate) fn new(
        labels: &[Label; 2],
        source: Source,
        connect: impl Fn(&Arc<str>) -> C + Send + Sync + 'static,
    ) -> Self {
        let outs = metrics::counter!("guildhall_mesh_breaker_opened_total", labels.iter());
        outs.increment(0);
        Self {
            connect: Box::new(connect),
            source,
            known: metrics::gauge!("guildhall_mesh_endpoints", labels.iter()),
            outs,
            labels: labels.clone(),
            set: Mutex::new(Set { endpoints: Vec::new(), labelled: HashSet::new() }),
        }
    }

    /// These are the endpoints from now on. Those that stay keep their connections and what is known about them; those that
    /// go get no more calls, and finish the ones they have.
    pub(crate) fn set(&self, addresses: &[Arc<str>]) {
        let mut set = lock(&self.set);
        let set = &mut *set;
        let before = set.endpoints.len();
        set.endpoints.retain(|endpoint| addresses.contains(&endpoint.address));
        for address in addresses {
            if !set.endpoints.iter().any(|endpoint| endpoint.address == *address) {
                let label = set.label(address);
                set.endpoints.push(Arc::new(self.endpoint(address, label)));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "there are never so many")]
        self.known.increment(set.endpoints.len() as f64 - before as f64);
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.set).endpoints.is_empty()
    }

    /// Whether there is an endpoint to go to that was not tried.
    pub(crate) fn has_other(&self, tried: &[Arc<str>]) -> bool {
        let now = Instant::now();
        let other = |endpoint: &Arc<Endpoint<C>>| {
            !tried.contains(&endpoint.address) && !matches!(endpoint.gate(now), Gate::Shut(_))
        };
        lock(&self.set).endpoints.iter().any(other)
    }

    /// Where the call goes: not where it was tried already, unless there is nothing else.
    pub(crate) fn pick(&self, call: Call, tried: &[Arc<str>]) -> Result<Pick<C>, AllOut> {
        // Held until the call is counted, so that calls at the same time see each other.
        let set = lock(&self.set);
        let now = Instant::now();
        let (untried, others): (Vec<_>, Vec<_>) =
            set.endpoints.iter().partition(|endpoint| !tried.contains(&endpoint.address));
        let (endpoint, probe) = self
            .choose(&untried, call, now)
            .or_else(|| self.choose(&others, call, now))
            .ok_or_else(|| all_out(&set.endpoints, now))?;
        let mut state = endpoint.state();
        state.load.waiting += 1;
        if probe {
            state.breaker.probe();
        }
        drop(state);
        endpoint.picks.increment(1);
        Ok(Pick {
            endpoint: Arc::clone(endpoint),
            probe,
            source: self.source.clone(),
            outs: self.outs.clone(),
            streaming: call.streaming,
            since: now,
            ended: false,
        })
    }

    /// A call that can be repeated is the best probe, since nobody notices when it fails. Any other goes to endpoints that
    /// serve, and probes where there are none, or where no better call has come; at last it tries where nobody listened.
    fn choose<'a>(
        &self,
        among: &[&'a Arc<Endpoint<C>>],
        call: Call,
        now: Instant,
    ) -> Option<(&'a Arc<Endpoint<C>>, bool)> {
        let at = |gate| among.iter().find(|endpoint| endpoint.gate(now) == gate).map(|endpoint| (*endpoint, true));
        let (overdue, probe) = (at(Gate::Overdue), at(Gate::Probe));
        if overdue.is_some() {
            return overdue;
        }
        if call.repeatable && probe.is_some() {
            return probe;
        }
        let open: Vec<_> = among.iter().filter(|endpoint| endpoint.gate(now) == Gate::Open).collect();
        let absent = || among.iter().find(|endpoint| matches!(endpoint.gate(now), Gate::Absent(_)));
        let open = self.less_loaded(&open, now).map(|endpoint| (endpoint, false));
        open.or(probe).or_else(|| absent().map(|endpoint| (*endpoint, true)))
    }

    fn less_loaded<'a>(&self, among: &[&&'a Arc<Endpoint<C>>], now: Instant) -> Option<&'a Arc<Endpoint<C>>> {
        let [first, second] = match among {
            [] => return None,
            [only] => return Some(only),
            _ => {
                let first = below(&self.source, among.len());
                let second = below(&self.source, among.len() - 1);
                [first, if second < first { second } else { second + 1 }]
            }
        };
        let (first, second) = (*among[first], *among[second]);
        Some(if second.cost(now) < first.cost(now) { second } else { first })
    }

    fn endpoint(&self, address: &Arc<str>, label: Arc<str>) -> Endpoint<C> {
        let [service, server] = self.labels.clone();
        let labels = [service, server, Label::new("endpoint", label)];
        let picks = metrics::counter!("guildhall_mesh_picks_total", labels.iter());
        picks.increment(0);
        let out = metrics::gauge!("guildhall_mesh_breaker_open", labels.iter());
        // Shows the series without changing it: another channel may count there too.
        out.increment(0.0);
        let now = Instant::now();
        Endpoint {
            connection: (self.connect)(address),
            address: Arc::clone(address),
            state: Mutex::new(State { breaker: Breaker::new(now), load: Load::new(now) }),
            picks,
            out,
            estimate: metrics::gauge!("guildhall_mesh_answer_estimate_seconds", labels.iter()),
        }
    }
}

impl<C> Drop for Balance<C> {
    fn drop(&mut self) {
        self.set(&[]);
    }
}

impl<C> Set<C> {
    fn label(&mut self, address: &Arc<str>) -> Arc<str> {
        if self.labelled.len() < SERIES {
            self.labelled.insert(Arc::clone(address));
        }
        if self.labelled.contains(address) { Arc::clone(address) } else { "other".into() }
    }
}

/// When the first of them may be asked again.
fn all_out<C>(endpoints: &[Arc<Endpoint<C>>], now: Instant) -> AllOut {
    let waits = endpoints.iter().filter_map(|endpoint| match endpoint.gate(now) {
        Gate::Shut(wait) | Gate::Absent(wait) => Some(wait),
        Gate::Open | Gate::Probe | Gate::Overdue => None,
    });
    AllOut(waits.min().unwrap_or(Duration::from_secs(1)))
}

/// A number below `bound`. What the remainder favours is beyond measuring.
fn below(source: &Source, bound: usize) -> usize {
    let bound = u64::try_from(bound).expect("an address space of 64 bits at most");
    usize::try_from(u64::from_le_bytes(source.bytes()) % bound).expect("smaller than a usize")
}

/// From 0 to 1.
pub(super) fn fraction(source: &Source) -> f64 {
    f64::from(u32::from_le_bytes(source.bytes())) / f64::from(u32::MAX)
}

impl<C> Endpoint<C> {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// One that has as many calls as its server takes is as good as out: the next would only wait in a queue.
    fn gate(&self, now: Instant) -> Gate {
        let state = self.state();
        match state.breaker.gate(now) {
            Gate::Open if state.load.waiting >= WAITING => Gate::Shut(Duration::from_millis(100)),
            gate => gate,
        }
    }

    fn cost(&self, now: Instant) -> f64 {
        self.state().load.cost(now)
    }
}

impl<C> Drop for Endpoint<C> {
    fn drop(&mut self) {
        self.estimate.set(0.0);
        if self.state().breaker.gate(Instant::now()) != Gate::Open {
            self.out.decrement(1.0);
        }
    }
}

impl<C> Pick<C> {
    /// The call goes out now: what it took to get a connection is no load.
    pub(crate) fn sent(&mut self) {
        self.since = Instant::now();
    }

    /// Whether a call that is over by now without an answer has waited long enough for one.
    pub(crate) fn is_patient(&self) -> bool {
        !self.streaming && self.since.elapsed() >= PATIENCE
    }

    /// The call has its answer, or its failure.
    pub(crate) fn end(mut self, verdict: Verdict) {
        self.record(verdict);
    }

    fn record(&mut self, verdict: Verdict) {
        self.ended = true;
        let now = Instant::now();
        let endpoint = &self.endpoint;
        let mut state = endpoint.state();
        state.load.waiting = state.load.waiting.saturating_sub(1);
        if !self.streaming || verdict != Verdict::Serves {
            state.load.record(now - self.since, verdict == Verdict::Serves, now);
        }
        endpoint.estimate.set(state.load.estimate(now).unwrap_or_default());
        let change = state.breaker.record(verdict, self.probe, now, fraction(&self.source));
        drop(state);
        let address = &*endpoint.address;
        match change {
            None => {}
            Some(Change::Out(penalty)) => {
                endpoint.out.increment(1.0);
                self.outs.increment(1);
                tracing::warn!(mesh.endpoint = address, ?penalty, "{address} does not serve and gets no calls");
            }
            Some(Change::Still(penalty)) => {
                tracing::info!(mesh.endpoint = address, ?penalty, "{address} still does not serve");
            }
            Some(Change::Back) => {
                endpoint.out.decrement(1.0);
                tracing::info!(mesh.endpoint = address, "{address} serves again");
            }
        }
    }
}

impl<C> Drop for Pick<C> {
    /// The caller has gone, or its time is over.
    fn drop(&mut self) {
        if !self.ended {
            self.record(if self.is_patient() { Verdict::Fails } else { Verdict::Nothing });
        }
    }
}

/// How much an endpoint has to do, as far as this client can see.
struct Load {
    waiting: u32,
    /// In seconds, as of `at`; `None` before the first answer.
    estimate: Option<f64>,
    at: Instant,
}

impl Load {
    fn new(now: Instant) -> Self {
        Self { waiting: 0, estimate: None, at: now }
    }

    /// It fades, so that an endpoint that was slow once is tried again.
    fn estimate(&self, now: Instant) -> Option<f64> {
        Some((self.estimate? * self.weight(now)).max(LEAST))
    }

    /// A new endpoint gets a call at once, and no second one before that has been answered if another is faster.
    fn cost(&self, now: Instant) -> f64 {
        let calls = f64::from(self.waiting) + 1.0;
        match self.estimate(now) {
            Some(estimate) => estimate * calls,
            None if self.waiting == 0 => 0.0,
            None => UNKNOWN * calls,
        }
    }

    /// A slow answer counts at once, a fast one by and by. Without an answer the time is only a lower bound.
    fn record(&mut self, took: Duration, answered: bool, now: Instant) {
        let took = took.as_secs_f64();
        let weight = self.weight(now);
        let next = match self.estimate {
            None if answered => took,
            None => took.max(UNKNOWN),
            Some(estimate) if took > estimate * weight => took,
            Some(estimate) if answered => estimate * weight + took * (1.0 - weight),
            Some(_) => return,
        };
        self.estimate = Some(next);
        self.at = now;
    }

    fn weight(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.at).as_secs_f64() / DECAY).exp()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::breaker::OVERDUE, *};

    const UNARY: Call = Call { repeatable: true, streaming: false };
    const UNSAFE: Call = Call { repeatable: false, streaming: false };

    fn addresses(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn balance(names: &[&str]) -> Balance<()> {
        let labels = [Label::new("service", "edge-gateway"), Label::new("server", "content")];
        let balance = Balance::new(&labels, Source::system(), |_| ());
        balance.set(&addresses(names));
        balance
    }

    fn picked(balance: &Balance<()>, tried: &[&str]) -> Arc<str> {
        let pick = balance.pick(UNSAFE, &addresses(tried)).unwrap();
        let address = Arc::clone(&pick.endpoint.address);
        pick.end(Verdict::Serves);
        address
    }

    fn put_out(balance: &Balance<()>, name: &str) {
        let others: Vec<_> = lock(&balance.set).endpoints.iter().map(|endpoint| endpoint.address.clone()).collect();
        let others: Vec<_> = others.into_iter().filter(|address| **address != *name).collect();
        while lock(&balance.set)
            .endpoints
            .iter()
            .any(|endpoint| *endpoint.address == *name && endpoint.gate(Instant::now()) == Gate::Open)
        {
            balance.pick(UNSAFE, &others).unwrap().end(Verdict::Fails);
        }
    }

    /// As if it had been put out so long ago, for a second.
    fn put_out_since(balance: &Balance<()>, name: &str, verdict: Verdict, since: Duration) -> Arc<Endpoint<()>> {
        let then = Instant::now() - since;
        let mut breaker = Breaker::new(then);
        while breaker.record(verdict, false, then, 0.0).is_none() {}
        let endpoint =
            lock(&balance.set).endpoints.iter().find(|endpoint| &*endpoint.address == name).cloned().unwrap();
        endpoint.state().breaker = breaker;
        endpoint
    }

    #[test]
    fn equal_endpoints_are_picked_without_favour() {
        let names = ["a", "b", "c", "d"];
        let balance = balance(&names);
        let mut picks = std::collections::HashMap::new();
        // Streams, since their time is not taken: the machine may be slow now and then.
        let stream = Call { repeatable: false, streaming: true };
        for _ in 0..8000 {
            let pick = balance.pick(stream, &[]).unwrap();
            *picks.entry(Arc::clone(&pick.endpoint.address)).or_insert(0) += 1;
            pick.end(Verdict::Serves);
        }
        for name in names {
            let picks = picks[name];
            // 2000 with a standard deviation below 40.
            assert!((1750..=2250).contains(&picks), "{name}: {picks}");
        }
    }

    #[test]
    fn a_call_that_waits_makes_its_endpoint_dearer() {
        let balance = balance(&["a", "b"]);
        let (first, second) = (balance.pick(UNARY, &[]).unwrap(), balance.pick(UNARY, &[]).unwrap());
        assert_ne!(first.endpoint.address, second.endpoint.address);
        let held = Arc::clone(&first.endpoint.address);
        second.end(Verdict::Serves);
        for _ in 0..100 {
            assert_ne!(picked(&balance, &[]), held);
        }
    }

    #[test]
    fn what_was_tried_is_picked_only_where_nothing_else_is_left() {
        let balance = balance(&["a", "b"]);
        for _ in 0..100 {
            assert_eq!(&*picked(&balance, &["a"]), "b");
        }
        assert!(balance.has_other(&addresses(&["a"])));
        assert!(!balance.has_other(&addresses(&["a", "b"])));
        picked(&balance, &["a", "b"]);
    }

    #[test]
    fn an_endpoint_that_is_out_gets_no_call_and_when_all_are_nothing_waits() {
        let balance = balance(&["a", "b"]);
        put_out(&balance, "a");
        for _ in 0..100 {
            assert_eq!(&*picked(&balance, &["b"]), "b", "not even where the other was tried");
        }
        assert!(!balance.has_other(&addresses(&["b"])));
        put_out(&balance, "b");
        let AllOut(wait) = balance.pick(UNARY, &[]).err().unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(1500), "{wait:?}");
    }

    #[test]
    fn an_endpoint_that_has_as_many_calls_as_it_takes_is_out_too() {
        let balance = balance(&["a"]);
        let held: Vec<_> = (0..WAITING).map(|_| balance.pick(UNARY, &[]).unwrap()).collect();
        assert!(balance.pick(UNARY, &[]).is_err());
        drop(held);
        picked(&balance, &[]);
    }

    #[test]
    fn calls_that_waited_long_for_nothing_put_an_endpoint_out_and_impatient_ones_do_not() {
        let given_up = |call, waited| {
            let balance = balance(&["a"]);
            for _ in 0..20 {
                let Ok(mut pick) = balance.pick(call, &[]) else { return true };
                pick.since -= waited;
            }
            false
        };
        assert!(given_up(UNSAFE, PATIENCE));
        assert!(!given_up(UNSAFE, PATIENCE / 2), "whoever sets short deadlines must not take it from the others");
        assert!(!given_up(Call { repeatable: false, streaming: true }, PATIENCE), "an upload may take its time");
    }

    #[test]
    fn a_call_that_can_be_repeated_is_the_probe_and_another_only_where_nobody_else_serves() {
        let balance = balance(&["a", "b"]);
        let out = put_out_since(&balance, "a", Verdict::Fails, Duration::from_millis(1200));
        for _ in 0..100 {
            assert_eq!(&*picked(&balance, &[]), "b");
        }
        let probe = balance.pick(UNARY, &[]).unwrap();
        assert!(probe.probe && &*probe.endpoint.address == "a");
        let second = balance.pick(UNARY, &[]).unwrap();
        assert!(!second.probe && &*second.endpoint.address == "b", "one at a time");
        probe.end(Verdict::Serves);
        assert_eq!(out.gate(Instant::now()), Gate::Open);

        put_out(&balance, "b");
        assert_eq!(&*picked(&balance, &[]), "a");
    }

    #[test]
    fn an_endpoint_comes_back_though_no_call_can_be_repeated() {
        let penalty = Duration::from_millis(1200);
        for (verdict, since) in [(Verdict::Absent, penalty), (Verdict::Fails, penalty + OVERDUE)] {
            let balance = balance(&["a", "b"]);
            let out = put_out_since(&balance, "a", verdict, since);
            let probe = balance.pick(UNSAFE, &[]).unwrap();
            assert!(probe.probe && &*probe.endpoint.address == "a", "{verdict:?}");
            assert!(!balance.pick(UNSAFE, &[]).unwrap().probe, "one at a time");
            probe.end(Verdict::Serves);
            assert_eq!(out.gate(Instant::now()), Gate::Open);
        }
    }

    #[test]
    fn those_who_stay_are_not_made_anew_and_those_who_go_get_no_more_calls() {
        let balance = balance(&["a", "b"]);
        put_out(&balance, "a");
        let on_its_way = balance.pick(UNARY, &[]).unwrap();
        balance.set(&addresses(&["a", "c"]));
        for _ in 0..100 {
            assert_eq!(&*picked(&balance, &[]), "c", "a is still out");
        }
        on_its_way.end(Verdict::Serves);
        balance.set(&[]);
        assert!(balance.is_empty() && balance.pick(UNARY, &[]).is_err());
    }

    #[test]
    fn addresses_that_come_and_go_do_not_pile_up_in_the_metrics() {
        let mut set: Set<()> = Set { endpoints: Vec::new(), labelled: HashSet::new() };
        let labels: HashSet<_> = (0..1000).map(|port| set.label(&format!("10.0.0.1:{port}").into())).collect();
        assert_eq!(labels.len(), SERIES + 1);
        assert_eq!(&*set.label(&"10.0.0.1:5".into()), "10.0.0.1:5");
    }

    #[test]
    fn a_new_endpoint_is_asked_at_once_and_waited_for() {
        let now = Instant::now();
        let mut known = Load::new(now);
        known.record(Duration::from_millis(1), true, now);
        let mut new = Load::new(now);
        assert!(new.cost(now) < known.cost(now));
        new.waiting = 1;
        assert!(new.cost(now) > known.cost(now) * 20.0);
    }

    #[test]
    fn slow_counts_at_once_and_fast_by_and_by() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        let seconds = |load: &Load, now| load.estimate(now).unwrap();
        load.record(Duration::from_millis(10), true, now);
        assert!((seconds(&load, now) - 0.010).abs() < 1e-9, "the first is taken as it is");
        load.record(Duration::from_millis(100), true, now);
        assert!((seconds(&load, now) - 0.100).abs() < 1e-9);
        now += Duration::from_secs(1);
        load.record(Duration::from_millis(10), true, now);
        let estimate = seconds(&load, now);
        assert!((0.091..0.092).contains(&estimate), "{estimate}");
        let later = now + Duration::from_secs(1000);
        assert!((seconds(&load, later) - LEAST).abs() < 1e-9, "and is forgotten when nobody asks");
    }

    #[test]
    fn an_error_that_comes_fast_is_not_a_fast_answer() {
        let now = Instant::now();
        let mut load = Load::new(now);
        load.record(Duration::ZERO, false, now);
        assert!((load.estimate(now).unwrap() - UNKNOWN).abs() < 1e-9);
        let later = now + Duration::from_secs(1);
        let before = load.estimate(later);
        load.record(Duration::ZERO, false, later);
        assert_eq!(load.estimate(later), before);
        load.record(Duration::from_secs(2), false, later);
        assert_eq!(load.estimate(later), Some(2.0), "but one that takes long is a slow one");
    }

    proptest! {
        #[test]
        fn a_pick_is_below_its_bound(bound in 1_usize..1000) {
            prop_assert!(below(&Source::system(), bound) < bound);
        }
    }
}
