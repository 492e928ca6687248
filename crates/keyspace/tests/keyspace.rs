//! Against a real Redis.

use std::time::Duration;

use keyspace::redis::{self, Script, cmd};
use keyspace::testing::{Server, keyspace};
use keyspace::{Error, Keyspace, Settings};
use status::{Problem, Reason};
use tokio::time::Instant;

#[tokio::test]
async fn keyspaces_on_one_server_do_not_meet() {
    let (one, other) = (keyspace(), keyspace());
    let set = |keyspace: &Keyspace| cmd("SET").arg(keyspace.key("a", "b")).arg("1").to_owned();
    one.run::<()>(&set(&one)).await.unwrap();
    let seen: Option<String> = other.run(cmd("GET").arg(other.key("a", "b"))).await.unwrap();
    assert_eq!(seen, None);
    let seen: Option<String> = one.run(cmd("GET").arg(one.key("a", "b"))).await.unwrap();
    assert_eq!(seen.as_deref(), Some("1"));
}

#[tokio::test]
async fn keys_of_one_tag_lie_in_one_slot_of_a_cluster() {
    let server = Server::start_cluster().await;
    let keyspace = server.keyspace();
    let (stream, lease, other) =
        (keyspace.key("events/auth/1", "stream"), keyspace.key("events/auth/1", "lease"), keyspace.key("a", "stream"));
    let both = Script::new("redis.call('SET', KEYS[1], '1') return redis.call('SET', KEYS[2], '2')");
    keyspace.script::<()>(both.key(&stream).key(&lease)).await.unwrap();
    let mut pipeline = redis::pipe();
    pipeline.atomic().get(&stream).get(&lease);
    assert_eq!(keyspace.pipeline::<(i64, i64)>(&pipeline).await.unwrap(), (1, 2));
    keyspace.script::<()>(both.key(&stream).key(&other)).await.unwrap_err();

    let mut own = keyspace.blocking().await.unwrap();
    keyspace.run::<()>(cmd("RPUSH").arg(keyspace.key("a", "list")).arg("here")).await.unwrap();
    let popped: (String, String) =
        own.run(cmd("BLPOP").arg(keyspace.key("a", "list")).arg(30), Duration::from_secs(30)).await.unwrap();
    assert_eq!(popped.1, "here");
}

#[tokio::test]
async fn a_refusal_has_its_code() {
    let keyspace = keyspace();
    let key = keyspace.key("a", "stream");
    let read = keyspace.run::<()>(cmd("XREADGROUP").arg(&["GROUP", "g", "c", "STREAMS", &key, ">"])).await;
    let error = read.unwrap_err();
    assert_eq!(error.code(), Some("NOGROUP"), "{error:?}");
    assert!(!error.is_unavailable());
    assert_eq!(Problem::from(error).reason(), Reason::Internal);
}

#[tokio::test]
async fn a_server_that_halts_costs_the_limit_and_not_more() {
    let server = Server::start(&[]).await;
    let keyspace = server.keyspace();
    keyspace.ping().await.unwrap();
    server.pause().await;
    let began = Instant::now();
    let error = keyspace.ping().await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(began.elapsed() < 4 * keyspace.timeout());
    assert_eq!(Problem::from(error).reason(), Reason::Unavailable);
    server.resume().await;
    answers_again(&keyspace).await;
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let mut server = Server::start(&[]).await;
    let keyspace = server.keyspace();
    keyspace.ping().await.unwrap();
    server.kill().await;
    assert!(keyspace.ping().await.unwrap_err().is_unavailable());
    server.restart().await;
    answers_again(&keyspace).await;
}

async fn answers_again(keyspace: &Keyspace) {
    let again = async {
        while keyspace.ping().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("it answers again");
}

#[tokio::test]
async fn a_full_server_says_so_to_commands_and_to_scripts() {
    let server = Server::start(&["--maxmemory", "1kb", "--maxmemory-policy", "noeviction"]).await;
    let keyspace = server.keyspace();
    let key = keyspace.key("a", "b");
    let full = keyspace.run::<()>(cmd("SET").arg(&key).arg("1")).await.unwrap_err();
    assert!(matches!(full, Error::Full(_)), "{full:?}");
    let script = Script::new("return redis.call('SET', KEYS[1], '1')");
    let full = keyspace.script::<()>(&script.key(&key)).await.unwrap_err();
    assert!(matches!(full, Error::Full(_)), "{full:?}");
    let script = Script::new("#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], '1')");
    keyspace.script::<()>(&script.key(&key)).await.unwrap();
}

#[tokio::test]
async fn who_waits_in_redis_holds_up_nobody() {
    let keyspace = keyspace();
    let key = keyspace.key("a", "list");
    let mut own = keyspace.blocking().await.unwrap();
    let wait = Duration::from_secs(30);
    let waiting = {
        let key = key.clone();
        tokio::spawn(async move { own.run::<(String, String)>(cmd("BLPOP").arg(key).arg(30), wait).await })
    };
    keyspace.ping().await.unwrap();
    keyspace.run::<()>(cmd("RPUSH").arg(&key).arg("here")).await.unwrap();
    let (_, popped) = waiting.await.unwrap().unwrap();
    assert_eq!(popped, "here");
}

#[tokio::test]
async fn settings_that_name_no_server_are_refused() {
    for urls in [vec![], vec!["http://localhost".to_owned()]] {
        let refused = Keyspace::open(&Settings { urls, ..Settings::new("") }).unwrap_err();
        assert!(matches!(refused, Error::Settings(_)), "{refused:?}");
    }
}
