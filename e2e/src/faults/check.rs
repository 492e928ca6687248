//! Compares a journal with the databases: what was acknowledged is there once, what was not is there once at most, and each event's
//! effect happened once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::types::Uuid;
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use super::Findings;
use super::journal::{Entry, Journal, Outcome, Tolerance, Write};
use super::load::address;

/// The consumers whose effects an inbox tells of, with the topics that they take from auth.
pub const CONSUMERS: [(&str, &[&str]); 2] = [
    ("content.author_names", &["auth.user.updated"]),
    ("content.suspensions", &["auth.user.suspended", "auth.user.reinstated"]),
];
/// The state of a published post, as the table writes it.
const PUBLISHED: i16 = 3;
const POLL: Duration = Duration::from_millis(100);

/// Where the two services' databases are.
pub struct Databases {
    auth: Database,
    content: Database,
}

enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// All rows of a query, on either database.
macro_rules! rows {
    ($database:expr, $row:ty, $query:expr) => {
        match &mut $database {
            Database::Sqlite(connection) => sqlx::query_as::<_, $row>($query).fetch_all(connection).await,
            Database::Postgres(connection) => sqlx::query_as::<_, $row>($query).fetch_all(connection).await,
        }
        .unwrap_or_else(|error| panic!("the database can be read by `{}`: {error}", $query))
    };
}

/// An event, as its outbox has it.
#[derive(sqlx::FromRow)]
struct Event {
    position: i64,
    id: Uuid,
    topic: String,
    key: String,
    version: i64,
}

/// A moment in the two outboxes.
#[derive(Clone, Copy, Debug)]
pub struct Newest {
    auth: i64,
    content: i64,
}

const EVENTS: &str = "SELECT position, id, topic, key, version FROM outbox ORDER BY position";
const NEWEST: &str = "SELECT COALESCE(MAX(position), 0) FROM outbox";
const WAITING: &str = "SELECT position FROM outbox WHERE publish_time IS NULL";
const TAKEN: &str = "SELECT consumer, event_id FROM inbox";

impl Databases {
    /// Those of `guildhall dev`.
    pub async fn sqlite(data: &Path) -> Self {
        let open = async |name: &str| {
            let url = format!("sqlite:{}", data.join(format!("{name}.db")).display());
            Database::Sqlite(SqliteConnection::connect(&url).await.expect("the database can be opened"))
        };
        Self { auth: open("auth").await, content: open("content").await }
    }

    /// Those at these URLs.
    pub async fn postgres(auth: &str, content: &str) -> Self {
        let open =
            async |url: &str| Database::Postgres(PgConnection::connect(url).await.expect("the database can be opened"));
        Self { auth: open(auth).await, content: open(content).await }
    }

