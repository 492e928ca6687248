use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::routing::get;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ids::{SessionId, UserId};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh::token::{Audience, Claims, KeySet, RemoteKeys, Verifier};
use status::Reason;
use tokio_util::sync::CancellationToken;

use crate::world::{CountedKeys, ISSUER, KEY, OTHER_KEY, World, header, sign, soon};

async fn refused(world: &World, token: &str) -> Reason {
    world.verifier.verify(token).await.map(|_| ()).unwrap_err().reason()
}

fn changed(change: impl FnOnce(&mut Header)) -> Header {
    let mut header = header();
    change(&mut header);
    header
}

#[tokio::test]
async fn a_good_token_names_its_person() {
    let world = World::start().await;
    let claims = Claims { roles: vec!["member".into(), "operator".into()], ..world.claims() };
    let user = world.verifier.verify(&sign(&header(), &claims)).await.unwrap();
    assert_eq!(user.id.to_string(), claims.sub);
    assert_eq!(user.session, claims.sid);
    assert_eq!(*user.scopes, ["profile".to_owned(), "content.write".to_owned()]);
    assert_eq!(user.role, contracts::Role::Operator);
    assert!(user.email_verified);
    assert_eq!(user.expires.seconds(), claims.exp);
    assert!(!format!("{user:?}").contains(&*user.token));

    let several = world.token(|claims| claims.aud = Audience::Many(vec!["other".into(), "guildhall".into()]));
    world.verifier.verify(&several).await.unwrap();
}

#[tokio::test]
async fn a_token_of_the_wrong_kind_is_refused() {
    type Change = fn(&mut Claims);
    let world = World::start().await;
    let claims = world.claims();
    let bad_headers = [
        ("no type", changed(|header| header.typ = None)),
        ("an id token", changed(|header| header.typ = Some("JWT".into()))),
        ("a logout token", changed(|header| header.typ = Some("logout+jwt".into()))),
        ("no kid", changed(|header| header.kid = None)),
        ("an unknown kid", changed(|header| header.kid = Some("key-2".into()))),
        ("a kid with traversal", changed(|header| header.kid = Some("../../key-1".into()))),
        ("a kid with SQL", changed(|header| header.kid = Some("key-1' OR '1'='1".into()))),
        ("a longer kid", changed(|header| header.kid = Some("key-1 ".into()))),
        ("another RSA algorithm", changed(|header| header.alg = Algorithm::RS512)),
        ("PSS", changed(|header| header.alg = Algorithm::PS256)),
        ("critical extensions", changed(|header| header.crit = Some(vec!["exp".into()]))),
    ];
    for (what, header) in bad_headers {
        assert_eq!(refused(&world, &sign(&header, &claims)).await, Reason::TokenInvalid, "{what}");
    }
    let bad_claims: [(&str, Change); 6] = [
        ("another issuer", |claims| claims.iss = "https://guildhall.example.evil".into()),
        ("another audience", |claims| claims.aud = Audience::One("another".into())),
        ("no audience", |claims| claims.aud = Audience::Many(Vec::new())),
        ("a workload's subject", |claims| claims.sub = "spiffe://guildhall.internal/ns/guildhall/sa/content".into()),
        ("a subject of nonsense", |claims| claims.sub = "admin".into()),
        ("issued in the future", |claims| claims.iat += 3600),
    ];
    for (what, change) in bad_claims {
        assert_eq!(refused(&world, &world.token(change)).await, Reason::TokenInvalid, "{what}");
    }
    for text in ["", ".", "..", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", &"x".repeat(20_000)] {
        assert_eq!(refused(&world, text).await, Reason::TokenInvalid);
    }
}

