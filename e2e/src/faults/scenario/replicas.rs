//! Two replicas of each service: what only one may do is done once, what both must hear both hear, and when one dies the other
//! goes on with its work.

use std::path::Path;
use std::time::{Duration, Instant};

use events::bus::redis::STREAMS;
use ids::Source;
use mesh::Workload;
use reqwest::StatusCode;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tonic::Code;

use super::{SOON, Stage};
use crate::faults::check::{CONSUMERS, Databases};
use crate::faults::cluster::{AUTH, CONTENT, Cluster, EDGE, Plan};
use crate::faults::journal::Tolerance;
use crate::faults::load::Manner;
use crate::faults::{Findings, Run};
use crate::{Site, eventually, raw};

/// The longest lease by which one of several replicas does something: the relay's, and the bus's for a stream.
const LEASE: Duration = Duration::from_secs(10);
/// Between two looks at who has the work.
const LOOK: Duration = Duration::from_millis(50);
/// What a machine that is busy may take beyond the end of a lease, until the other has it.
const LATE: Duration = Duration::from_secs(2);
/// Until it has done what waited: the events of one key are handled one after the other.
const MARGIN: Duration = Duration::from_secs(5);
/// Content's consumers of auth's events have auth's streams each.
const ALL_STREAMS: usize = CONSUMERS.len() * STREAMS as usize;
/// How soon everybody has heard that a token is revoked, on a machine that is busy.
const HEARD: Duration = Duration::from_secs(5);
const MY_ACCOUNT: &str = "/guildhall.auth.v1.AccountService/GetMe";
const MY_POSTS: &str = "/guildhall.content.v1.PostService/ListPosts";

pub async fn two_of_each(run: &Run, logs: Option<&Path>) -> Findings {
    let mut found = Findings::default();
    let mut stage = Stage::set(run, Plan { replicas: 2, ..Plan::default() }, Manner::of(run), logs).await;
    keys_rotate_once(run, &stage.cluster, &mut found).await;
    for round in 1..=run.times(1, 5) {
        posts_are_published_once(run, round, &stage.cluster, &mut found).await;
        a_revocation_reaches_everybody(run, round, &stage.cluster, &mut found).await;
        for service in [AUTH, CONTENT] {
            for name in stage.cluster.names_of(service) {
                work_is_taken_over(run, &mut stage, &name, &mut found).await;
            }
        }
    }
    let mut findings = stage.end(run, Tolerance::Silence).await;
    findings.add(found);
    findings
}

/// The replicas started together, so the first key is a race already. Then the newest key is made to be old.
async fn keys_rotate_once(run: &Run, cluster: &Cluster, findings: &mut Findings) {
    let mut auth = PgConnection::connect(&cluster.database(AUTH)).await.expect("the database can be opened");
    let first = count(&mut auth, "SELECT COUNT(*) FROM signing_keys").await;
    findings.expect(first == 1, || format!("two replicas made {first} first signing keys"));
    sqlx::query("UPDATE signing_keys SET sign_time = sign_time - INTERVAL '40 days'")
        .execute(&mut auth)
        .await
        .expect("the keys can be changed");
    let new = "SELECT COUNT(*) FROM signing_keys WHERE sign_time > now()";
    eventually(SOON, "a new signing key is there", async || (count(&mut auth, new).await > 0).then_some(())).await;
    // Both replicas look once per second.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let new = count(&mut auth, new).await;
    run.tell(format_args!("two replicas made {first} first signing key, and {new} to follow it"));
    findings.expect(new == 1, || format!("two replicas made {new} signing keys to follow"));
}

async fn posts_are_published_once(run: &Run, round: u32, cluster: &Cluster, findings: &mut Findings) {
    let site = Site::new(&cluster.edges()[0]);
    let writer = site.member(&format!("Scheduler-{round}")).await;
    let posts: u64 = run.choose(20, 100);
    let at = (Source::system().now() + Duration::from_millis(5_000 + 100 * posts)).to_string();
    let mut scheduled = Vec::new();
    for number in 0..posts {
        let body = json!({"title": format!("Scheduled {number}"), "markdown": "text"});
        let draft = site.post("/api/v1/posts", body).token(&writer.token).send().await.expect_status(200).json();
        let id = draft["id"].as_str().expect("an id").to_owned();
        let publish = site.post(&format!("/api/v1/posts/{id}:publish"), json!({"publishAt": at})).token(&writer.token);
        publish.send().await.expect_status(200);
        scheduled.push(id);
    }
    let mut content = PgConnection::connect(&cluster.database(CONTENT)).await.expect("the database can be opened");
    eventually(SOON, "every scheduled post is published", async || {
        (count(&mut content, "SELECT COUNT(*) FROM posts WHERE state = 2").await == 0).then_some(())
    })
    .await;
    for id in &scheduled {
        let told: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE topic = 'content.post.published' AND key = $1")
                .bind(id)
                .fetch_one(&mut content)
                .await
                .expect("the outbox can be read");
        findings.expect(told == 1, || format!("post {id} was published {told} times"));
    }
    run.tell(format_args!("{posts} posts were published on time by two replicas"));
}