    /// Waits until no event is on its way; what still is after `limit` is a defect.
    pub async fn settle(&mut self, limit: Duration, findings: &mut Findings) {
        let began = Instant::now();
        let all = Newest { auth: i64::MAX, content: i64::MAX };
        loop {
            let on_their_way = self.on_their_way(all).await;
            if on_their_way.is_empty() {
                return;
            }
            if began.elapsed() > limit {
                findings.defect(format!("after {limit:?} still on their way: {}", on_their_way.join(", ")));
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The newest events that there are.
    pub async fn newest(&mut self) -> Newest {
        Newest { auth: rows!(self.auth, (i64,), NEWEST)[0].0, content: rows!(self.content, (i64,), NEWEST)[0].0 }
    }

    /// What has not had its effect of the events until that moment.
    pub async fn on_their_way(&mut self, until: Newest) -> Vec<String> {
        let mut found = Vec::new();
        for (name, database, until) in
            [("auth", &mut self.auth, until.auth), ("content", &mut self.content, until.content)]
        {
            let waiting =
                rows!(*database, (i64,), WAITING).into_iter().filter(|(position,)| *position <= until).count();
            if waiting > 0 {
                found.push(format!("{waiting} events in the outbox of {name}"));
            }
        }
        let missing = self.without_effect().await;
        let missing = missing.iter().filter(|(_, event)| event.position <= until.auth).count();
        if missing > 0 {
            found.push(format!("{missing} effects in content"));
        }
        found
    }

    /// The events of auth that a consumer of content has not taken.
    async fn without_effect(&mut self) -> Vec<(&'static str, Event)> {
        let taken: BTreeSet<(String, Uuid)> = rows!(self.content, (String, Uuid), TAKEN).into_iter().collect();
        let consumer_of = |topic: &str| CONSUMERS.into_iter().find(|(_, topics)| topics.contains(&topic));
        let events = rows!(self.auth, Event, EVENTS).into_iter();
        let expected = events.filter_map(|event| Some((consumer_of(&event.topic)?.0, event)));
        expected.filter(|(consumer, event)| !taken.contains(&((*consumer).to_owned(), event.id))).collect()
    }

    /// Compares. The processes may go on, but nobody writes any more.
    pub async fn check(&mut self, journal: &Journal, tolerance: Tolerance) -> Findings {
        let mut findings = journal.findings(tolerance);
        let entries = journal.entries();
        self.check_posts(&entries, &mut findings).await;
        self.check_people(&entries, &mut findings).await;
        self.check_events(&entries, &mut findings).await;
        findings
    }

    async fn check_posts(&mut self, entries: &[Entry], findings: &mut Findings) {
        #[derive(sqlx::FromRow)]
        struct Post {
            id: Uuid,
            title: String,
            state: i16,
            version: i32,
        }
        let posts = rows!(self.content, Post, "SELECT id, title, state, version FROM posts");
        let versions = rows!(self.content, (Uuid, String), "SELECT post_id, markdown FROM post_versions");
        let likes = rows!(self.content, (Uuid, Uuid), "SELECT post_id, user_id FROM post_likes");
        let statistics = rows!(self.content, (Uuid, i64), "SELECT post_id, likes FROM post_statistics");

        let titles = counted(posts.iter().map(|post| post.title.clone()));
        let edits = counted(versions.iter().map(|(post, text)| (post.to_string(), text.clone())));
        let numbers = counted(versions.iter().map(|(post, _)| *post));
        let fans: BTreeSet<_> = likes.iter().map(|(post, user)| (post.to_string(), user.to_string())).collect();
        let likes = counted(likes.iter().map(|(post, _)| *post));
        let states: HashMap<_, _> = posts.iter().map(|post| (post.id.to_string(), post.state)).collect();

        for entry in entries {
            match &entry.write {
                Write::Create { mark } | Write::Insist { mark } => {
                    expect_count(findings, entry, titles.get(mark).copied().unwrap_or_default());
                }
                Write::Edit { post, mark } => {
                    let count = edits.get(&(post.clone(), mark.clone())).copied().unwrap_or_default();
                    expect_count(findings, entry, count);
                }
                Write::Publish { post } if is_acknowledged(entry) => {
                    let state = states.get(post);
                    findings.expect(state == Some(&PUBLISHED), || format!("{post} is in state {state:?}: {entry:?}"));
                }
                Write::Like { post } if is_acknowledged(entry) => {
                    let there = fans.contains(&(post.clone(), entry.person.clone()));
                    findings.expect(there, || format!("the like is not there: {entry:?}"));
                }
                _ => {}
            }
        }
        for post in &posts {
            let kept = numbers.get(&post.id).copied().unwrap_or_default();
            findings.expect(usize::try_from(post.version) == Ok(kept), || {
                format!("post {} is in version {} and has {kept}", post.id, post.version)
            });
        }
        for (post, shown) in statistics {
            let counted = likes.get(&post).copied().unwrap_or_default();
            findings.expect(usize::try_from(shown) == Ok(counted), || {
                format!("post {post} shows {shown} likes and has {counted}")
            });
        }
    }

    async fn check_people(&mut self, entries: &[Entry], findings: &mut Findings) {
        let users = rows!(self.auth, (Uuid, String, String), "SELECT id, email, display_name FROM users");
        let suspended = rows!(self.auth, (Uuid,), "SELECT id FROM users WHERE suspend_time IS NOT NULL");
        let authors =
            rows!(self.content, (Uuid, Option<String>, bool), "SELECT user_id, display_name, suspended FROM authors");

        let addresses = counted(users.iter().map(|(_, email, _)| email.clone()));
        let names: HashMap<_, _> = users.iter().map(|(id, _, name)| (*id, name.clone())).collect();
        let suspended: BTreeSet<_> = suspended.into_iter().map(|(id,)| id).collect();
        let mut renamed: BTreeMap<&str, Vec<(&String, &Outcome)>> = BTreeMap::new();
        for entry in entries {
            match &entry.write {
                Write::Register { mark } => {
                    expect_count(findings, entry, addresses.get(&address(mark)).copied().unwrap_or_default());
                }
                Write::Rename { mark } => renamed.entry(&entry.person).or_default().push((mark, &entry.outcome)),
                _ => {}
            }
        }
        // The last acknowledged name, or one that was sent without an answer, whenever the service came to it.
        for (person, marks) in renamed {
            let now = person.parse().ok().and_then(|id: Uuid| names.get(&id));
            let last = marks.iter().rev().find(|(_, outcome)| matches!(outcome, Outcome::Acknowledged));
            let possible = last.into_iter().chain(marks.iter().filter(|(_, outcome)| !is_settled(outcome)));
            let known = possible.map(|(mark, _)| *mark).any(|mark| Some(mark) == now);
            findings.expect(known || last.is_none(), || format!("{person} is called {now:?} and not {last:?}"));
        }
        for (id, name, shut_out) in authors {
            let called = names.get(&id);
            findings.expect(called == name.as_ref(), || format!("auth calls {id} {called:?}, content {name:?}"));
            findings.expect(shut_out == suspended.contains(&id), || {
                format!("content has {id} suspended: {shut_out}, and auth has not the same")
            });
        }
    }

    async fn check_events(&mut self, entries: &[Entry], findings: &mut Findings) {
        for (consumer, Event { id, topic, key, version, .. }) in self.without_effect().await {
            findings.defect(format!("{consumer} has not taken {topic} {id} of {key}, version {version}"));
        }
        let posts = rows!(self.content, (Uuid, String, i64), "SELECT id, title, revision FROM posts");
        let auth = rows!(self.auth, Event, EVENTS);
        let content = rows!(self.content, Event, EVENTS);

        // Content tells of each change of a post, and auth of each change that others see, so that no version is told of twice.
        let mut told: HashMap<(&str, &str), Vec<i64>> = HashMap::new();
        for event in auth.iter().filter(|event| event.topic.starts_with("auth.user.")) {
            told.entry(("auth", &event.key)).or_default().push(event.version);
        }
        for event in content.iter().filter(|event| event.topic.starts_with("content.post.")) {
            told.entry(("content", &event.key)).or_default().push(event.version);
        }
        for ((service, key), versions) in &told {
            findings.expect(versions.is_sorted_by(|one, next| one < next), || {
                format!("{service} tells of {key} in the versions {versions:?}")
            });
        }
        // A change of a post's schedule is told to nobody. No client of the load makes one.
        let marks: BTreeSet<_> = entries.iter().filter_map(Entry::title).collect();
        for (post, _, revision) in posts.into_iter().filter(|(_, title, _)| marks.contains(title.as_str())) {
            let told = told.get(&("content", post.to_string().as_str())).map_or(0, Vec::len);
            findings.expect(usize::try_from(revision) == Ok(told), || {
                format!("post {post} has changed {revision} times and {told} events tell of it")
            });
        }
        for (service, database) in [("auth", &mut self.auth), ("content", &mut self.content)] {
            let letters = rows!(*database, (String, String, String), "SELECT consumer, topic, reason FROM dead_letter");
            findings.checked += 1;
            for (consumer, topic, reason) in letters {
                findings.defect(format!("a dead letter in {service}: {consumer} gave up on {topic}: {reason}"));
            }
        }
    }
}

/// Once if it was acknowledged, and once at most if it was not.
fn expect_count(findings: &mut Findings, entry: &Entry, count: usize) {
    let holds = if is_acknowledged(entry) { count == 1 } else { count <= 1 };
    findings.expect(holds, || format!("{count} times there: {entry:?}"));
}

fn is_acknowledged(entry: &Entry) -> bool {
    matches!(entry.outcome, Outcome::Acknowledged)
}

/// Whether it is known that it happened, or that it did not.
fn is_settled(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Acknowledged => true,
        Outcome::Refused(refusal) => refusal.status < 500,
        Outcome::Open | Outcome::Unknown(_) => false,
    }
}

fn counted<T: std::hash::Hash + Eq>(values: impl Iterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}
