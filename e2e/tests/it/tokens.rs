//! Tokens that are forged, foreign or expired open nothing. That services behind the edge refuse them as well is tried in
//! `unauthorised`.

use std::time::Duration;

use e2e::{guildhall, token};

use crate::contract;

#[tokio::test]
async fn every_mutation_refuses_forged_foreign_and_expired_tokens() {
    let (guildhall, elsewhere) = (guildhall!(), guildhall!());
    let ours = guildhall.admin().await;
    let (forged, foreign) = (token::forged(&ours), elsewhere.admin().await);
    let young = token::aged(&guildhall, &ours, Duration::from_mins(9)).await;
    let expired = token::aged(&guildhall, &ours, Duration::from_mins(11)).await;
    guildhall.get("/api/v1/users/me").token(&young).send().await.expect_status(200);
    for mutation in contract::mutations(&guildhall).await {
        for (token, reason) in [(&forged, "TOKEN_INVALID"), (&foreign, "TOKEN_INVALID"), (&expired, "TOKEN_EXPIRED")] {
            mutation.empty(&guildhall).token(token).send().await.expect_problem(401, reason);
        }
    }
}

#[tokio::test]
async fn a_token_that_is_not_ours_is_refused_even_where_none_is_needed() {
    let guildhall = guildhall!();
    let ada = guildhall.member("Ada").await;
    let (head, rest) = ada.token.split_once('.').expect("a JWT");
    let (claims, _) = rest.split_once('.').expect("a JWT");
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    for token in [
        token::forged(&ada.token),
        format!("{none}.{claims}."),
        format!("{head}.{claims}"),
        ada.refresh_token.clone(),
        "x".repeat(9000),
        "not a token".to_owned(),
    ] {
        for path in ["/api/v1/users/me", "/api/v1/posts"] {
            let answer = guildhall.get(path).token(&token).send().await;
            let problem = answer.expect_problem(401, "TOKEN_INVALID");
            assert!(!problem.to_string().contains(&token), "the answer repeats the token");
        }
    }
    guildhall.get("/api/v1/users/me").send().await.expect_problem(401, "TOKEN_MISSING");
}
