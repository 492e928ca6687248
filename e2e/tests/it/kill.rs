//! `kill -9` at random moments: what was acknowledged is there, but for the newest views, and each event's effect happened once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::{Guildhall, Person, eventually, guildhall};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use sqlx::{Row as _, SqliteConnection};

const KILLS: u64 = 20;
const SEED: u64 = 20_261_121;
const SOON: Duration = Duration::from_secs(20);
const VIEW_KILLS: u64 = 3;
/// How soon a view shows, and so how old one is at most that a crash loses.
const VIEWS_SHOW: Duration = Duration::from_secs(5);

/// What the client was told, to be checked against what is there.
#[derive(Default)]
struct Journal {
    /// Acknowledged posts: id and title.
    posts: BTreeMap<String, String>,
    /// The display name that was acknowledged last, and those sent after it without an answer.
    name: String,
    unanswered: Vec<String>,
}

#[tokio::test]
async fn an_acknowledged_write_survives_twenty_kills_and_each_event_has_one_effect() {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut guildhall = guildhall!();
    let mut ada = guildhall.member("Ada").await;
    let mut journal = Journal { name: "Ada".to_owned(), ..Journal::default() };
    for round in 0..KILLS {
        let moment = Duration::from_millis(random.random_range(5..400));
        let killed = tokio::time::timeout(moment, write(&guildhall, &ada, round, &mut journal)).await;
        assert!(killed.is_err(), "writing goes on until the kill");
        guildhall.kill().await;
        guildhall.restart().await;
        let login = guildhall.log_in(&ada.email, e2e::PASSWORD).await;
        ada.token = login["accessToken"].as_str().expect("a token").to_owned();
        check(&guildhall, &ada, &journal).await;
    }
    assert!(journal.posts.len() as u64 >= KILLS / 2, "too few writes to mean anything: {}", journal.posts.len());
    settle(&guildhall).await;
    guildhall.stop().await;
    effects_happened_once(&guildhall).await;
}

/// What a client knows of the views of one post.
#[derive(Default)]
struct Views {
    /// When each was acknowledged.
    acknowledged: Vec<Instant>,
    /// Those without an answer: they may or may not have been counted.
    unanswered: usize,
}

impl Views {
    fn before(&self, moment: Instant) -> usize {
        self.acknowledged.iter().filter(|at| **at <= moment).count()
    }

    fn most(&self) -> usize {
        self.acknowledged.len() + self.unanswered
    }
}

#[tokio::test]
async fn a_kill_loses_the_views_of_five_seconds_at_most_and_counts_none_twice() {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut guildhall = guildhall!();
    let ada = guildhall.member("Ada").await;
    let post = guildhall.published(&ada.token, "Seen", "text").await;
    let post = format!("/api/v1/posts/{}", post["id"].as_str().expect("an id"));

    let mut views = Views::default();
    for _ in 0..50 {
        view(&guildhall, &post, &mut views).await;
    }
    assert_eq!(views.most(), 50);
    eventually(VIEWS_SHOW, "every view shows", async || (shown(&guildhall, &post).await == 50).then_some(())).await;

    let mut before = 50;
    for _ in 0..VIEW_KILLS {
        let mut views = Views::default();
        let moment = VIEWS_SHOW + Duration::from_millis(random.random_range(200..2_700));
        let watching = async {
            loop {
                view(&guildhall, &post, &mut views).await;
            }
        };
        let _killed = tokio::time::timeout(moment, watching).await;
        let old = views.before(Instant::now().checked_sub(VIEWS_SHOW).expect("the machine runs for longer"));
        guildhall.kill().await;
        guildhall.restart().await;
        let after = shown(&guildhall, &post).await;
        assert!(old > 0, "too few views to mean anything");
        assert!(
            (before + old..=before + views.most()).contains(&after),
            "{before} and {old} to {} are not {after}",
            views.most()
        );
        before = after;
    }
}