#[tokio::test]
async fn a_forged_signature_is_refused() {
    let world = World::start().await;
    let claims = world.claims();
    let other = jsonwebtoken::encode(&header(), &claims, &OTHER_KEY.private).unwrap();
    assert_eq!(refused(&world, &other).await, Reason::TokenInvalid);

    // The public key, as text and as bytes, used as the secret of a symmetric algorithm.
    let der = &KEY.public;
    let hs256 = changed(|header| header.alg = Algorithm::HS256);
    for secret in [der.clone(), KEY.jwks("key-1"), BASE64_URL_SAFE_NO_PAD.encode(der).into_bytes()] {
        let forged = jsonwebtoken::encode(&hs256, &claims, &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(refused(&world, &forged).await, Reason::TokenInvalid);
    }

    // No algorithm at all, with and without the good signature.
    let good = sign(&header(), &claims);
    let parts: Vec<_> = good.split('.').collect();
    for alg in ["none", "None", "NONE", ""] {
        let head = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","typ":"at+jwt","kid":"key-1"}}"#));
        for signature in ["", parts[2]] {
            assert_eq!(
                refused(&world, &format!("{head}.{}.{signature}", parts[1])).await,
                Reason::TokenInvalid,
                "{alg}"
            );
        }
    }

    // Claims changed under a good signature, and a signature cut short.
    let admin = Claims { roles: vec!["admin".into()], ..claims };
    let body = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&admin).unwrap());
    assert_eq!(refused(&world, &format!("{}.{body}.{}", parts[0], parts[2])).await, Reason::TokenInvalid);
    assert_eq!(refused(&world, &good[..good.len() - 4]).await, Reason::TokenInvalid);
}

#[tokio::test]
async fn keys_that_a_token_brings_along_are_not_looked_at() {
    let world = World::start().await;
    let jwk = serde_json::from_slice::<serde_json::Value>(&OTHER_KEY.jwks("mine")).unwrap()["keys"][0].clone();
    let embedded = changed(|header| {
        header.kid = Some("mine".into());
        header.jwk = Some(serde_json::from_value(jwk.clone()).unwrap());
        header.jku = Some("https://evil.example/jwks".into());
        header.x5u = Some("https://evil.example/cert".into());
    });
    let token = jsonwebtoken::encode(&embedded, &world.claims(), &OTHER_KEY.private).unwrap();
    assert_eq!(refused(&world, &token).await, Reason::TokenInvalid);
    let known = Header { kid: Some("key-1".into()), ..embedded };
    let token = jsonwebtoken::encode(&known, &world.claims(), &OTHER_KEY.private).unwrap();
    assert_eq!(refused(&world, &token).await, Reason::TokenInvalid);
}

#[tokio::test]
async fn a_token_expires_by_the_injected_clock_though_it_was_verified_before() {
    let world = World::start().await;
    let token = world.token(|claims| claims.exp = claims.iat + 600);
    world.verifier.verify(&token).await.unwrap();
    world.clock.advance(Duration::from_mins(10));
    world.verifier.verify(&token).await.unwrap(); // within the leeway
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(refused(&world, &token).await, Reason::TokenExpired);
    assert_eq!(refused(&world, &world.token(|claims| claims.exp = claims.iat - 60)).await, Reason::TokenExpired);
}

#[tokio::test]
async fn a_revoked_session_or_person_is_refused_though_the_token_was_verified_before() {
    let world = World::start().await;
    let user: UserId = world.source.id();
    let (one, two): (SessionId, SessionId) = (world.source.id(), world.source.id());
    let of = |session| {
        world.token(|claims| {
            claims.sub = user.to_string();
            claims.sid = Some(session);
        })
    };
    let (first, second) = (of(one), of(two));
    world.verifier.verify(&first).await.unwrap();
    world.verifier.verify(&second).await.unwrap();

    world.verifier.revocations().revoke(user, Some(one), world.source.now());
    assert_eq!(refused(&world, &first).await, Reason::TokenRevoked);
    world.verifier.verify(&second).await.unwrap();

    world.verifier.revocations().revoke(user, None, world.source.now());
    assert_eq!(refused(&world, &second).await, Reason::TokenRevoked);

    // A login right after, in the same second, counts again.
    world.clock.advance(Duration::from_millis(2));
    world.verifier.verify(&of(world.source.id())).await.unwrap();
}

