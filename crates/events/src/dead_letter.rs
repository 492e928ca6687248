//! The events that a consumer gave up on: kept, listed, replayed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use contracts::common::v1 as proto;
use contracts::common::v1::dead_letter_service_server::DeadLetterService;
use ids::{DeadLetterId, EventId, Source, Timestamp};
use serde::{Deserialize, Serialize};
use status::{Problem, Reason};
use store::Db;
use store::page::{self, Tokens};
use tonic::{Request, Response, Status, async_trait};

use crate::{Envelope, Error, Failure, Handler, bus};

/// Characters of a reason that are kept.
const MAX_REASON: usize = 500;
/// Dead letters that are read at once to be replayed.
const REPLAY_BATCH: usize = 100;

/// The dead letters of one service, and the handlers that they can be handed to again. Clones are the same.
#[derive(Clone)]
pub struct DeadLetters {
    kept: Option<Kept>,
    handlers: Arc<RwLock<HashMap<&'static str, Arc<dyn Handler>>>>,
}

/// Where they are kept.
#[derive(Clone)]
struct Kept {
    db: Db,
    source: Source,
}

/// One event that one consumer gave up on.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its own id.
    pub id: DeadLetterId,
    /// Who gave up.
    pub consumer: String,
    /// The event.
    pub event: Envelope,
    /// The last failure.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When the consumer gave up.
    pub create_time: Timestamp,
}

/// Which dead letters.
#[derive(Clone, Debug)]
pub enum Selection {
    /// Those with these ids.
    Ids(Vec<DeadLetterId>),
    /// All of one consumer.
    Consumer(String),
}

/// What came of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Handled, and removed.
    pub replayed: u32,
    /// Failed again, and still there.
    pub failed: u32,
}

/// Where a listing goes on.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cursor {
    create_time: Timestamp,
    id: DeadLetterId,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: DeadLetterId,
    consumer: String,
    event_id: EventId,
    source: String,
    topic: String,
    key: String,
    version: i64,
    time: Timestamp,
    traceparent: Option<String>,
    payload: Vec<u8>,
    reason: String,
    attempts: i64,
    create_time: Timestamp,
}

impl From<Row> for DeadLetter {
    fn from(row: Row) -> Self {
        let event = Envelope {
            id: row.event_id,
            source: row.source,
            topic: row.topic,
            key: row.key,
            version: row.version,
            time: row.time,
            traceparent: row.traceparent,
            payload: row.payload.into(),
        };
        Self {
            id: row.id,
            consumer: row.consumer,
            event,
            reason: row.reason,
            attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
            create_time: row.create_time,
        }
    }
}

impl DeadLetter {
    fn cursor(&self) -> Cursor {
        Cursor { create_time: self.create_time, id: self.id }
    }
}

impl DeadLetters {
    /// The dead letters in the database of the consumers' effects.
    pub fn new(db: Db, source: Source) -> Self {
        Self { kept: Some(Kept { db, source }), handlers: Arc::default() }
    }

    /// For the broadcast subscriptions of a process without a database: what it cannot handle is logged and counted.
    pub fn log_only() -> Self {
        Self { kept: None, handlers: Arc::default() }
    }

    /// Whether they are kept.
    pub(crate) fn are_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Makes a consumer known, so that its dead letters can be replayed.
    pub(crate) fn register(&self, consumer: &'static str, handler: Arc<dyn Handler>) {
        self.handlers.write().unwrap_or_else(PoisonError::into_inner).insert(consumer, handler);
    }

