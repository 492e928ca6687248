//! What a new user does, over REST, from an empty directory.

use std::time::Duration;

use e2e::{PASSWORD, eventually, guildhall};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);
/// Events take milliseconds; a machine busy with other tests may take longer.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_new_user_registers_posts_searches_and_sees_what_changed() {
    let guildhall = guildhall!();
    let ada = guildhall.member("Ada").await;

    let draft = json!({"title": "길드홀 소개", "markdown": "게임 커뮤니티를 위한 백엔드입니다.\n", "tags": ["소개"]});
    let draft = guildhall.post("/api/v1/posts", draft).token(&ada.token).send().await.expect_status(200).json();
    let path = format!("/api/v1/posts/{}", draft["id"].as_str().unwrap());
    assert_eq!(
        (&draft["state"], &draft["version"], &draft["slug"]),
        (&json!("DRAFT"), &json!(1), &json!("길드홀-소개"))
    );
    guildhall.get(&path).send().await.expect_problem(404, "NOT_FOUND");

    let change =
        json!({"markdown": "게임 커뮤니티를 위한 백엔드입니다.\n\n**러스트**로 썼습니다.\n", "etag": draft["etag"]});
    let edited = guildhall.patch(&path, change.clone()).token(&ada.token).send().await.expect_status(200).json();
    assert_eq!(edited["version"], 2);
    assert!(edited["html"].as_str().unwrap().contains("<strong>러스트</strong>"));
    guildhall.patch(&path, change).token(&ada.token).send().await.expect_problem(409, "ETAG_MISMATCH");
    let stale = draft["etag"].as_str().unwrap();
    let call =
        guildhall.patch(&path, json!({"title": "x"})).token(&ada.token).header("if-match", &format!("\"{stale}\""));
    call.send().await.expect_problem(412, "ETAG_MISMATCH");

    let published = guildhall.post(&format!("{path}:publish"), json!({})).token(&ada.token).send().await;
    assert_eq!(published.expect_status(200).json()["state"], "PUBLISHED");
    let read = guildhall.get(&path).send().await.expect_status(200);
    assert!(read.header("etag").is_some() && read.header("cache-control").unwrap().contains("public"));
    let etag = read.header("etag").unwrap().to_owned();
    guildhall.get(&path).header("if-none-match", &etag).send().await.expect_status(304);
    eventually(SOON, "the author's name", async || {
        (guildhall.get(&path).send().await.json()["author"] == "Ada").then_some(())
    })
    .await;

    let found = guildhall.get("/api/v1/posts:search?q=커뮤니티").send().await.expect_status(200).json();
    assert_eq!(found["results"][0]["post"]["id"], draft["id"]);
    assert!(found["results"][0]["snippet"].as_str().unwrap().contains("<mark>"), "{found}");

    let diff = format!("{path}/versions:diff?baseVersion=1&targetVersion=2");
    let diff = guildhall.get(&diff).token(&ada.token).send().await.expect_status(200).json();
    assert!(diff["unified"].as_str().unwrap().contains("+**러스트**로 썼습니다."), "{diff}");
    let restored = guildhall.post(&format!("{path}/versions/1:restore"), json!({})).token(&ada.token).send().await;
    assert_eq!(restored.expect_status(200).json()["version"], 3);

    guildhall.call(reqwest::Method::PUT, &format!("{path}/like")).token(&ada.token).send().await.expect_status(200);
    guildhall.post(&format!("{path}:view"), json!({})).send().await.expect_status(200);
    eventually(SOON, "the view is counted", async || {
        let statistics = guildhall.get(&format!("{path}/statistics")).send().await.expect_status(200).json();
        (statistics == json!({"views": "1", "likes": "1"})).then_some(())
    })
    .await;

    for feed in ["/feeds/posts.atom", "/feeds/posts.rss", "/sitemap.xml"] {
        let feed = guildhall.get(feed).send().await.expect_status(200);
        assert!(feed.text().contains(draft["id"].as_str().unwrap()), "{}", feed.text());
    }
    guildhall.delete(&path).token(&ada.token).send().await.expect_status(200);
    guildhall.get(&path).send().await.expect_problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_mailed_code_verifies_the_address_once_and_a_reset_ends_every_session() {
    let guildhall = guildhall!();
    let ada = guildhall.member("Ada").await;
    let code = mailed_code(&guildhall, "ada@example.org", 1).await;
    let verify = || guildhall.post("/api/v1/auth/verify-email", json!({"code": code}));
    verify().send().await.expect_status(200);
    verify().send().await.expect_problem(400, "CODE_INVALID");
    let me = guildhall.get("/api/v1/users/me").token(&ada.token).send().await.expect_status(200).json();
    assert_eq!(me["emailVerified"], true);

    let reset = |email: &str| guildhall.post("/api/v1/auth/password-resets", json!({"email": email}));
    assert_eq!(reset("nobody@example.org").send().await.expect_status(200).json(), json!({}));
    assert_eq!(reset("ada@example.org").send().await.expect_status(200).json(), json!({}));
    let code = mailed_code(&guildhall, "ada@example.org", 2).await;
    let new = json!({"code": code, "password": "another long password"});
    guildhall.post("/api/v1/auth/password-resets:complete", new).send().await.expect_status(200);
    eventually(SOON, "the old token is refused", async || {
        let answer = guildhall.get("/api/v1/users/me").token(&ada.token).send().await;
        (answer.status == 401).then_some(())
    })
    .await;
    let old = json!({"email": ada.email, "password": PASSWORD});
    guildhall.post("/api/v1/auth/login", old).send().await.expect_problem(401, "CREDENTIALS_INVALID");
    guildhall.log_in(&ada.email, "another long password").await;
}

