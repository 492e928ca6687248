//! A client's deadline ends the work that was begun for it.

use std::time::{Duration, Instant};

use e2e::{eventually, guildhall};
use serde_json::json;

const DEADLINE: Duration = Duration::from_millis(500);
/// On a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(10);

/// Whoever writes a post counts for ever.
const ENDLESS: &str = "CREATE TRIGGER endless BEFORE INSERT ON posts BEGIN SELECT MAX(i) FROM \
     (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n); END";

#[tokio::test]
async fn a_rest_clients_deadline_stops_the_running_query_and_nothing_of_it_stays() {
    let guildhall = guildhall!();
    let ada = guildhall.member("Ada").await;
    let mut content = guildhall.database("content").await;
    sqlx::query(ENDLESS).execute(&mut content).await.expect("a trigger can be made");

    let write = |title: &str| {
        let body = json!({"title": title, "markdown": "text"});
        guildhall.post("/api/v1/posts", body).token(&ada.token)
    };
    let began = Instant::now();
    let late = write("Late").header("request-timeout", &DEADLINE.as_secs_f64().to_string()).send().await;
    late.expect_problem(504, "DEADLINE_EXCEEDED");
    assert!((DEADLINE..SOON).contains(&began.elapsed()), "{:?}", began.elapsed());

    // A database of SQLite has one writer: while the insert runs, nobody changes a trigger.
    eventually(SOON, "the query has stopped", async || {
        sqlx::query("DROP TRIGGER endless").execute(&mut content).await.ok()
    })
    .await;
    write("In time").send().await.expect_status(200);
    let drafts = guildhall.get("/api/v1/posts?state=DRAFT").token(&ada.token).send().await.expect_status(200).json();
    let titles: Vec<_> = drafts["posts"].as_array().expect("posts").iter().map(|post| &post["title"]).collect();
    assert_eq!(titles, ["In time"]);
}