    /// Keeps an event that `consumer` gave up on. Kept twice, it is there once.
    pub(crate) async fn keep(
        &self,
        consumer: &str,
        event: &Envelope,
        reason: &str,
        attempts: u32,
    ) -> Result<(), Error> {
        if let Some(Kept { db, source }) = &self.kept {
            let mut tx = db.begin().await?;
            store::execute!(
                tx,
                "INSERT INTO dead_letter (id, consumer, event_id, source, topic, key, version, time, traceparent, payload, reason, attempts, create_time) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
                 ON CONFLICT (consumer, event_id) DO UPDATE SET reason = excluded.reason, attempts = dead_letter.attempts + excluded.attempts",
                source.id::<DeadLetterId>(),
                consumer,
                event.id,
                event.source.as_str(),
                event.topic.as_str(),
                event.key.as_str(),
                event.version,
                event.time,
                event.traceparent.as_deref(),
                event.payload.as_ref(),
                shortened(reason),
                i64::from(attempts),
                source.now()
            )
            .await?;
            tx.commit().await?;
        }
        metrics::counter!("guildhall_events_dead_letters_total", "consumer" => consumer.to_owned()).increment(1);
        tracing::error!(consumer, event.id = %event.id, event.topic = %event.topic, event.key = %event.key, reason, attempts, "A consumer gave up on an event");
        Ok(())
    }

    /// Those of the events that `consumer` has given up on.
    pub(crate) async fn given_up(&self, consumer: &str, events: Vec<EventId>) -> Result<HashSet<EventId>, Error> {
        let Some(Kept { db, .. }) = self.kept.as_ref().filter(|_| !events.is_empty()) else {
            return Ok(HashSet::new());
        };
        let mut conn = db.read().await?;
        let select = format!(
            "SELECT event_id FROM dead_letter WHERE consumer = $1 AND event_id IN {}",
            conn.dialect().id_list(2)
        );
        let rows = store::fetch_all!(conn, (EventId,), select, consumer, store::dialect::id_list(events)).await?;
        Ok(rows.into_iter().map(|(event,)| event).collect())
    }

    /// The dead letters, oldest first, of one consumer or of all.
    pub async fn list(&self, consumer: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        self.page(consumer, None, limit).await
    }

    async fn page(
        &self,
        consumer: Option<&str>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        let Some(Kept { db, .. }) = &self.kept else { return Ok(Vec::new()) };
        let mut conn = db.read().await?;
        let rows = store::fetch_all!(
            conn,
            Row,
            "SELECT * FROM dead_letter WHERE ($1 IS NULL OR consumer = $1) AND ($2 IS NULL OR (create_time, id) > ($2, $3)) \
             ORDER BY create_time, id LIMIT $4",
            consumer,
            after.map(|after| after.create_time),
            after.map(|after| after.id),
            i64::try_from(limit).unwrap_or(i64::MAX)
        )
        .await?;
        Ok(rows.into_iter().map(DeadLetter::from).collect())
    }

    async fn by_id(&self, ids: Vec<DeadLetterId>) -> Result<Vec<DeadLetter>, Error> {
        let Some(Kept { db, .. }) = &self.kept else { return Ok(Vec::new()) };
        let mut conn = db.read().await?;
        let select =
            format!("SELECT * FROM dead_letter WHERE id IN {} ORDER BY create_time, id", conn.dialect().id_list(1));
        let rows = store::fetch_all!(conn, Row, select, store::dialect::id_list(ids)).await?;
        Ok(rows.into_iter().map(DeadLetter::from).collect())
    }

    /// Hands dead letters to their consumers once more, oldest first, and removes those that are handled now.
    pub async fn replay(&self, selection: Selection) -> Result<Replayed, Error> {
        let mut outcome = Replayed::default();
        match selection {
            Selection::Ids(ids) => {
                for letter in self.by_id(ids).await? {
                    self.replay_one(&letter, &mut outcome).await?;
                }
            }
            Selection::Consumer(consumer) => {
                let mut after = None;
                loop {
                    let letters = self.page(Some(&consumer), after, REPLAY_BATCH).await?;
                    for letter in &letters {
                        self.replay_one(letter, &mut outcome).await?;
                    }
                    after = letters.last().map(DeadLetter::cursor);
                    if letters.len() < REPLAY_BATCH {
                        break;
                    }
                }
            }
        }
        Ok(outcome)
    }

