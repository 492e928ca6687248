//! Introspect, ExchangeSvid.

use contracts::auth::v1::{ExchangeSvidRequest, IntrospectRequest, IntrospectResponse, RevokeSessionRequest};
use status::Reason;

use crate::{
    on_both,
    world::{Person, World, assert_refused, claims},
};

on_both! {
    async fn a_token_is_introspected_while_it_is_good(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let mut tokens = world.tokens("content").await;
        let request = IntrospectRequest { token: ada.access.clone() };
        let answer = tokens.introspect(request.clone()).await.unwrap().into_inner();
        let claims = claims(&ada.access);
        assert!(answer.active);
        assert_eq!((answer.sub.as_str(), answer.sid.as_str()), (ada.id.as_str(), claims["sid"].as_str().unwrap()));
        assert_eq!((answer.scope.as_str(), answer.jti.as_str()), (claims["scope"].as_str().unwrap(), claims["jti"].as_str().unwrap()));
        assert_eq!((answer.aud, answer.iss.as_str(), answer.client_id.as_str()), (vec!["guildhall".to_owned()], testkit::ISSUER, "guildhall"));
        assert_eq!(answer.exp.unwrap().seconds, claims["exp"].as_i64().unwrap());
        assert_eq!((answer.roles, answer.tier.as_str(), answer.token_type.as_str()), (vec!["member".to_owned()], "free", "Bearer"));

        let revoke = RevokeSessionRequest { session_id: claims["sid"].as_str().unwrap().to_owned() };
        world.accounts().revoke_session(world.by(&ada, revoke)).await.unwrap();
        assert_eq!(tokens.introspect(request).await.unwrap().into_inner(), IntrospectResponse::default());
    }

    async fn of_what_is_no_good_token_nothing_is_told(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let mut tokens = world.tokens("content").await;
        let (head, signature) = ada.access.rsplit_once('.').unwrap();
        let backwards: String = signature.chars().rev().collect();
        let foreign = world.mesh.token(&testkit::TokenSpec::member(ada.id.parse().unwrap()));
        let bad = ["x".to_owned(), "a.b.c".to_owned(), ada.refresh.clone(), format!("{head}."), format!("{head}.{backwards}"), foreign];
        for token in bad {
            let answer = tokens.introspect(IntrospectRequest { token }).await.unwrap().into_inner();
            assert_eq!(answer, IntrospectResponse::default());
        }
        let unknown_key = Person { access: world.mesh.token(&testkit::TokenSpec::member(ada.id.parse().unwrap())), ..ada };
        assert_refused(world.me(&unknown_key).await, Reason::TokenInvalid);
    }

    async fn a_jwt_svid_for_the_issuer_becomes_a_token_in_the_workloads_name(backend: Backend) {
        let world = World::with(backend, |settings| settings.set("workload_scopes.content", "content.write profile")).await;
        let content = world.mesh.caller("content").await;
        let jwt_svid = content.jwt_svid(testkit::ISSUER).await.unwrap();
        let mut tokens = world.tokens("content").await;
        let answer = tokens.exchange_svid(ExchangeSvidRequest { jwt_svid }).await.unwrap().into_inner();
        assert_eq!((answer.expires_in, answer.token_type.as_str()), (600, "Bearer"));
        let claims = claims(&answer.access_token);
        assert_eq!(claims["sub"], "spiffe://guildhall.internal/ns/guildhall/sa/content");
        assert_eq!((&claims["scope"], &claims["roles"]), (&"content.write profile".into(), &serde_json::json!([])));
        assert!(claims.get("sid").is_none());

        let request = IntrospectRequest { token: answer.access_token.clone() };
        let introspected = tokens.introspect(request).await.unwrap().into_inner();
        assert!(introspected.active);
        assert_eq!(introspected.sid, "");
        let workload = Person { id: String::new(), access: answer.access_token, refresh: String::new() };
        assert_refused(world.me(&workload).await, Reason::TokenInvalid);
    }

    async fn a_workload_without_configured_scopes_gets_none(backend: Backend) {
        let world = World::start(backend).await;
        let jwt_svid = world.mesh.caller("media").await.jwt_svid(testkit::ISSUER).await.unwrap();
        let answer = world.tokens("media").await.exchange_svid(ExchangeSvidRequest { jwt_svid }).await.unwrap().into_inner();
        assert_eq!(claims(&answer.access_token)["scope"], "");
    }

    async fn a_jwt_svid_for_another_audience_is_refused(backend: Backend) {
        let world = World::start(backend).await;
        let content = world.mesh.caller("content").await;
        let mut tokens = world.tokens("content").await;
        let foreign = content.jwt_svid("https://elsewhere.example.org").await.unwrap();
        let ada = world.member("ada@example.org").await;
        for jwt_svid in [foreign, "x".to_owned(), "a.b.c".to_owned(), ada.access] {
            assert_refused(tokens.exchange_svid(ExchangeSvidRequest { jwt_svid }).await, Reason::SvidInvalid);
        }
    }
}