#[tokio::test]
async fn a_verified_token_is_remembered() {
    let world = World::start().await;
    let keys = Arc::new(CountedKeys(KeySet::from_jwks(&KEY.jwks("key-1")).unwrap(), AtomicUsize::new(0)));
    let verifier = Verifier::new(keys.clone(), ISSUER.into(), "guildhall".into(), world.source.clone());
    let token = world.token(|_| {});
    for _ in 0..5 {
        verifier.verify(&token).await.unwrap();
    }
    assert_eq!(keys.1.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn keys_are_fetched_over_the_mesh_kept_through_an_outage_and_refetched_within_bounds() {
    let world = World::start().await;
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = fetches.clone();
    let router = axum::Router::new().route(
        "/oauth2/jwks",
        get(move || async move {
            counted.fetch_add(1, Ordering::SeqCst);
            KEY.jwks("key-1")
        }),
    );
    let auth = world.serve("auth", |server| server.http(router)).await;
    let keys = RemoteKeys::new(world.channel("content", "auth", &auth).await);
    assert!(!keys.is_ready());
    let stop = CancellationToken::new();
    let task = tokio::spawn(keys.clone().run(stop.clone()));
    soon(keys.ready()).await;
    let verifier = Verifier::new(keys.clone(), ISSUER.into(), "guildhall".into(), world.source.clone());
    verifier.verify(&world.token(|_| {})).await.unwrap();

    // A flood of unknown kids.
    let before = fetches.load(Ordering::SeqCst);
    let claims = world.claims();
    for number in 0..50 {
        let unknown = sign(&changed(|header| header.kid = Some(format!("unknown-{number}"))), &claims);
        assert!(verifier.verify(&unknown).await.is_err());
    }
    assert!(fetches.load(Ordering::SeqCst) <= before + 1);

    auth.kill.cancel();
    auth.drain.cancel();
    soon(auth.task).await.unwrap().unwrap();
    verifier.verify(&world.token(|_| {})).await.unwrap();
    stop.cancel();
    soon(task).await.unwrap();
}

#[tokio::test]
async fn a_token_is_not_called_bad_by_who_has_no_keys_yet() {
    let world = World::start().await;
    let auth = world.serve("auth", |server| server).await;
    let keys = RemoteKeys::new(world.channel("content", "auth", &auth).await);
    let verifier = Verifier::new(keys, ISSUER.into(), "guildhall".into(), world.source.clone());
    let problem = verifier.verify(&world.token(|_| {})).await.err().unwrap();
    assert_eq!(problem.reason(), Reason::Unavailable);
    assert_eq!(problem.retry_delay(), Some(Duration::from_secs(1)));
    let unknown = sign(&changed(|header| header.kid = Some("unknown".into())), &world.claims());
    assert_eq!(refused(&world, &unknown).await, Reason::TokenInvalid, "who has keys knows");
}

#[test]
fn a_key_set_takes_rsa_signing_keys_and_refuses_a_document_without_one() {
    let mut document: serde_json::Value = serde_json::from_slice(&KEY.jwks("good")).unwrap();
    let good = document["keys"][0].clone();
    let with = |name: &str, value: serde_json::Value| {
        let mut key = good.clone();
        key[name] = value;
        key["kid"] = "bad".into();
        key
    };
    let bad = [with("use", "enc".into()), with("alg", "PS256".into()), with("kty", "XYZ".into()), serde_json::json!(7)];
    for key in &bad {
        let alone = serde_json::json!({ "keys": [key] }).to_string();
        assert!(KeySet::from_jwks(alone.as_bytes()).is_err(), "{key}");
    }
    document["keys"].as_array_mut().unwrap().extend(bad);
    let keys = KeySet::from_jwks(document.to_string().as_bytes()).unwrap();
    assert!(mesh::token::Keys::find(&keys, "good").is_some());
    assert!(mesh::token::Keys::find(&keys, "bad").is_none());
    for text in ["", "{}", "[]", r#"{"keys": []}"#] {
        assert!(KeySet::from_jwks(text.as_bytes()).is_err());
    }
}