#[tokio::test]
async fn a_revoked_session_and_a_suspension_end_tokens_within_a_second_everywhere() {
    let guildhall = guildhall!();
    let ada = guildhall.member("Ada").await;
    let admin = guildhall.admin().await;
    let post = guildhall.published(&ada.token, "Here to stay", "text").await;
    let path = format!("/api/v1/posts/{}", post["id"].as_str().unwrap());

    let sessions = guildhall.get("/api/v1/users/me/sessions").token(&ada.token).send().await.expect_status(200).json();
    let current = sessions["sessions"].as_array().unwrap().iter().find(|session| session["current"] == true).unwrap();
    let session = format!("/api/v1/users/me/sessions/{}", current["id"].as_str().unwrap());
    guildhall.delete(&session).token(&ada.token).send().await.expect_status(200);
    eventually(SECOND, "content refuses the token", async || {
        let answer = guildhall.patch(&path, json!({"title": "no"})).token(&ada.token).send().await;
        (answer.status == 401).then_some(())
    })
    .await;
    let refreshed = guildhall.refresh(&ada.refresh_token, None).await;
    assert_eq!(refreshed.expect_status(400).json()["error"], "invalid_grant");

    let again = guildhall.log_in(&ada.email, PASSWORD).await;
    let again = again["accessToken"].as_str().unwrap();
    let suspend = format!("/api/v1/users/{}:suspend", ada.id);
    guildhall.post(&suspend, json!({"reason": "spam"})).token(&admin).send().await.expect_status(200);
    eventually(SECOND, "the suspended person's token is refused", async || {
        let answer = guildhall.patch(&path, json!({"title": "no"})).token(again).send().await;
        (answer.status == 401).then_some(())
    })
    .await;
    let login = json!({"email": ada.email, "password": PASSWORD});
    guildhall.post("/api/v1/auth/login", login).send().await.expect_problem(403, "ACCOUNT_SUSPENDED");
    eventually(SOON, "the post is hidden", async || (guildhall.get(&path).send().await.status == 404).then_some(()))
        .await;
    let reinstate = format!("/api/v1/users/{}:reinstate", ada.id);
    guildhall.post(&reinstate, json!({})).token(&admin).send().await.expect_status(200);
    eventually(SOON, "the post is back", async || (guildhall.get(&path).send().await.status == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn a_new_display_name_reaches_the_posts() {
    let guildhall = guildhall!();
    let ada = guildhall.member("Ada").await;
    let post = guildhall.published(&ada.token, "Mine", "text").await;
    let path = format!("/api/v1/posts/{}", post["id"].as_str().unwrap());
    let rename = json!({"displayName": "Ada Lovelace"});
    guildhall.patch("/api/v1/users/me", rename).token(&ada.token).send().await.expect_status(200);
    eventually(SOON, "the new name", async || {
        (guildhall.get(&path).send().await.json()["author"] == "Ada Lovelace").then_some(())
    })
    .await;
}

#[tokio::test]
async fn refreshing_rotates_and_a_reused_token_ends_the_session() {
    let guildhall = guildhall!();
    let ada = guildhall.member("Ada").await;
    let refresh = async |token: &str| guildhall.refresh(token, None).await;
    let second = refresh(&ada.refresh_token).await.expect_status(200).json();
    let second = second["refresh_token"].as_str().unwrap();
    let third = refresh(second).await.expect_status(200).json();
    let third = third["refresh_token"].as_str().unwrap();
    // The first one again, after its successor was used: it was stolen.
    assert_eq!(refresh(&ada.refresh_token).await.expect_status(400).json()["error"], "invalid_grant");
    assert_eq!(refresh(third).await.expect_status(400).json()["error"], "invalid_grant");
}

#[tokio::test]
async fn the_edge_tells_what_it_is() {
    let guildhall = guildhall!();
    let metadata = guildhall.get("/.well-known/oauth-authorization-server").send().await.expect_status(200).json();
    assert!(metadata["issuer"].as_str().unwrap().starts_with("http://localhost:"), "{metadata}");
    let jwks = guildhall.get("/oauth2/jwks").send().await.expect_status(200).json();
    let key = &jwks["keys"][0];
    assert_eq!((&key["kty"], &key["alg"], key["d"].is_null()), (&json!("RSA"), &json!("RS256"), true));
    let openapi = guildhall.get("/openapi.json").send().await.expect_status(200).json();
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(openapi["paths"]["/api/v1/posts/{post_id}:publish"].is_object());
    for page in ["/", "/docs", "/docs/errors/ETAG_MISMATCH"] {
        let page = guildhall.get(page).send().await.expect_status(200);
        assert!(page.header("content-type").unwrap().starts_with("text/html"));
        assert!(page.header("content-security-policy").is_some());
    }
    guildhall.get("/nowhere").send().await.expect_problem(404, "ROUTE_NOT_FOUND");
}

#[tokio::test]
async fn streams_come_in_the_form_that_was_asked_for() {
    let guildhall = guildhall!();
    let admin = guildhall.admin().await;
    for title in ["One", "Two"] {
        guildhall.published(&admin, title, "text").await;
    }
    let export = async |accept: &str| {
        let call = guildhall.get("/api/v1/posts:export").token(&admin).header("accept", accept);
        call.send().await.expect_status(200)
    };
    let lines = export("application/x-ndjson").await;
    assert_eq!(lines.text().lines().count(), 2);
    let array = export("application/json").await.json();
    assert_eq!(array.as_array().unwrap().len(), 2);
    let events = export("text/event-stream").await;
    assert_eq!(events.text().lines().filter(|line| line.starts_with("data:")).count(), 2, "{}", events.text());
}

/// The code of the newest of at least `mails` mails to somebody.
async fn mailed_code(guildhall: &e2e::Guildhall, address: &str, mails: usize) -> String {
    eventually(SOON, "the mail", async || {
        let mut found: Vec<_> = std::fs::read_dir(guildhall.data().join("mail"))
            .ok()?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let complete = path.extension().is_some_and(|ending| ending == "eml");
                let text = complete.then(|| std::fs::read_to_string(&path)).and_then(Result::ok)?;
                text.contains(&format!("To: {address}")).then_some((path, text))
            })
            .collect();
        found.sort();
        if found.len() < mails {
            return None;
        }
        let (_, newest) = found.pop()?;
        // The code stands on a line of its own: 256 bits in base64url.
        let line = newest.lines().map(str::trim).find(|line| line.len() == 43 && !line.contains(' '))?;
        Some(line.to_owned())
    })
    .await
}
