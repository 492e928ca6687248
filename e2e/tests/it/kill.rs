//! `kill -9` at random moments: what was acknowledged is there, but for the newest views, and each event's effect happened once.

use std::time::{Duration, Instant};

use e2e::faults::{Length, Run, Scenario};
use e2e::{Guildhall, eventually, guildhall};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

const SEED: u64 = 20_261_121;
const VIEW_KILLS: u64 = 3;
/// How soon a view shows, and so how old one is at most that a crash loses.
const VIEWS_SHOW: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_acknowledged_write_survives_kills_and_each_event_has_one_effect() {
    let run = Run::new(SEED, env!("CARGO_BIN_EXE_guildhall-under-test"), Length::Short);
    let findings = run.make(Scenario::KillDev, None).await;
    run.expect_no_defect(&findings);
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

async fn acknowledged(call: e2e::Call) -> Option<Value> {
    let answer = call.try_send().await.ok()?;
    (answer.status == 200).then(|| answer.json())
}
