//! Idempotency keys: the same request again gets the first answer, another one under the same key is refused, and neither has
//! an effect.

use std::collections::BTreeSet;

use e2e::guildhall;
use serde_json::{Value, json};

use crate::contract;

/// An RPC with an idempotency key.
struct Case {
    rpc: &'static str,
    /// Creates by POST and lists by GET; `{me}` stands for the caller.
    path: &'static str,
    /// What the list is called in its answer.
    plural: &'static str,
    /// The field that tells two of them apart.
    name: &'static str,
    /// The other fields of a request.
    rest: &'static str,
}

const CASES: &[Case] = &[
    Case {
        rpc: "/guildhall.content.v1.PostService/CreatePost",
        path: "/api/v1/posts?state=DRAFT",
        plural: "posts",
        name: "title",
        rest: r#"{"markdown": "text"}"#,
    },
    Case {
        rpc: "/guildhall.content.v1.CategoryService/CreateCategory",
        path: "/api/v1/categories",
        plural: "categories",
        name: "name",
        rest: "{}",
    },
    Case {
        rpc: "/guildhall.content.v1.PortfolioService/CreateResumeEntry",
        path: "/api/v1/portfolios/{me}/entries",
        plural: "entries",
        name: "title",
        rest: r#"{"kind": "WORK", "startMonth": "2020-06"}"#,
    },
];

#[test]
fn every_rpc_with_an_idempotency_key_has_a_case() {
    let written: BTreeSet<_> = CASES.iter().map(|case| case.rpc).collect();
    assert_eq!(written, contract::with_idempotency_key());
}

#[tokio::test]
async fn the_same_request_gets_the_first_answer_and_another_under_its_key_is_refused() {
    let guildhall = guildhall!();
    let admin = guildhall.admin().await;
    let me = guildhall.get("/api/v1/users/me").token(&admin).send().await.expect_status(200).json();
    for case in CASES {
        // Shown when the test fails.
        println!("{}", case.rpc);
        let path = case.path.replace("{me}", me["id"].as_str().expect("an id"));
        let (create, _) = path.split_once('?').unwrap_or((&path, ""));
        for (name, in_header) in [("One", true), ("Two", false)] {
            // Keys are told apart by RPC: every case uses the same two.
            let call = |name: &str| {
                let mut body: Value = serde_json::from_str(case.rest).expect("JSON");
                body[case.name] = json!(name);
                if in_header {
                    return guildhall.post(create, body).token(&admin).header("idempotency-key", "in the header");
                }
                body["requestId"] = json!("in the body");
                guildhall.post(create, body).token(&admin)
            };
            let first = call(name).send().await.expect_status(200);
            assert_eq!(first.json()[case.name], name);
            assert_eq!(call(name).send().await.expect_status(200).body, first.body);
            call("Another").send().await.expect_problem(409, "REQUEST_ID_REUSED");
            assert_eq!(call(name).send().await.expect_status(200).body, first.body);
        }
        let listed = guildhall.get(&path).token(&admin).send().await.expect_status(200).json();
        let mut names: Vec<_> =
            listed[case.plural].as_array().expect("a list").iter().map(|one| &one[case.name]).collect();
        names.sort_by_key(|name| name.as_str());
        assert_eq!(names, ["One", "Two"]);
    }
}
