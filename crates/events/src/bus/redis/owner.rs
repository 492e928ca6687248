//! One consumer's ownership of one stream.
//!
//! Every step that changes what is delivered to whom is a script that first looks whether this process still has the lease: whoever
//! was halted and comes too late gets nothing. What was delivered and not acknowledged, to whomever, comes first at the beginning of an
//! ownership. So a read that may have been carried out without its answer ends the ownership, and the next one finds what it got.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ids::Timestamp;
use keyspace::redis::{Script, cmd};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::entry::{EntryId, Fields, decode};
use super::work::Work;
use super::{LANES, Shared, millis};
use crate::bus::{Failures, attempt, wants};
use crate::{Envelope, Error};

/// Events of one stream that are in memory: those of keys that wait for a failed one among them.
const WINDOW: usize = 256;
/// Events that are read at once.
const PAGE: usize = 64;
/// A lease is renewed after this part of it.
const RENEWALS: u32 = 3;
/// An event that was begun so often and never ended may be what ended its process: it is begun alone.
const SUSPICIOUS: u32 = 2;
/// The pause before a dead letter that could not be written is tried again.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);
/// The one consumer of each group: the lease says who that is.
const OWNER: &str = "owner";

/// Takes the lease if it is free or was this process's, and makes the group from the beginning where there is none. Returns for how
/// many milliseconds somebody else has it, or 0. A lease that lasts longer than any is from before Redis' clock went back.
static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=allow-oom
        local held = redis.call('GET', KEYS[1])
        if held and held ~= ARGV[1] and held ~= ARGV[2] then
            local left, lease = redis.call('PTTL', KEYS[1]), tonumber(ARGV[3])
            if left < 0 or left > lease then
                redis.call('PEXPIRE', KEYS[1], lease)
                left = lease
            end
            return math.max(left, 1)
        end
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
        local made = redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[4], '0', 'MKSTREAM')
        if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
        return 0",
    )
});

static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=allow-oom
        if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
        return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// What has been delivered to nobody.
static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=allow-oom
        if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
        local read = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[2], '>')
        return read and read[1][2] or {}",
    )
});

/// What has been delivered and not acknowledged, with the attempts that have begun; and which of it is gone.
static TAKE_OVER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=allow-oom
        if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
        local stream, group, owner = KEYS[2], ARGV[2], ARGV[3]
        local claimed = redis.call('XAUTOCLAIM', stream, group, owner, 0, ARGV[5], 'COUNT', ARGV[4], 'JUSTID')
        local entries = {}
        for _, id in ipairs(claimed[2]) do
            local pending = redis.call('XPENDING', stream, group, id, id, 1)
            entries[#entries + 1] = {id, redis.call('XRANGE', stream, id, id)[1][2], pending[1][4]}
        end
        return {claimed[1], entries, claimed[3]}",
    )
});

/// Gives the lease back, and says of events that they have not begun.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=allow-oom
        if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
        for at = 4, #ARGV do
            redis.pcall('XCLAIM', KEYS[2], ARGV[2], ARGV[3], 0, ARGV[at], 'RETRYCOUNT', 0, 'JUSTID')
        end
        return redis.call('DEL', KEYS[1])",
    )
});

/// What it takes over: where to go on, the entries, and the ids of those that are gone.
type TakenOver = (String, Vec<(EntryId, Fields, u32)>, Vec<String>);

/// Owns the stream with that tag, whenever no other process does, until `stop`.
pub(super) async fn own(work: Arc<Work>, tag: String, stop: CancellationToken) {
    let mut place = Place::new(&work, &tag);
    let mut next = Instant::now();
    while stop.run_until_cancelled(sleep_until(next)).await.is_some() {
        let now = Instant::now();
        next = now + work.shared.settings.poll;
        match place.acquire(&work).await {
            Ok(Lease::Ours { until }) => {
                let owned = metrics::gauge!("guildhall_events_streams_owned", "consumer" => work.consumer);
                owned.increment(1);
                Tenure::new(Arc::clone(&work), &place, until).run(&stop).await;
                owned.decrement(1);
                place.retire(&work.shared);
            }
            // Its owner may give it back before, or never be heard of again.
            Ok(Lease::Others { left }) => next = next.min(Instant::now() + left),
            Err(error) => {
                tracing::debug!(consumer = work.consumer, stream = tag, error = %error, "Cannot ask Redis for a stream; trying again");
            }
        }
    }
}

