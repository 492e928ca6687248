//! `/oauth2/token`, `/oauth2/jwks`, `/.well-known/oauth-authorization-server`.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use serde_json::json;
use status::Reason;

use crate::{
    on_both,
    world::{World, assert_refused, claims},
};

/// A name and a value, of a parameter or a header.
type Pair<'a> = (&'a str, &'a str);

on_both! {
    async fn a_refresh_gives_a_new_pair_for_the_same_session(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let answer = world.refresh(&ada.refresh).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!((&answer.body["token_type"], &answer.body["expires_in"]), (&json!("Bearer"), &json!(600)));
        assert_ne!(answer.body["refresh_token"], ada.refresh);
        let (old, new) = (claims(&ada.access), claims(answer.body["access_token"].as_str().unwrap()));
        assert_eq!((&new["sid"], &new["sub"], &new["client_id"]), (&old["sid"], &json!(ada.id), &json!("guildhall")));
        assert_ne!(new["jti"], old["jti"]);
    }

    async fn an_access_token_says_what_rfc_9068_wants(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let header = jsonwebtoken::decode_header(&ada.access).unwrap();
        assert_eq!((header.typ.as_deref(), header.alg), (Some("at+jwt"), jsonwebtoken::Algorithm::RS256));
        let claims = claims(&ada.access);
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(testkit::ISSUER), &json!("guildhall")));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
        assert_eq!((&claims["roles"], &claims["tier"]), (&json!(["member"]), &json!("free")));
        assert_eq!(claims["spiffe_id"], format!("spiffe://guildhall.internal/user/{}", ada.id));
        assert_eq!(claims["email_verified"], true);

        let jwks = world.get("/oauth2/jwks").await;
        assert_eq!(jwks.headers["cache-control"], "public, max-age=300");
        let key = &jwks.body["keys"][0];
        assert_eq!(key["kid"], header.kid.unwrap());
        assert_eq!((&key["kty"], &key["use"], &key["alg"]), (&json!("RSA"), &json!("sig"), &json!("RS256")));
        assert_eq!(key["d"], json!(null), "a private part is never shown");
    }

    async fn an_expired_access_token_is_refused(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        world.clock.advance(Duration::from_mins(11));
        assert_refused(world.me(&ada).await, Reason::TokenExpired);
        assert_eq!(world.refresh(&ada.refresh).await.status, 200);
    }

    async fn of_twenty_refreshes_at_once_one_rotates_and_all_get_its_successor(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let answers = futures_util::future::join_all((0..20).map(|_| world.refresh(&ada.refresh))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        let successors: BTreeSet<_> = answers.iter().map(|answer| answer.body["refresh_token"].as_str().unwrap()).collect();
        assert_eq!(successors.len(), 1);
        assert_eq!(world.refresh(successors.first().unwrap()).await.status, 200);
    }

    async fn without_grace_one_of_twenty_refreshes_wins_and_the_session_ends(backend: Backend) {
        let world = World::with(backend, |settings| settings.set("sessions.refresh_grace", "0s")).await;
        let ada = world.member("ada@example.org").await;
        let answers = futures_util::future::join_all((0..20).map(|_| world.refresh(&ada.refresh))).await;
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(won.len(), 1);
        assert_eq!(world.refresh(won[0].body["refresh_token"].as_str().unwrap()).await.body["error"], "invalid_grant");
        assert_refused(world.me(&ada).await, Reason::TokenRevoked);
        world.heard("auth.token.revoked", &ada.id, 1).await;
    }

    async fn a_lost_answer_is_given_again_for_a_moment_and_reuse_ends_the_session(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let lost = world.refresh(&ada.refresh).await;
        world.clock.advance(Duration::from_secs(9));
        let again = world.refresh(&ada.refresh).await;
        assert_eq!(again.body["refresh_token"], lost.body["refresh_token"]);

        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.refresh(&ada.refresh).await.body["error"], "invalid_grant");
        assert_eq!(world.refresh(lost.body["refresh_token"].as_str().unwrap()).await.body["error"], "invalid_grant");
        assert_refused(world.me(&ada).await, Reason::TokenRevoked);
    }

    async fn a_token_whose_successor_was_used_is_reuse_within_the_grace_too(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let next = world.refresh(&ada.refresh).await;
        let next = next.body["refresh_token"].as_str().unwrap();
        assert_eq!(world.refresh(next).await.status, 200);
        assert_eq!(world.refresh(&ada.refresh).await.body["error"], "invalid_grant");
        assert_refused(world.me(&ada).await, Reason::TokenRevoked);
    }

    async fn a_session_ends_unused_after_thirty_days_and_used_after_ninety(backend: Backend) {
        let world = World::start(backend).await;
        let (ada, bob) = (world.member("ada@example.org").await, world.member("bob@example.org").await);
        let mut token = ada.refresh;
        for day in [29, 58, 87] {
            world.clock.advance(Duration::from_hours(29 * 24));
            let answer = world.refresh(&token).await;
            assert_eq!(answer.status, 200, "day {day}");
            answer.body["refresh_token"].as_str().unwrap().clone_into(&mut token);
        }
        assert_eq!(world.refresh(&bob.refresh).await.body["error"], "invalid_grant");
        world.clock.advance(Duration::from_hours(3 * 24));
        assert_eq!(world.refresh(&token).await.body["error"], "invalid_grant");
    }

    async fn a_scope_may_be_narrowed_and_never_widened(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let with_scope = |scope: &'static str| {
            let token = ada.refresh.as_str();
            [("grant_type", "refresh_token"), ("client_id", "guildhall"), ("refresh_token", token), ("scope", scope)]
        };
        let all = with_scope("");
        assert_eq!(world.post_token(&all).await.body["scope"], claims(&ada.access)["scope"], "no value is no parameter");
        for scope in ["admin", "profile moderation", "profile  x", "\"", "openid"] {
            let answer = world.post_token(&with_scope(scope)).await;
            assert_eq!((answer.status.as_u16(), &answer.body["error"]), (400, &json!("invalid_scope")), "{scope}");
        }
        let narrowed = world.post_token(&with_scope("profile")).await;
        assert_eq!(narrowed.body["scope"], "profile");
        assert_eq!(claims(narrowed.body["access_token"].as_str().unwrap())["scope"], "profile");
    }

    async fn what_is_no_token_request_is_refused_as_rfc_6749_says(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let token = ada.refresh.as_str();
        let (grant, client, refresh) = (("grant_type", "refresh_token"), ("client_id", "guildhall"), ("refresh_token", token));
        let cases: [(&[Pair], u16, &str); 12] = [
            (&[], 400, "invalid_request"),
            (&[client, refresh], 400, "invalid_request"),
            (&[grant, refresh], 400, "invalid_request"),
            (&[grant, client], 400, "invalid_request"),
            (&[grant, grant, client, refresh], 400, "invalid_request"),
            (&[grant, client, client, refresh], 400, "invalid_request"),
            (&[grant, client, refresh, refresh], 400, "invalid_request"),
            (&[("grant_type", "password"), client], 400, "unsupported_grant_type"),
            (&[grant, ("client_id", "Guildhall"), refresh], 401, "invalid_client"),
            (&[grant, client, ("client_secret", "x"), refresh], 401, "invalid_client"),
            (&[grant, client, ("refresh_token", "x")], 400, "invalid_grant"),
            (&[grant, client, ("refresh_token", "")], 400, "invalid_request"),
        ];
        for (form, status, error) in cases {
            let answer = world.post_token(form).await;
            assert_eq!((answer.status.as_u16(), &answer.body["error"]), (status, &json!(error)), "{form:?}");
            assert_eq!(answer.headers["cache-control"], "no-store");
        }
        let body = format!("grant_type=refresh_token&client_id=guildhall&refresh_token={token}");
        let form = ("content-type", "application/x-www-form-urlencoded");
        let odd: [(&[Pair], String, u16); 4] = [
            (&[("content-type", "application/json")], "{}".to_owned(), 400),
            (&[form, ("authorization", "Basic Z3VpbGRoYWxsOg==")], body, 401),
            (&[form], format!("refresh_token={}", "x".repeat(20_000)), 400),
            (&[form], "refresh_token=%ff%fe&grant_type=refresh_token&client_id=guildhall".to_owned(), 400),
        ];
        for (headers, body, status) in odd {
            assert_eq!(world.http(Method::POST, "/oauth2/token", headers, body).await.status.as_u16(), status, "{headers:?}");
        }
        assert_eq!(world.refresh(token).await.status, 200, "no refusal has used the token up");
    }

    async fn metadata_tells_what_exists(backend: Backend) {
        let world = World::start(backend).await;
        let answer = world.get("/.well-known/oauth-authorization-server").await;
        assert_eq!(answer.status, 200);
        let body = answer.body;
        assert_eq!(body["issuer"], testkit::ISSUER);
        assert_eq!(body["token_endpoint"], format!("{}/oauth2/token", testkit::ISSUER));
        assert_eq!(body["jwks_uri"], format!("{}/oauth2/jwks", testkit::ISSUER));
        assert_eq!(body["grant_types_supported"], json!(["refresh_token"]));
        assert_eq!(body["token_endpoint_auth_methods_supported"], json!(["none"]));
        assert_eq!(body["authorization_endpoint"], json!(null));
    }
}
