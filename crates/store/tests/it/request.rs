use std::collections::HashMap;
use std::time::Duration;

use ids::Timestamp;
use proptest::prelude::*;
use status::Reason;
use store::request::{self, Key, RETENTION};
use store::testing::{Backend, database};
use store::{Db, MIGRATIONS};

const NOON: Timestamp = Timestamp::from_micros(1_600_000_000_000_000);

fn key(key: &str, body: u8) -> Key<'_> {
    Key { subject: "user", method: "/posts/Create", key, hash: request::hash(&[body]) }
}

/// One call as a service makes it; the answer, and whether it was a replay.
async fn call(db: &Db, key: &Key<'_>, answer: &[u8], now: Timestamp) -> Result<(Vec<u8>, bool), Reason> {
    let mut tx = db.begin().await.unwrap();
    if let Some(answer) = request::replay(&mut tx, key, now).await.map_err(|problem| problem.reason())? {
        return Ok((answer, true));
    }
    request::remember(&mut tx, key, answer, now).await.unwrap();
    tx.commit().await.unwrap();
    Ok((answer.to_vec(), false))
}

store::on_both! {
    migrations: &[&MIGRATIONS];

    async fn the_first_of_many_calls_at_once_is_answered_and_the_others_get_its_answer(db: Db) {
        let calls = (0..16_u8).map(|number| {
            let db = db.clone();
            tokio::spawn(async move { call(&db, &key("k", 1), &[number], NOON).await.unwrap() })
        });
        let answers = futures_util::future::try_join_all(calls).await.unwrap();
        assert_eq!(answers.iter().filter(|(_, replayed)| !replayed).count(), 1);
        assert!(answers.iter().all(|(answer, _)| *answer == answers[0].0), "{answers:?}");
    }

    async fn a_call_that_failed_leaves_its_key_free(db: Db) {
        let mut tx = db.begin().await.unwrap();
        assert!(request::replay(&mut tx, &key("k", 1), NOON).await.unwrap().is_none());
        drop(tx);
        assert_eq!(call(&db, &key("k", 2), b"second", NOON).await.unwrap(), (b"second".to_vec(), false));
    }

    async fn answers_are_forgotten_after_a_day(db: Db) {
        call(&db, &key("old", 1), b"old", NOON).await.unwrap();
        call(&db, &key("new", 1), b"new", NOON + Duration::from_secs(1)).await.unwrap();
        assert_eq!(request::purge(&db, NOON + RETENTION).await.unwrap(), 1);
        assert_eq!(call(&db, &key("new", 1), b"other", NOON + RETENTION).await.unwrap(), (b"new".to_vec(), true));
    }
}

#[derive(Clone, Debug)]
struct Step {
    key: u8,
    body: u8,
    wait: Duration,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3_u8, 0..2_u8, prop_oneof![Just(0), 1..3_600_u64, Just(86_399), Just(86_400)]);
    prop::collection::vec(step.prop_map(|(key, body, wait)| Step { key, body, wait: Duration::from_secs(wait) }), 1..30)
}

/// Runs the steps on a database and on a map, which have to agree.
async fn agrees_with_the_model(backend: Backend, steps: Vec<Step>) {
    let db = database(backend, &[&MIGRATIONS]).await;
    let mut model = HashMap::<u8, (u8, Vec<u8>, Timestamp)>::new();
    let mut now = NOON;
    for (number, step) in steps.iter().enumerate() {
        now = now + step.wait;
        let answer = vec![u8::try_from(number).unwrap()];
        let outcome = call(&db, &key(&step.key.to_string(), step.body), &answer, now).await;
        let expected = match model.get(&step.key) {
            Some((body, first, time)) if now.since(*time) < RETENTION => {
                if *body == step.body {
                    Ok((first.clone(), true))
                } else {
                    Err(Reason::RequestIdReused)
                }
            }
            _ => {
                model.insert(step.key, (step.body, answer.clone(), now));
                Ok((answer, false))
            }
        };
        assert_eq!(outcome, expected, "step {number} of {steps:?}");
    }
}

#[test]
fn any_history_of_calls_is_answered_as_the_model_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(12));
    runner
        .run(&steps(), |steps| {
            runtime.block_on(async {
                agrees_with_the_model(Backend::Sqlite, steps.clone()).await;
                agrees_with_the_model(Backend::Postgres, steps).await;
            });
            Ok(())
        })
        .unwrap();
}
