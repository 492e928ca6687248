//! Who is refused, for every RPC: a table written by hand, not derived from the annotations that it checks.
//!
//! Each row is tried at the service itself over mutual TLS, and through the edge's public port.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::{Guildhall, guildhall, raw, token};
use mesh::{Identity, IdentitySettings};
use tonic::Code;
use tonic::transport::Endpoint;

use Expect::{Denied, Passes, Unauthenticated};

/// What becomes of a call with an empty request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Unauthenticated,
    Denied,
    /// It gets past the gate: what it answers then is not this table's matter.
    Passes,
}

/// One RPC and the callers that it is tried with. A forged or an expired token has no column: it is refused even where none is needed.
struct Row {
    method: &'static str,
    /// A workload of the mesh that may not call it, with the best of tokens.
    stranger: (&'static str, Expect),
    /// The edge, with no token.
    anonymous: Expect,
    /// The edge, with a member's token that lacks the scope asked for; where none is asked for, any one scope.
    other_scope: Expect,
    /// The edge, with a member's own full token.
    member: Expect,
}

const fn row(method: &'static str, anonymous: Expect, other_scope: Expect, member: Expect) -> Row {
    Row { method, stranger: ("content", Denied), anonymous, other_scope, member }
}

/// An RPC between workloads: the edge is as much a stranger to it as anyone.
const fn internal(method: &'static str, stranger: &'static str) -> Row {
    Row { method, stranger: (stranger, Denied), anonymous: Denied, other_scope: Denied, member: Denied }
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    row("/guildhall.auth.v1.AccountService/Register",                  Passes,          Passes,  Passes),
    row("/guildhall.auth.v1.AccountService/VerifyEmail",               Passes,          Passes,  Passes),
    row("/guildhall.auth.v1.AccountService/RequestPasswordReset",      Passes,          Passes,  Passes),
    row("/guildhall.auth.v1.AccountService/ResetPassword",             Passes,          Passes,  Passes),
    row("/guildhall.auth.v1.AccountService/Login",                     Passes,          Passes,  Passes),
    row("/guildhall.auth.v1.AccountService/GetMe",                     Unauthenticated, Passes,  Passes),
    row("/guildhall.auth.v1.AccountService/UpdateMe",                  Unauthenticated, Denied,  Passes),
    row("/guildhall.auth.v1.AccountService/GetUser",                   Passes,          Passes,  Passes),
    row("/guildhall.auth.v1.AccountService/ListUsers",                 Unauthenticated, Denied,  Denied),
    row("/guildhall.auth.v1.AccountService/GetSettings",               Unauthenticated, Passes,  Passes),
    row("/guildhall.auth.v1.AccountService/UpdateSettings",            Unauthenticated, Denied,  Passes),
    row("/guildhall.auth.v1.AccountService/ListSessions",              Unauthenticated, Passes,  Passes),
    row("/guildhall.auth.v1.AccountService/RevokeSession",             Unauthenticated, Passes,  Passes),
    row("/guildhall.auth.v1.AccountService/SetRoles",                  Unauthenticated, Denied,  Denied),
    row("/guildhall.auth.v1.AccountService/SetTier",                   Unauthenticated, Denied,  Denied),
    row("/guildhall.auth.v1.AccountService/Suspend",                   Unauthenticated, Denied,  Denied),
    row("/guildhall.auth.v1.AccountService/Reinstate",                 Unauthenticated, Denied,  Denied),
    internal("/guildhall.auth.v1.ProfileService/BatchGetProfiles", "operator"),
    row("/guildhall.content.v1.PostService/CreatePost",                Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.PostService/GetPost",                   Passes,          Passes,  Passes),
    row("/guildhall.content.v1.PostService/LookUpPost",                Passes,          Passes,  Passes),
    row("/guildhall.content.v1.PostService/ListPosts",                 Passes,          Passes,  Passes),
    row("/guildhall.content.v1.PostService/UpdatePost",                Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.PostService/DeletePost",                Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.PostService/UndeletePost",              Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.PostService/PublishPost",               Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.PostService/UnpublishPost",             Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.PostService/ListPostVersions",          Unauthenticated, Passes,  Passes),
    row("/guildhall.content.v1.PostService/GetPostVersion",            Unauthenticated, Passes,  Passes),
    row("/guildhall.content.v1.PostService/DiffPostVersions",          Unauthenticated, Passes,  Passes),
    row("/guildhall.content.v1.PostService/RestorePostVersion",        Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.PostService/SearchPosts",               Passes,          Passes,  Passes),
    row("/guildhall.content.v1.PostService/LikePost",                  Unauthenticated, Passes,  Passes),
    row("/guildhall.content.v1.PostService/UnlikePost",                Unauthenticated, Passes,  Passes),
    row("/guildhall.content.v1.PostService/RecordView",                Passes,          Passes,  Passes),
    row("/guildhall.content.v1.PostService/GetPostStatistics",         Passes,          Passes,  Passes),
    row("/guildhall.content.v1.PostService/ImportPosts",               Unauthenticated, Denied,  Denied),
    row("/guildhall.content.v1.PostService/ExportPosts",               Unauthenticated, Denied,  Denied),
    row("/guildhall.content.v1.CategoryService/GetCategory",           Passes,          Passes,  Passes),
    row("/guildhall.content.v1.CategoryService/ListCategories",        Passes,          Passes,  Passes),
    row("/guildhall.content.v1.CategoryService/CreateCategory",        Unauthenticated, Denied,  Denied),
    row("/guildhall.content.v1.CategoryService/UpdateCategory",        Unauthenticated, Denied,  Denied),
    row("/guildhall.content.v1.CategoryService/DeleteCategory",        Unauthenticated, Denied,  Denied),
    row("/guildhall.content.v1.CategoryService/MoveCategory",          Unauthenticated, Denied,  Denied),
    row("/guildhall.content.v1.TagService/ListTags",                   Passes,          Passes,  Passes),
    row("/guildhall.content.v1.TagService/RenameTag",                  Unauthenticated, Denied,  Denied),
    row("/guildhall.content.v1.TagService/MergeTags",                  Unauthenticated, Denied,  Denied),
    row("/guildhall.content.v1.PortfolioService/GetPortfolio",         Passes,          Passes,  Passes),
    row("/guildhall.content.v1.PortfolioService/UpdatePortfolio",      Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.PortfolioService/ListResumeEntries",    Passes,          Passes,  Passes),
    row("/guildhall.content.v1.PortfolioService/CreateResumeEntry",    Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.PortfolioService/UpdateResumeEntry",    Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.PortfolioService/DeleteResumeEntry",    Unauthenticated, Denied,  Passes),
    row("/guildhall.content.v1.FeedService/GetAtomFeed",               Passes,          Passes,  Passes),
    row("/guildhall.content.v1.FeedService/GetRssFeed",                Passes,          Passes,  Passes),
    row("/guildhall.content.v1.FeedService/GetSitemap",                Passes,          Passes,  Passes),
    internal("/guildhall.common.v1.DeadLetterService/List", "content"),
    internal("/guildhall.common.v1.DeadLetterService/Replay", "content"),
];

/// Open to every workload of the trust domain: there is no stranger but one from outside, whom TLS refuses.
const OPEN_TO_WORKLOADS: &[&str] =
    &["/guildhall.auth.v1.TokenService/Introspect", "/guildhall.auth.v1.TokenService/ExchangeSvid"];

#[test]
fn every_rpc_of_the_contract_has_a_row() {
    let written: BTreeSet<&str> = TABLE.iter().map(|row| row.method).chain(OPEN_TO_WORKLOADS.iter().copied()).collect();
    let declared: BTreeSet<&str> = contracts::METHODS.iter().map(|method| method.path).collect();
    let missing: Vec<_> = declared.difference(&written).collect();
    let stale: Vec<_> = written.difference(&declared).collect();
    assert!(missing.is_empty(), "no row says who is refused by {missing:?}");
    assert!(stale.is_empty(), "these rows name no RPC: {stale:?}");
}

#[tokio::test]
async fn the_services_and_the_edge_refuse_whom_the_table_says() {
    let guildhall = guildhall!();
    let ada = guildhall.member("Ada").await;
    let (without_profile, without_content) =
        (narrowed(&guildhall, "content.write").await, narrowed(&guildhall, "profile").await);
    let admin = guildhall.admin().await;
    let forged = token::forged(&admin);
    let expired = token::aged(&guildhall, &admin, Duration::from_mins(11)).await;
    let edge = Endpoint::from_shared(guildhall.dev.http.clone()).expect("an address").connect_lazy();
    let mut wrong = Vec::new();
    for row in TABLE {
        let service = service_of(row.method);
        let other_scope = if service == "auth" { &without_profile } else { &without_content };
        let (stranger, refused) = row.stranger;
        let direct = as_workload(&guildhall, stranger, service).await;
        let outcome = raw::call(direct, row.method, Some(&admin), &[]).await;
        check(&mut wrong, row.method, &format!("the workload {stranger}"), refused, &outcome);

        let direct = as_workload(&guildhall, "edge-gateway", service).await;
        let internal = row.anonymous == Denied;
        let bad_token = if internal { Denied } else { Unauthenticated };
        let callers = [
            ("a forged token", Some(forged.as_str()), bad_token),
            ("an expired token", Some(expired.as_str()), bad_token),
            ("no token", None, row.anonymous),
            ("another scope", Some(other_scope.as_str()), row.other_scope),
            ("a member", Some(ada.token.as_str()), row.member),
        ];
        for (who, token, expected) in callers {
            let outcome = raw::call(direct.clone(), row.method, token, &[]).await;
            check(&mut wrong, row.method, &format!("the edge with {who}"), expected, &outcome);
            let outcome = raw::call(edge.clone(), row.method, token, &[]).await;
            if internal {
                assert_eq!(raw::code(&outcome), Code::Unimplemented, "{} is not offered by the edge", row.method);
            } else {
                check(&mut wrong, row.method, &format!("the public port with {who}"), expected, &outcome);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(wrong: &mut Vec<String>, method: &str, who: &str, expected: Expect, outcome: &Result<Vec<u8>, tonic::Status>) {
    let code = raw::code(outcome);
    let right = match expected {
        Unauthenticated => code == Code::Unauthenticated,
        Denied => code == Code::PermissionDenied,
        Passes => matches!(code, Code::Ok | Code::InvalidArgument | Code::NotFound),
    };
    if !right {
        wrong.push(format!("{method} by {who}: expected {expected:?}, got {outcome:?}"));
    }
}

fn service_of(method: &str) -> &'static str {
    // The dead letters of every service are behind the same rule; content's stand for all.
    if method.starts_with("/guildhall.auth.") { "auth" } else { "content" }
}

/// A token of somebody whose refresh token was used for one scope only.
async fn narrowed(guildhall: &Guildhall, scope: &str) -> String {
    let person = guildhall.member(&format!("Only-{scope}")).await;
    let answer = guildhall.refresh(&person.refresh_token, Some(scope)).await.expect_status(200).json();
    answer["access_token"].as_str().expect("a token").to_owned()
}

async fn as_workload(guildhall: &Guildhall, workload: &str, service: &str) -> mesh::Channel {
    let identity = Identity::connect(IdentitySettings {
        endpoint: guildhall.dev.identities[workload].clone(),
        trust_domain: guildhall.dev.trust_domain.clone(),
        namespace: "guildhall".to_owned(),
    })
    .await
    .expect("the agent knows the workload");
    let address = guildhall.dev.services[service].grpc.parse().expect("an address");
    mesh::connect(&identity, service.parse().expect("a workload"), address)
}