/// Who has the lease of a stream.
enum Lease {
    /// This process, until then if it does not renew it.
    Ours { until: Instant },
    /// Another one, for so long if that does not renew it.
    Others { left: Duration },
}

/// One stream as one consumer has it, and the lease on that.
#[derive(Clone)]
struct Place {
    tag: String,
    stream: String,
    lease: String,
    /// A new one for each ownership: what an earlier one has on its way is refused.
    token: String,
    previous: String,
}

impl Place {
    fn new(work: &Work, tag: &str) -> Self {
        let key = |rest: &str| work.shared.keyspace.key(tag, rest);
        Self {
            tag: tag.to_owned(),
            stream: key("stream"),
            lease: key(&format!("owner/{}", work.consumer)),
            token: token(&work.shared),
            previous: String::new(),
        }
    }

    /// Takes the lease if nobody else has it.
    async fn acquire(&self, work: &Work) -> keyspace::Result<Lease> {
        let until = Instant::now() + work.shared.settings.lease;
        let mut acquire = ACQUIRE.key(&self.lease);
        acquire.key(&self.stream).arg(&self.token).arg(&self.previous).arg(millis(work.shared.settings.lease));
        let left: u64 = work.shared.keyspace.script(acquire.arg(work.consumer)).await?;
        // In the millisecond in which it ends, it is still there.
        let others = || Lease::Others { left: Duration::from_millis(left + 1) };
        Ok(if left == 0 { Lease::Ours { until } } else { others() })
    }

    fn retire(&mut self, shared: &Shared) {
        self.previous = std::mem::replace(&mut self.token, token(shared));
    }
}

fn token(shared: &Shared) -> String {
    Uuid::from_bytes(shared.source.bytes()).simple().to_string()
}

/// An event that was delivered here.
struct Delivered {
    id: EntryId,
    event: Envelope,
    /// Attempts that have begun, without those that ended with [`Failure::Later`](crate::Failure::Later).
    begun: u32,
    /// How many of them Redis knows of: a delivery counts as one.
    counted: u32,
}

/// What came of an event.
struct Ended {
    id: EntryId,
    key: String,
    begun: u32,
    /// Whether its effect, or its dead letter, is committed.
    done: bool,
}

/// The time that a stream is owned.
struct Tenure {
    work: Arc<Work>,
    place: Place,
    /// Until when it is known to last; none when it has ended. Nothing begins after that.
    until: watch::Sender<Option<Instant>>,
    /// Where taking over goes on; none when it is over.
    cursor: Option<String>,
    /// Whether there may be something to read.
    unread: bool,
    /// When the events happened that are in memory.
    window: BTreeMap<EntryId, Timestamp>,
    /// Keys of which an event is being handled, with those that wait for it.
    keys: HashMap<String, VecDeque<Delivered>>,
    handling: JoinSet<Ended>,
    /// What is to be acknowledged.
    done: Vec<EntryId>,
    /// What was not even begun.
    untouched: Vec<EntryId>,
}

impl Tenure {
    fn new(work: Arc<Work>, place: &Place, until: Instant) -> Self {
        Self {
            work,
            place: place.clone(),
            until: watch::Sender::new(Some(until)),
            cursor: Some("0-0".to_owned()),
            unread: true,
            window: BTreeMap::new(),
            keys: HashMap::new(),
            handling: JoinSet::new(),
            done: Vec::new(),
            untouched: Vec::new(),
        }
    }

