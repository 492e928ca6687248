//! Who a request is from.

use std::time::Duration;

use contracts::auth::v1::TokenRevoked;
use ids::{SessionId, Uuid};
use mesh::token::{Audience, Claims};
use serde_json::json;
use testkit::{Signer, TokenSpec};

use crate::harness::{Edge, SOON, refused, user};

#[tokio::test]
async fn a_missing_token_is_401_with_a_challenge_and_no_token_is_fine_where_none_is_needed() {
    let edge = Edge::start().await;
    let response = edge.post("/api/v1/posts", &json!({"title": "a"})).send().await.expect("an answer");
    assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"guildhall\"");
    assert_eq!(crate::harness::problem(response).await["reason"], "TOKEN_MISSING");
    assert_eq!(edge.get("/api/v1/posts").send().await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn forged_foreign_and_expired_tokens_are_refused_even_where_none_is_needed() {
    let edge = Edge::start().await;
    let claims = TokenSpec::member(user()).claims(edge.mesh.source());
    let raw = serde_json::to_value(&claims).expect("JSON");
    let header = json!({"typ": "at+jwt", "alg": "RS256", "kid": "test"});
    let sign =
        |header, claims: &Claims| Signer::shared().sign_raw(&header, &serde_json::to_value(claims).expect("JSON"));
    let forged = [
        ("another signer's", Signer::generate().sign(&claims)),
        ("no algorithm", Signer::shared().sign_raw(&json!({"typ": "at+jwt", "alg": "none", "kid": "test"}), &raw)),
        (
            "another algorithm",
            Signer::shared().sign_raw(&json!({"typ": "at+jwt", "alg": "HS256", "kid": "test"}), &raw),
        ),
        ("no access token", sign(json!({"typ": "JWT", "alg": "RS256", "kid": "test"}), &claims)),
        (
            "another issuer's",
            sign(header.clone(), &Claims { iss: "https://elsewhere.example".into(), ..claims.clone() }),
        ),
        ("another audience's", sign(header, &Claims { aud: Audience::One("elsewhere".into()), ..claims })),
        ("garbage", "a.b.c".to_owned()),
    ];
    for (what, token) in forged {
        let response = edge.get("/api/v1/posts").bearer_auth(token).send().await.expect("an answer");
        assert!(response.headers()["www-authenticate"].to_str().expect("ASCII").contains("invalid_token"), "{what}");
        assert_eq!(crate::harness::problem(response).await["reason"], "TOKEN_INVALID", "{what}");
    }
    refused(edge.get("/api/v1/posts").header("authorization", "Basic YTpi"), 401, "TOKEN_INVALID").await;
    assert_eq!(edge.upstream.calls(), 0);
}

#[tokio::test]
async fn a_token_that_was_verified_before_expires_all_the_same() {
    let (edge, clock) = Edge::with_clock(|_| {}).await;
    let token = edge.token();
    let request = || edge.get("/api/v1/posts").bearer_auth(&token);
    assert_eq!(request().send().await.expect("an answer").status(), 200);
    clock.advance(Duration::from_secs(700));
    refused(request(), 401, "TOKEN_EXPIRED").await;
}

#[tokio::test]
async fn a_revoked_session_ends_its_tokens_within_a_second() {
    let edge = Edge::start().await;
    let session = SessionId::from(Uuid::from_u128(5));
    let token = edge.mesh.token(&TokenSpec { session: Some(session), ..TokenSpec::member(user()) });
    let status =
        async || edge.get("/api/v1/posts").bearer_auth(&token).send().await.expect("an answer").status().as_u16();
    assert_eq!(status().await, 200);
    let revoked = TokenRevoked {
        user_id: user().to_string(),
        session_id: session.to_string(),
        revoke_time: Some(edge.mesh.source().now().into()),
    };
    edge.upstream.publish(1, &revoked).await;
    let ended = async {
        while status().await != 401 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, ended).await.expect("the token ends");
    let other = edge.get("/api/v1/posts").bearer_auth(edge.token()).send().await.expect("an answer");
    assert_eq!(other.status(), 200, "other sessions go on");
}

#[tokio::test]
async fn what_the_service_refuses_by_scope_is_403_with_a_challenge() {
    let edge = Edge::start().await;
    let token = edge.mesh.token(&TokenSpec { scope: "profile".into(), ..TokenSpec::member(user()) });
    let response =
        edge.post("/api/v1/posts", &json!({"title": "a"})).bearer_auth(token).send().await.expect("an answer");
    assert_eq!(response.status(), 403);
    assert!(response.headers()["www-authenticate"].to_str().expect("ASCII").contains("insufficient_scope"));
    assert_eq!(crate::harness::problem(response).await["reason"], "SCOPE_MISSING");
}
