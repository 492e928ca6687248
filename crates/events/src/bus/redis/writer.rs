//! The relay's side: one stream, and what it has receipts for.

use std::sync::{Arc, LazyLock};

use ids::Timestamp;
use keyspace::redis::streams::StreamRangeReply;
use keyspace::redis::{Script, cmd};
use tokio::sync::Mutex;

use super::entry::{EntryId, WIDTH, encode};
use super::{Shared, tag};
use crate::bus::Receipt;
use crate::{Envelope, Error};

/// Adds all or nothing: nothing if the newest entry that there is a receipt for is gone, or if the memory is full. Ids follow the
/// relay's clock, which is also that of who looks for the events of a time, and never go back.
static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua
        local stream, newest, millis, sequence, width = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
        if newest ~= '0-0' and #redis.call('XRANGE', stream, newest, newest) == 0 then return false end
        if redis.call('EXISTS', stream) == 1 then
            local info = redis.call('XINFO', 'STREAM', stream)
            for at = 1, #info, 2 do
                if info[at] == 'last-generated-id' then
                    local last_millis, last_sequence = string.match(info[at + 1], '(%d+)-(%d+)')
                    last_millis, last_sequence = tonumber(last_millis), tonumber(last_sequence)
                    if last_millis > millis or last_millis == millis and last_sequence >= sequence then
                        millis, sequence = last_millis, last_sequence + 1
                    end
                end
            end
        end
        local id
        for at = 5, #ARGV, width do
            if sequence >= 1048576 then millis, sequence = millis + 1, 0 end
            id = string.format('%.0f-%.0f', millis, sequence)
            redis.call('XADD', stream, id, unpack(ARGV, at, at + width - 1))
            sequence = sequence + 1
        end
        return id",
    )
});

/// Deletes what every group is done with, but nothing of a certain time or later, and not the newest entry that there is a receipt for.
/// Returns the least id that a group is not done with.
static TRIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=allow-oom
        local stream, newest, before = KEYS[1], ARGV[1], ARGV[2]
        if #redis.call('XRANGE', stream, newest, newest) == 0 then return false end
        local function parsed(id)
            local millis, sequence = string.match(id, '(%d+)-(%d+)')
            return tonumber(millis), tonumber(sequence)
        end
        local function least(a, b)
            local a_millis, a_sequence = parsed(a)
            local b_millis, b_sequence = parsed(b)
            if b_millis < a_millis or b_millis == a_millis and b_sequence < a_sequence then return b end
            return a
        end
        local function after(id)
            local millis, sequence = parsed(id)
            return string.format('%.0f-%.0f', millis, sequence + 1)
        end
        local function fields(reply)
            local all = {}
            for at = 1, #reply, 2 do all[reply[at]] = reply[at + 1] end
            return all
        end
        local wanted = after(fields(redis.call('XINFO', 'STREAM', stream))['last-generated-id'])
        for _, reply in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
            local group = fields(reply)
            if group['pending'] > 0 then
                wanted = least(wanted, redis.call('XPENDING', stream, group['name'])[2])
            else
                wanted = least(wanted, after(group['last-delivered-id']))
            end
        end
        redis.call('XTRIM', stream, 'MINID', '=', least(least(wanted, before), newest))
        return wanted",
    )
});

/// One stream of one service.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    service: String,
    stream: i32,
    key: String,
    /// Locked while events are added: of two that were under way at once, one might be acknowledged by a server that dies, and the
    /// other be added by its successor, which does not have the first.
    receipts: Mutex<Receipts>,
}

#[derive(Debug, Default)]
struct Receipts {
    /// The newest entry that is known to be there.
    newest: EntryId,
    /// The greatest id ever known, even if it is lost: later ones are greater, for readers that stand there.
    highest: EntryId,
    /// Whether something is missing: nothing is added until the relay has been told how much.
    lost: bool,
}

impl Writer {
    pub(super) fn new(shared: &Arc<Shared>, service: &str, number: u8) -> Self {
        let key = shared.keyspace.key(&tag(service, number), "stream");
        let receipts = Mutex::default();
        Self { shared: Arc::clone(shared), service: service.to_owned(), stream: i32::from(number), key, receipts }
    }

    /// Adds events, in one step.
    pub(super) async fn publish(&self, events: &[&Envelope]) -> Result<Receipt, Error> {
        let mut receipts = self.receipts.lock().await;
        if receipts.lost {
            return Err(self.lost());
        }
        let at_least = EntryId::first_of(self.shared.source.now()).max(receipts.highest.next());
        let mut publish = PUBLISH.key(&self.key);
        publish.arg(receipts.newest).arg(at_least.millis).arg(at_least.sequence).arg(WIDTH);
        for event in events {
            publish.arg(&encode(event)[..]);
        }
        let Some(last) = self.shared.keyspace.script::<Option<EntryId>>(&publish).await? else {
            receipts.lost = true;
            return Err(self.lost());
        };
        receipts.newest = last;
        receipts.highest = last;
        Ok(self.receipt(last))
    }

    /// Goes by the relay's receipts from now on; what is still there if that is not all.
    pub(super) async fn resume(&self, newest: &[Receipt]) -> Result<Option<Receipt>, Error> {
        let mut receipts = self.receipts.lock().await;
        let newest = newest.iter().find(|receipt| receipt.stream == self.stream);
        let newest = newest.map_or_else(EntryId::default, |newest| EntryId::from_number(newest.number));
        let kept = self.kept(newest).await?;
        let highest = receipts.highest.max(newest);
        *receipts = Receipts { newest: kept, highest, lost: false };
        Ok((kept < newest).then(|| self.receipt(kept)))
    }

    /// Whether the newest entry is still there.
    pub(super) async fn verify(&self) -> Result<(), Error> {
        let mut receipts = self.receipts.lock().await;
        receipts.lost |= self.kept(receipts.newest).await? < receipts.newest;
        if receipts.lost { Err(self.lost()) } else { Ok(()) }
    }

    /// Lets go of what was added before `before` and everybody is done with; the least that somebody is not done with.
    pub(super) async fn trim(&self, before: Timestamp) -> Result<Option<Receipt>, Error> {
        let mut receipts = self.receipts.lock().await;
        if receipts.newest == EntryId::default() {
            return Ok(None);
        }
        let mut trim = TRIM.key(&self.key);
        trim.arg(receipts.newest).arg(EntryId::first_of(before));
        let Some(wanted) = self.shared.keyspace.script::<Option<EntryId>>(&trim).await? else {
            receipts.lost = true;
            return Err(self.lost());
        };
        Ok(Some(self.receipt(wanted)))
    }

    /// The newest entry up to `newest`.
    async fn kept(&self, newest: EntryId) -> Result<EntryId, Error> {
        if newest == EntryId::default() {
            return Ok(newest);
        }
        let mut range = cmd("XREVRANGE");
        range.arg(&self.key).arg(newest).arg(&["-", "COUNT", "1"]);
        let kept: StreamRangeReply = self.shared.keyspace.run(&range).await?;
        let id = kept.ids.first().and_then(|entry| entry.id.parse().ok());
        Ok(id.unwrap_or_default())
    }

    fn receipt(&self, id: EntryId) -> Receipt {
        Receipt { stream: self.stream, number: id.number() }
    }

    fn lost(&self) -> Error {
        Error::Lost(self.service.clone())
    }
}
