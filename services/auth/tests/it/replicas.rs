//! Several processes of the service on one database. On PostgreSQL alone: SQLite admits one process.

use std::{collections::BTreeSet, time::Duration};

use contracts::auth::v1::{GetMeRequest, LoginResponse, RequestPasswordResetRequest, ResetPasswordRequest};
use status::Reason;
use testkit::Backend;

use crate::world::{PASSWORD, Replica, World, assert_refused, eventually, kid_of, refusal, registration};

const ADA: &str = "ada@example.org";

/// Replicas, and Ada's account in their database.
async fn replicas(count: usize) -> (World, Vec<Replica>) {
    let world = World::start(Backend::Postgres).await;
    let replicas = world.replicas(count).await;
    replicas[0].accounts().register(registration(ADA)).await.unwrap();
    (world, replicas)
}

/// The keys that all replicas publish, once those are the same, and so many.
async fn published(replicas: &[Replica], count: usize) -> Vec<String> {
    eventually("the same keys everywhere", async || {
        let mut sets = BTreeSet::new();
        for replica in replicas {
            sets.insert(replica.kids().await);
        }
        sets.pop_first().filter(|kids| kids.len() == count && sets.is_empty())
    })
    .await
}

/// Logs Ada in everywhere: each replica signs with the key `kid`, and every other takes what it has signed.
async fn assert_all_sign_with(world: &World, replicas: &[Replica], kid: &str) {
    for signer in replicas {
        let token = signer.login(ADA, PASSWORD).await.unwrap().access_token;
        assert_eq!(kid_of(&token), kid);
        for replica in replicas {
            replica.accounts().get_me(world.mesh.as_user(&token, GetMeRequest {})).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_make_one_key_at_a_time_publish_the_same_and_sign_with_the_same() {
    let (world, replicas) = replicas(3).await;
    let first = published(&replicas, 1).await;
    assert_all_sign_with(&world, &replicas, &first[0]).await;

    world.clock.advance(Duration::from_hours(30 * 24) - Duration::from_mins(15));
    let both = published(&replicas, 2).await;
    assert_eq!(both[0], first[0]);
    assert_all_sign_with(&world, &replicas, &first[0]).await;

    world.clock.advance(Duration::from_mins(15));
    assert_all_sign_with(&world, &replicas, &both[1]).await;
    assert_eq!(published(&replicas, 2).await, both);

    world.clock.advance(Duration::from_mins(26));
    assert_eq!(published(&replicas, 1).await, both[1..]);
    assert_all_sign_with(&world, &replicas, &both[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_refreshes_at_once_at_all_of_them_one_rotates_and_a_reuse_ends_the_session_everywhere() {
    let (world, replicas) = replicas(2).await;
    let LoginResponse { refresh_token: used, .. } = replicas[0].login(ADA, PASSWORD).await.unwrap();
    let answers = futures_util::future::join_all((0..20).map(|n| replicas[n % 2].refresh(&used))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let successors: BTreeSet<_> = answers.iter().map(|answer| answer.body["refresh_token"].as_str().unwrap()).collect();
    assert_eq!(successors.len(), 1);

    let next = replicas[1].refresh(successors.first().unwrap()).await.body;
    assert_eq!(replicas[0].refresh(&used).await.body["error"], "invalid_grant");
    for replica in &replicas {
        assert_eq!(replica.refresh(next["refresh_token"].as_str().unwrap()).await.body["error"], "invalid_grant");
        let refused = eventually("the revocation", async || {
            let request = world.mesh.as_user(next["access_token"].as_str().unwrap(), GetMeRequest {});
            replica.accounts().get_me(request).await.err()
        });
        assert_refused(Err::<(), _>(refused.await), Reason::TokenRevoked);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_uses_of_a_code_at_once_at_all_of_them_one_counts() {
    let (world, replicas) = replicas(2).await;
    replicas[0].accounts().request_password_reset(RequestPasswordResetRequest { email: ADA.into() }).await.unwrap();
    let code = world.code(ADA, "Reset your password", 1).await;
    let resets = (0..8).map(|n| {
        let reset = ResetPasswordRequest { code: code.clone(), password: format!("the password {n}") };
        let mut accounts = replicas[n % 2].accounts();
        async move { accounts.reset_password(reset).await }
    });
    let outcomes = futures_util::future::join_all(resets).await;
    let winners: Vec<_> = (0..8).filter(|n| outcomes[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1);
    let refusals: BTreeSet<_> =
        outcomes.into_iter().filter(Result::is_err).map(|outcome| refusal(outcome).reason().name()).collect();
    assert_eq!(refusals, BTreeSet::from(["CODE_INVALID"]));
    for replica in &replicas {
        replica.login(ADA, &format!("the password {}", winners[0])).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_count_failed_log_ins_together() {
    let (_world, replicas) = replicas(2).await;
    for number in 0..10 {
        assert_refused(replicas[number % 2].login(ADA, "wrong password").await, Reason::CredentialsInvalid);
    }
    for replica in &replicas {
        assert_refused(replica.login(ADA, PASSWORD).await, Reason::TooManyAttempts);
    }
}