/// A session is ended at one edge; after that no replica of any service takes its token.
async fn a_revocation_reaches_everybody(run: &Run, round: u32, cluster: &Cluster, findings: &mut Findings) {
    let sites: Vec<_> = cluster.edges().iter().map(|url| Site::new(url)).collect();
    let person = sites[0].member(&format!("Leaver-{round}")).await;
    let edge = cluster.identity(EDGE).await;
    let mut direct = Vec::new();
    for (service, method) in [(AUTH, MY_ACCOUNT), (CONTENT, MY_POSTS)] {
        for name in cluster.names_of(service) {
            let server: Workload = service.parse().expect("a workload");
            direct.push((name.clone(), method, mesh::connect(&edge, server, cluster.listens(&name).into())));
        }
    }
    for (name, method, channel) in &direct {
        let outcome = raw::call(channel.clone(), method, Some(&person.token), &[]).await;
        findings.expect(raw::code(&outcome) == Code::Ok, || format!("{name} answers a good token {outcome:?}"));
    }
    let sessions =
        sites[0].get("/api/v1/users/me/sessions").token(&person.token).send().await.expect_status(200).json();
    let session = sessions["sessions"][0]["id"].as_str().expect("a session").to_owned();
    let end = sites[0].delete(&format!("/api/v1/users/me/sessions/{session}")).token(&person.token);
    end.send().await.expect_status(200);

    let began = Instant::now();
    for (name, method, channel) in direct {
        eventually(HEARD, &format!("{name} refuses the token"), async || {
            let outcome = raw::call(channel.clone(), method, Some(&person.token), &[]).await;
            (raw::code(&outcome) == Code::Unauthenticated).then_some(())
        })
        .await;
        findings.checked += 1;
    }
    for site in &sites {
        eventually(HEARD, "an edge refuses the token", async || {
            let answer = site.get("/api/v1/users/me").token(&person.token).send().await;
            (answer.status == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
        findings.checked += 1;
    }
    run.tell(format_args!("everybody refuses a revoked token after {} ms", began.elapsed().as_millis()));
}

/// One of the two held the relay's lease, and each held those of some streams, so that killing each of them in turn kills the holder.
async fn work_is_taken_over(run: &Run, stage: &mut Stage, name: &str, findings: &mut Findings) {
    // Whoever has just started gets its share of the streams.
    eventually(SOON, "every stream is somebody's", async || {
        (streams_owned(&stage.cluster, None).await == ALL_STREAMS).then_some(())
    })
    .await;
    stage.cluster.process(name).kill().await;
    let began = Instant::now();
    // Everything that was asked for until now has to arrive, and more is asked for all the time.
    let mut databases: Databases = stage.cluster.databases().await;
    let asked_for = databases.newest().await;
    let (mut taken_over, mut done, mut last) = (None, None, Vec::new());
    while began.elapsed() < SOON && (taken_over.is_none() || done.is_none()) {
        if taken_over.is_none() && streams_owned(&stage.cluster, Some(name)).await == ALL_STREAMS {
            taken_over = Some(began.elapsed());
        }
        if done.is_none() {
            match databases.on_their_way(asked_for).await {
                waiting if waiting.is_empty() => done = Some(began.elapsed()),
                waiting => last = waiting,
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    let millis = |time: Option<Duration>| time.map_or_else(|| "no".to_owned(), |time| time.as_millis().to_string());
    let told = format!(
        "{name} was killed; every stream was a living process's after {} ms, its work was done after {} ms, the last: {}",
        millis(taken_over),
        millis(done),
        last.join(", ")
    );
    run.tell(format_args!("{told}"));
    findings.expect(taken_over.is_some_and(|took| took < LEASE + LATE), || told.clone());
    findings.expect(done.is_some_and(|took| took < LEASE + MARGIN), || told);
    stage.cluster.start_process(name).await;
    stage.load.works(5, SOON).await;
}

/// How many streams the processes of content handle, all but one of them, as they tell an operator.
async fn streams_owned(cluster: &Cluster, without: Option<&str>) -> usize {
    let mut owned = 0;
    for name in cluster.names_of(CONTENT).iter().filter(|name| Some(name.as_str()) != without) {
        let metrics = reqwest::get(format!("{}/metrics", cluster.admin_url(name))).await.expect("its metrics");
        let metrics = metrics.text().await.expect("text");
        let lines = metrics.lines().filter(|line| line.starts_with("guildhall_events_streams_owned{"));
        owned += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum::<usize>();
    }
    owned
}

async fn count(database: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(database).await.expect("the database can be read")
}