    async fn replay_one(&self, letter: &DeadLetter, outcome: &mut Replayed) -> Result<(), Error> {
        let handler =
            self.handlers.read().unwrap_or_else(PoisonError::into_inner).get(letter.consumer.as_str()).cloned();
        let result = match handler {
            Some(handler) => bus::attempt(&letter.consumer, handler.as_ref(), &letter.event).await,
            None => Err(Failure::Retry("this consumer does not run here".into())),
        };
        match result {
            Ok(()) => {
                self.remove(letter.id).await?;
                outcome.replayed += 1;
            }
            Err(failure) => {
                self.keep(&letter.consumer, &letter.event, &failure.to_string(), 1).await?;
                outcome.failed += 1;
            }
        }
        Ok(())
    }

    async fn remove(&self, id: DeadLetterId) -> Result<(), Error> {
        if let Some(Kept { db, .. }) = &self.kept {
            let mut tx = db.begin().await?;
            store::execute!(tx, "DELETE FROM dead_letter WHERE id = $1", id).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

fn shortened(reason: &str) -> String {
    // U+0000 cannot be stored by PostgreSQL.
    reason.chars().filter(|character| *character != '\0').take(MAX_REASON).collect()
}

/// `DeadLetterService` of any service.
#[derive(Clone)]
pub struct DeadLetterRpc {
    dead_letters: DeadLetters,
    tokens: Tokens,
}

impl DeadLetterRpc {
    /// Over the dead letters that the service's subscriptions were given.
    pub fn new(dead_letters: DeadLetters, tokens: Tokens) -> Self {
        Self { dead_letters, tokens }
    }
}

#[async_trait]
impl DeadLetterService for DeadLetterRpc {
    async fn list(
        &self,
        request: Request<proto::DeadLetterServiceListRequest>,
    ) -> Result<Response<proto::DeadLetterServiceListResponse>, Status> {
        let request = request.into_inner();
        let scope = format!("dead_letters/{}", request.consumer);
        let after = self.tokens.read(&scope, &request.page_token)?;
        let size = page::size(request.page_size);
        let consumer = Some(request.consumer.as_str()).filter(|consumer| !consumer.is_empty());
        let mut letters = self.dead_letters.page(consumer, after, size + 1).await.map_err(Problem::from)?;
        let more = letters.len() > size;
        letters.truncate(size);
        let next_page_token = match letters.last() {
            Some(last) if more => self.tokens.issue(&scope, &last.cursor()),
            _ => String::new(),
        };
        let dead_letters = letters.into_iter().map(proto::DeadLetter::from).collect();
        Ok(Response::new(proto::DeadLetterServiceListResponse { dead_letters, next_page_token }))
    }

    async fn replay(
        &self,
        request: Request<proto::DeadLetterServiceReplayRequest>,
    ) -> Result<Response<proto::DeadLetterServiceReplayResponse>, Status> {
        let request = request.into_inner();
        let selection = if !request.ids.is_empty() {
            let ids = request.ids.iter().map(|id| id.parse()).collect::<Result<_, _>>();
            Selection::Ids(ids.map_err(|_| invalid("ids", "must be UUIDs"))?)
        } else if request.consumer.is_empty() {
            return Err(invalid("consumer", "must be set where no ids are given").into());
        } else {
            Selection::Consumer(request.consumer)
        };
        let Replayed { replayed, failed } = self.dead_letters.replay(selection).await.map_err(Problem::from)?;
        Ok(Response::new(proto::DeadLetterServiceReplayResponse { replayed, failed }))
    }
}

fn invalid(field: &str, description: &str) -> Problem {
    Problem::new(Reason::InvalidFields).violation(field, description)
}

impl From<DeadLetter> for proto::DeadLetter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.id.to_string(),
            consumer: letter.consumer,
            topic: letter.event.topic,
            event_id: letter.event.id.to_string(),
            key: letter.event.key,
            reason: letter.reason,
            attempts: letter.attempts,
            create_time: Some(letter.create_time.into()),
        }
    }
}