/// Sees the post once.
async fn view(guildhall: &Guildhall, post: &str, views: &mut Views) {
    views.unanswered += 1;
    if acknowledged(guildhall.post(&format!("{post}:view"), json!({}))).await.is_some() {
        views.acknowledged.push(Instant::now());
        views.unanswered -= 1;
    }
}

async fn shown(guildhall: &Guildhall, post: &str) -> usize {
    let statistics = guildhall.get(&format!("{post}/statistics")).send().await.expect_status(200).json();
    statistics["views"].as_str().and_then(|views| views.parse().ok()).unwrap_or_default()
}

/// Writes posts and names until the process is gone.
async fn write(guildhall: &Guildhall, ada: &Person, round: u64, journal: &mut Journal) {
    for count in 0.. {
        let title = format!("Round {round}, post {count}");
        let body = json!({"title": title, "markdown": "text"});
        if let Some(post) = acknowledged(guildhall.post("/api/v1/posts", body).token(&ada.token)).await {
            journal.posts.insert(post["id"].as_str().expect("an id").to_owned(), title);
        }
        let name = format!("Ada {round}-{count}");
        journal.unanswered.push(name.clone());
        let rename = guildhall.patch("/api/v1/users/me", json!({"displayName": name})).token(&ada.token);
        if acknowledged(rename).await.is_some() {
            journal.name = name;
            journal.unanswered.clear();
        }
    }
}

async fn acknowledged(call: e2e::Call) -> Option<Value> {
    let answer = call.try_send().await.ok()?;
    (answer.status == 200).then(|| answer.json())
}

async fn check(guildhall: &Guildhall, ada: &Person, journal: &Journal) {
    for (id, title) in &journal.posts {
        let post =
            guildhall.get(&format!("/api/v1/posts/{id}")).token(&ada.token).send().await.expect_status(200).json();
        assert_eq!(post["title"], json!(title));
    }
    // A name that was sent without an answer may or may not have been taken; an older one may not.
    let me = guildhall.get("/api/v1/users/me").token(&ada.token).send().await.expect_status(200).json();
    let name = me["displayName"].as_str().expect("a name").to_owned();
    assert!(name == journal.name || journal.unanswered.contains(&name), "{name} is neither {} nor later", journal.name);
    if let Some(id) = journal.posts.keys().next() {
        eventually(SOON, "content knows the name", async || {
            let post = guildhall.get(&format!("/api/v1/posts/{id}")).token(&ada.token).send().await;
            (post.json()["author"] == json!(name)).then_some(())
        })
        .await;
    }
}

/// Waits until no event is on its way.
async fn settle(guildhall: &Guildhall) {
    for service in ["auth", "content"] {
        eventually(SOON, "the outbox is empty", async || {
            let mut db = guildhall.database(service).await;
            let waiting = count(&mut db, "SELECT COUNT(*) FROM outbox WHERE publish_time IS NULL").await;
            (waiting == 0).then_some(())
        })
        .await;
    }
}

/// The inbox is written in the transaction of an effect: one row for each event that its consumer takes, and no dead letter.
async fn effects_happened_once(guildhall: &Guildhall) {
    let mut auth = guildhall.database("auth").await;
    let mut content = guildhall.database("content").await;
    let events: Vec<Vec<u8>> = sqlx::query("SELECT id FROM outbox WHERE topic = 'auth.user.updated'")
        .fetch_all(&mut auth)
        .await
        .expect("the outbox can be read")
        .iter()
        .map(|row| row.get::<Vec<u8>, _>(0))
        .collect();
    assert!(!events.is_empty());
    for event in events {
        let effects: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM inbox WHERE event_id = $1")
            .bind(&event)
            .fetch_one(&mut content)
            .await
            .expect("the inbox can be read");
        assert_eq!(effects, 1, "event {event:02x?}");
    }
    assert_eq!(count(&mut content, "SELECT COUNT(*) FROM dead_letter").await, 0);
}

async fn count(db: &mut SqliteConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(db).await.expect("the table is there")
}
