//! Etags: a change that was meant for what a resource no longer is does not happen, whichever way the etag came.

use std::collections::BTreeSet;

use e2e::{Call, Guildhall, guildhall};
use reqwest::Method;
use serde_json::{Value, json};

use crate::contract;

/// An RPC with an etag, and what it is tried on.
struct Case {
    rpc: &'static str,
    resource: Resource,
    method: Method,
    /// After the resource's own path.
    verb: &'static str,
    body: &'static str,
}

#[derive(Clone, Copy)]
enum Resource {
    Me,
    Settings,
    User,
    Post,
    Portfolio,
    ResumeEntry,
    Category,
    Tag,
}

use Resource::{Category, Me, Portfolio, Post, ResumeEntry, Settings, Tag, User};

const fn case(rpc: &'static str, resource: Resource, method: Method, verb: &'static str, body: &'static str) -> Case {
    Case { rpc, resource, method, verb, body }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("/guildhall.auth.v1.AccountService/UpdateMe",               Me,          Method::PATCH,  "",                    r#"{"displayName": "New"}"#),
    case("/guildhall.auth.v1.AccountService/UpdateSettings",         Settings,    Method::PATCH,  "",                    r#"{"locale": "ko"}"#),
    case("/guildhall.auth.v1.AccountService/SetRoles",               User,        Method::PUT,    "/roles",              r#"{"roles": ["moderator"]}"#),
    case("/guildhall.auth.v1.AccountService/SetTier",                User,        Method::PUT,    "/tier",               r#"{"tier": "free"}"#),
    case("/guildhall.auth.v1.AccountService/Suspend",                User,        Method::POST,   ":suspend",            r#"{"reason": "spam"}"#),
    case("/guildhall.auth.v1.AccountService/Reinstate",              User,        Method::POST,   ":reinstate",          "{}"),
    case("/guildhall.content.v1.PostService/UpdatePost",             Post,        Method::PATCH,  "",                    r#"{"markdown": "new"}"#),
    case("/guildhall.content.v1.PostService/DeletePost",             Post,        Method::DELETE, "",                    ""),
    case("/guildhall.content.v1.PostService/PublishPost",            Post,        Method::POST,   ":publish",            "{}"),
    case("/guildhall.content.v1.PostService/UnpublishPost",          Post,        Method::POST,   ":unpublish",          "{}"),
    case("/guildhall.content.v1.PostService/RestorePostVersion",     Post,        Method::POST,   "/versions/1:restore", "{}"),
    case("/guildhall.content.v1.PortfolioService/UpdatePortfolio",   Portfolio,   Method::PATCH,  "",                    r#"{"markdown": "new"}"#),
    case("/guildhall.content.v1.PortfolioService/UpdateResumeEntry", ResumeEntry, Method::PATCH,  "",                    r#"{"markdown": "new"}"#),
    case("/guildhall.content.v1.PortfolioService/DeleteResumeEntry", ResumeEntry, Method::DELETE, "",                    ""),
    case("/guildhall.content.v1.CategoryService/UpdateCategory",     Category,    Method::PATCH,  "",                    r#"{"description": "new"}"#),
    case("/guildhall.content.v1.CategoryService/DeleteCategory",     Category,    Method::DELETE, "",                    ""),
    case("/guildhall.content.v1.CategoryService/MoveCategory",       Category,    Method::POST,   ":move",               "{}"),
    case("/guildhall.content.v1.TagService/RenameTag",               Tag,         Method::PATCH,  "",                    r#"{"name": "newest"}"#),
];

#[test]
fn every_rpc_with_an_etag_has_a_case() {
    let written: BTreeSet<_> = CASES.iter().map(|case| case.rpc).collect();
    assert_eq!(written, contract::with_etag());
}

#[tokio::test]
async fn a_stale_etag_is_refused_and_the_current_one_accepted() {
    let guildhall = guildhall!();
    let world = World::new(&guildhall).await;
    for (number, case) in CASES.iter().enumerate() {
        // Shown when the test fails.
        println!("{}", case.rpc);
        let changed = world.changed(case.resource, number).await;
        let attempt = |etag: Option<&str>| world.attempt(case, &changed.path, etag);
        let stale = attempt(Some(&changed.stale)).send().await;
        stale.expect_problem(409, "ETAG_MISMATCH");
        let stale = attempt(None).header("if-match", &format!("\"{}\"", changed.stale)).send().await;
        stale.expect_problem(412, "ETAG_MISMATCH");
        // It still is the current one: the two above have changed nothing.
        let current = attempt(None).header("if-match", &format!("\"{}\"", changed.current)).send().await;
        current.expect_status(200);
    }
}

/// Somebody who may do everything, and owns everything.
struct World<'a> {
    guildhall: &'a Guildhall,
    admin: String,
    id: String,
}

/// A resource that has changed once.
struct Changed {
    path: String,
    /// Its etag before the change.
    stale: String,
    current: String,
}

impl<'a> World<'a> {
    async fn new(guildhall: &'a Guildhall) -> Self {
        let admin = guildhall.admin().await;
        let me = guildhall.get("/api/v1/users/me").token(&admin).send().await.expect_status(200).json();
        Self { guildhall, admin, id: text(&me["id"]) }
    }

    fn attempt(&self, case: &Case, path: &str, etag: Option<&str>) -> Call {
        let path = format!("{path}{}", case.verb);
        if case.body.is_empty() {
            let query = etag.map(|etag| format!("?etag={etag}")).unwrap_or_default();
            return self.guildhall.call(case.method.clone(), &format!("{path}{query}")).token(&self.admin);
        }
        let mut body: Value = serde_json::from_str(case.body).expect("JSON");
        if let Some(etag) = etag {
            body["etag"] = json!(etag);
        }
        self.guildhall.call(case.method.clone(), &path).token(&self.admin).json(&body)
    }

    /// A resource for this case alone, as far as there is more than one of its kind.
    async fn changed(&self, resource: Resource, number: usize) -> Changed {
        let name = format!("Number {number}");
        let (path, before) = match resource {
            Me => self.found("/api/v1/users/me").await,
            Settings => self.found("/api/v1/users/me/settings").await,
            User => {
                let path = format!("/api/v1/users/{}", self.guildhall.member(&format!("Number-{number}")).await.id);
                let user = self.answer(Method::PUT, &format!("{path}/tier"), json!({"tier": "enterprise"})).await;
                (path, user)
            }
            Post => self.created("/api/v1/posts", json!({"title": name, "markdown": "text"})).await,
            Portfolio => {
                let path = format!("/api/v1/portfolios/{}", self.id);
                let portfolio = self.answer(Method::PATCH, &path, json!({"headline": name})).await;
                (path, portfolio)
            }
            ResumeEntry => {
                let entry = json!({"kind": "WORK", "title": name, "startMonth": "2020-06"});
                self.created(&format!("/api/v1/portfolios/{}/entries", self.id), entry).await
            }
            Category => self.created("/api/v1/categories", json!({"name": name})).await,
            Tag => self.tag(&name).await,
        };
        let after = match resource {
            Me => self.answer(Method::PATCH, &path, json!({"biography": name})).await,
            Settings => self.answer(Method::PATCH, &path, json!({"locale": "de"})).await,
            User => self.answer(Method::PUT, &format!("{path}/tier"), json!({"tier": "premium"})).await,
            Post | ResumeEntry => self.answer(Method::PATCH, &path, json!({"title": "Changed"})).await,
            Portfolio => self.answer(Method::PATCH, &path, json!({"headline": "Changed"})).await,
            Category => self.answer(Method::PATCH, &path, json!({"description": "Changed"})).await,
            Tag => self.answer(Method::PATCH, &path, json!({"name": format!("{name}, changed")})).await,
        };
        let (stale, current) = (text(&before["etag"]), text(&after["etag"]));
        assert_ne!(stale, current, "{path}");
        Changed { path, stale, current }
    }

    async fn found(&self, path: &str) -> (String, Value) {
        let answer = self.guildhall.get(path).token(&self.admin).send().await;
        (path.to_owned(), answer.expect_status(200).json())
    }

    async fn created(&self, collection: &str, body: Value) -> (String, Value) {
        let resource = self.answer(Method::POST, collection, body).await;
        (format!("{collection}/{}", text(&resource["id"])), resource)
    }

    /// A tag comes into being with a post that carries it.
    async fn tag(&self, name: &str) -> (String, Value) {
        let (post, _) = self.created("/api/v1/posts", json!({"title": name, "tags": [name]})).await;
        self.answer(Method::POST, &format!("{post}:publish"), json!({})).await;
        let (_, list) = self.found("/api/v1/tags").await;
        let tag = list["tags"].as_array().expect("tags").iter().find(|tag| tag["name"] == name).expect("the tag");
        (format!("/api/v1/tags/{}", text(&tag["id"])), tag.clone())
    }

    async fn answer(&self, method: Method, path: &str, body: Value) -> Value {
        self.guildhall.call(method, path).token(&self.admin).json(&body).send().await.expect_status(200).json()
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