    /// Handles events until `stop`, or until the stream is no longer owned.
    async fn run(mut self, stop: &CancellationToken) {
        let settings = self.work.shared.settings;
        let mut bell = self.work.shared.bells.of(&self.place.stream);
        let mut renewal = every(settings.lease / RENEWALS);
        let mut poll = every(settings.poll);
        let owned = loop {
            let mut goes_on = tokio::select! {
                biased;
                () = stop.cancelled() => break true,
                _ = renewal.tick() => self.renew().await,
                Some(ended) = self.handling.join_next() => self.settle(ended),
                Ok(()) = bell.changed() => {
                    self.unread = true;
                    true
                }
                _ = poll.tick() => {
                    // A bell may be broken.
                    self.unread = true;
                    self.measure();
                    true
                }
                () = std::future::ready(()), if self.unread && self.room() > 0 => self.read().await,
            };
            while let Some(ended) = self.handling.try_join_next() {
                goes_on &= self.settle(ended);
            }
            self.acknowledge().await;
            if !goes_on {
                break false;
            }
        };
        self.end(owned, renewal).await;
    }

    /// By the clock: what Redis says of a group's lag is wrong once an entry was deleted.
    fn measure(&self) {
        let labels = [("consumer", self.work.consumer.to_owned()), ("stream", self.place.tag.clone())];
        let oldest = self.window.values().min();
        let lag = oldest.map_or(Duration::ZERO, |oldest| self.work.shared.source.now().since(*oldest));
        metrics::gauge!("guildhall_events_lag_seconds", &labels).set(lag.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "the window is small")]
        metrics::gauge!("guildhall_events_pending", &labels).set(self.window.len() as f64);
    }

    fn room(&self) -> usize {
        WINDOW.saturating_sub(self.window.len() + self.done.len())
    }

    /// Reads a page: first of what was delivered before, then of what is new. Whether the stream is still owned.
    async fn read(&mut self) -> bool {
        let page = self.room().min(PAGE);
        let read = match self.cursor.clone() {
            Some(cursor) => self.take_over(page, cursor).await,
            None => self.read_new(page).await,
        };
        match read {
            Ok(owned) => owned,
            Err(error) => {
                tracing::warn!(consumer = self.work.consumer, stream = self.place.tag, error = %error, "Cannot read events; trying again");
                false
            }
        }
    }

    async fn read_new(&mut self, page: usize) -> Result<bool, Error> {
        let mut read = READ.key(&self.place.lease);
        read.key(&self.place.stream).arg(&self.place.token).arg(self.work.consumer).arg(OWNER).arg(page);
        let entries: Option<Vec<(EntryId, Fields)>> = self.work.shared.keyspace.script(&read).await?;
        let Some(entries) = entries else { return Ok(false) };
        self.unread = entries.len() == page;
        for (id, fields) in entries {
            if let Some(event) = self.wanted(id, fields) {
                self.deliver(Delivered { id, event, begun: 0, counted: 1 });
            }
        }
        Ok(true)
    }

    async fn take_over(&mut self, page: usize, cursor: String) -> Result<bool, Error> {
        let mut take_over = TAKE_OVER.key(&self.place.lease);
        take_over
            .key(&self.place.stream)
            .arg(&self.place.token)
            .arg(self.work.consumer)
            .arg(OWNER)
            .arg(page)
            .arg(cursor);
        let taken: Option<TakenOver> = self.work.shared.keyspace.script(&take_over).await?;
        let Some((cursor, entries, gone)) = taken else { return Ok(false) };
        self.cursor = (cursor != "0-0").then_some(cursor);
        if !gone.is_empty() {
            metrics::counter!("guildhall_events_lost_total", "consumer" => self.work.consumer)
                .increment(gone.len() as u64);
            tracing::error!(
                consumer = self.work.consumer,
                stream = self.place.tag,
                ?gone,
                "Events were deleted before they were handled"
            );
        }
        let mut events = Vec::new();
        for (id, fields, begun) in entries {
            if let Some(event) = self.wanted(id, fields) {
                events.push(Delivered { id, event, begun, counted: begun });
            }
        }
        // By an owner that did not come to acknowledge it.
        let begun = events.iter().filter(|delivered| delivered.begun > 0).map(|delivered| delivered.event.id).collect();
        let given_up = self.work.dead_letters.given_up(self.work.consumer, begun).await?;
        for delivered in events {
            if given_up.contains(&delivered.event.id) {
                self.done.push(delivered.id);
            } else {
                self.deliver(delivered);
            }
        }
        Ok(true)
    }

    /// The event of an entry. One that is not for this consumer is done.
    fn wanted(&mut self, id: EntryId, fields: Fields) -> Option<Envelope> {
        let event = decode(fields);
        if event.is_none() {
            metrics::counter!("guildhall_events_lost_total", "consumer" => self.work.consumer).increment(1);
            tracing::error!(consumer = self.work.consumer, stream = self.place.tag, %id, "An entry of a stream is no event; it is left out");
        }
        let wanted = event.filter(|event| wants(self.work.topics, event));
        if wanted.is_none() {
            self.done.push(id);
        }
        wanted
    }

    fn deliver(&mut self, delivered: Delivered) {
        self.window.insert(delivered.id, delivered.event.time);
        if let Some(waiting) = self.keys.get_mut(&delivered.event.key) {
            waiting.push_back(delivered);
        } else {
            self.keys.insert(delivered.event.key.clone(), VecDeque::new());
            self.begin(delivered);
        }
    }

    fn begin(&mut self, delivered: Delivered) {
        let lane =
            Lane { work: Arc::clone(&self.work), stream: self.place.stream.clone(), until: self.until.subscribe() };
        self.handling.spawn(lane.handle(delivered));
    }

    /// Goes on with the key of an event that has ended. Whether all of the stream's order is still known.
    fn settle(&mut self, ended: Result<Ended, JoinError>) -> bool {
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(consumer = self.work.consumer, stream = self.place.tag, error = %error, "The handling of an event ended with a panic; it is handled again");
                return false;
            }
        };
        if ended.done {
            self.window.remove(&ended.id);
            self.done.push(ended.id);
        } else {
            // It was left since the ownership seemed to be over, as when Redis was late. Nothing may pass it: the next ownership takes
            // over all that waits, in order.
            self.until.send_replace(None);
            if ended.begun == 0 {
                self.untouched.push(ended.id);
            }
        }
        match self.keys.get_mut(&ended.key).and_then(VecDeque::pop_front) {
            // Once the ownership is over, it comes back untouched.
            Some(next) => self.begin(next),
            None => {
                self.keys.remove(&ended.key);
            }
        }
        ended.done
    }

    /// Acknowledges what is committed. What is not acknowledged now is later, if need be by the next owner, who finds it done.
    async fn acknowledge(&mut self) {
        if self.done.is_empty() {
            return;
        }
        let mut acknowledge = cmd("XACK");
        acknowledge.arg(&self.place.stream).arg(self.work.consumer).arg(&self.done);
        match self.work.shared.keyspace.run::<()>(&acknowledge).await {
            Ok(()) => self.done.clear(),
            Err(error) => {
                tracing::warn!(consumer = self.work.consumer, stream = self.place.tag, error = %error, "Cannot acknowledge events to Redis; trying again");
            }
        }
    }

    /// Whether the stream is owned for a further while, or at least until the last one is over.
    async fn renew(&mut self) -> bool {
        let lease = self.work.shared.settings.lease;
        let until = Instant::now() + lease;
        let mut renew = RENEW.key(&self.place.lease);
        renew.arg(&self.place.token).arg(millis(lease));
        match self.work.shared.keyspace.script::<bool>(&renew).await {
            Ok(true) => {
                self.until.send_if_modified(|known| {
                    *known = known.map(|_| until);
                    // Nobody waits for more time.
                    false
                });
                true
            }
            Ok(false) => {
                tracing::warn!(
                    consumer = self.work.consumer,
                    stream = self.place.tag,
                    "Another process has taken over a stream"
                );
                false
            }
            Err(_) => self.until.borrow().is_some_and(|until| Instant::now() < until),
        }
    }

    /// Begins nothing more, waits for what is being handled, and lets the next owner have the rest.
    async fn end(mut self, mut owned: bool, mut renewal: Interval) {
        self.until.send_replace(None);
        loop {
            tokio::select! {
                biased;
                ended = self.handling.join_next() => match ended {
                    Some(ended) => drop(self.settle(ended)),
                    None => break,
                },
                _ = renewal.tick(), if owned => owned = self.renew().await,
            }
        }
        self.acknowledge().await;
        let mut release = RELEASE.key(&self.place.lease);
        release.key(&self.place.stream).arg(&self.place.token).arg(self.work.consumer).arg(OWNER).arg(&self.untouched);
        if let Err(error) = self.work.shared.keyspace.script::<()>(&release).await {
            tracing::debug!(consumer = self.work.consumer, stream = self.place.tag, error = %error, "Could not give back a stream; the lease ends by itself");
        }
        self.window.clear();
        self.measure();
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// One event at work, while others of its key wait.
struct Lane {
    work: Arc<Work>,
    stream: String,
    until: watch::Receiver<Option<Instant>>,
}

impl Lane {
    async fn handle(mut self, mut delivered: Delivered) -> Ended {
        let done = self.complete(&mut delivered).await;
        let Delivered { id, event, begun, .. } = delivered;
        Ended { id, key: event.key, begun, done }
    }

    /// Whether the event's effect, or its dead letter, has been committed before the ownership was over. Attempts are counted in
    /// Redis before they begin, so that they are known when their process is not there to tell.
    async fn complete(&mut self, delivered: &mut Delivered) -> bool {
        let work = Arc::clone(&self.work);
        let retry = work.shared.settings.retry;
        let mut failures = Failures::after(delivered.begun);
        let mut suspicious = delivered.begun >= SUSPICIOUS;
        while delivered.begun < retry.attempts {
            // Alone, so that it takes no others with it, whose attempts would count too.
            let lanes = if std::mem::take(&mut suspicious) { LANES } else { 1 };
            let permit = tokio::select! {
                biased;
                () = over(&mut self.until) => return false,
                permit = work.lanes.acquire_many(lanes) => permit.expect("the lanes are never closed"),
            };
            if !self.owns() || !self.count(delivered, delivered.begun + 1).await {
                return false;
            }
            delivered.begun += 1;
            let outcome = attempt(work.consumer, work.handler.as_ref(), &delivered.event).await;
            drop(permit);
            let Err(failure) = outcome else { return true };
            let pause = failures.add(&failure, retry, &work.shared.source);
            delivered.begun = failures.attempts;
            let Some(pause) = pause else {
                return self.give_up(&delivered.event, &failure.to_string(), delivered.begun).await;
            };
            if !self.count(delivered, delivered.begun).await || !self.pause(pause).await {
                return false;
            }
        }
        self.give_up(&delivered.event, "its attempts began and did not end", delivered.begun).await
    }

    async fn give_up(&mut self, event: &Envelope, reason: &str, attempts: u32) -> bool {
        loop {
            match self.work.dead_letters.keep(self.work.consumer, event, reason, attempts).await {
                Ok(()) => return true,
                Err(error) => {
                    tracing::error!(consumer = self.work.consumer, event.id = %event.id, error = %error, "Could not keep a dead letter; trying again");
                    if !self.pause(DATABASE_PAUSE).await {
                        return false;
                    }
                }
            }
        }
    }

    /// Lets Redis know how many attempts count. Whether the stream is owned still.
    async fn count(&mut self, delivered: &mut Delivered, attempts: u32) -> bool {
        if delivered.counted == attempts {
            return true;
        }
        let id = delivered.id;
        let mut claim = cmd("XCLAIM");
        claim.arg(&self.stream).arg(self.work.consumer).arg(OWNER).arg(0).arg(id);
        claim.arg("RETRYCOUNT").arg(attempts).arg("JUSTID");
        while let Err(error) = self.work.shared.keyspace.run::<()>(&claim).await {
            tracing::warn!(consumer = self.work.consumer, %id, error = %error, "Could not count an attempt; trying again");
            if !self.pause(self.work.shared.settings.poll).await {
                return false;
            }
        }
        delivered.counted = attempts;
        self.owns()
    }

    fn owns(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits, but not beyond the ownership; whether it goes on.
    async fn pause(&mut self, duration: Duration) -> bool {
        tokio::select! {
            biased;
            () = over(&mut self.until) => false,
            () = sleep(duration) => self.owns(),
        }
    }
}

/// Returns when an ownership has ended.
async fn over(until: &mut watch::Receiver<Option<Instant>>) {
    // An error means that its task is gone.
    let _ended = until.wait_for(Option::is_none).await.map(drop);
}
