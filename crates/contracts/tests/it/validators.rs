use contracts::auth::v1::{ListUsersRequest, RegisterRequest, SetRolesRequest, UpdateMeRequest, User};
use contracts::common::v1::DeadLetterServiceReplayRequest;
use contracts::content::v1::look_up_post_request::By;
use contracts::content::v1::{
    CreatePostRequest, CreateResumeEntryRequest, GetPostVersionRequest, ImportPostsRequest, ListPostsRequest,
    LookUpPostRequest, Portfolio, Post, UpdatePortfolioRequest, UpdatePostRequest, resume_entry,
};
use contracts::{Validate, violations};
use proptest::prelude::*;
use prost_types::{FieldMask, Timestamp};

const ID: &str = "0190b6a2-7c3e-7abc-8def-0123456789ab";

/// Each violation as `field: description`.
fn faults(message: &impl Validate) -> Vec<String> {
    violations(message).into_iter().map(|fault| format!("{}: {}", fault.field, fault.description)).collect()
}

fn register() -> RegisterRequest {
    RegisterRequest {
        email: "ada@example.org".to_owned(),
        password: "correct horse".to_owned(),
        display_name: "Ada".to_owned(),
    }
}

fn post(title: &str) -> CreatePostRequest {
    CreatePostRequest { title: title.to_owned(), markdown: "# Hi".to_owned(), ..Default::default() }
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

#[test]
fn a_good_registration_has_no_violations() {
    assert_eq!(faults(&register()), [""; 0]);
}

#[test]
fn an_empty_registration_names_every_field_in_the_order_of_the_contract() {
    assert_eq!(
        faults(&RegisterRequest::default()),
        ["email: must be an e-mail address", "password: must not be empty", "displayName: must not be empty"]
    );
}

#[test]
fn lengths_count_characters_and_not_bytes() {
    let name = |count| RegisterRequest { display_name: "각".repeat(count), ..register() };
    assert_eq!(faults(&name(80)), [""; 0]);
    assert_eq!(faults(&name(81)), ["displayName: must have at most 80 characters"]);
    let password = |count| RegisterRequest { password: "ü".repeat(count), ..register() };
    assert_eq!(faults(&password(9)), ["password: must have at least 10 characters"]);
    assert_eq!(faults(&password(10)), [""; 0]);
}

#[test]
fn max_bytes_counts_bytes() {
    let markdown = |text: String| CreatePostRequest { markdown: text, ..post("T") };
    assert_eq!(faults(&markdown("각".repeat(333_333))), [""; 0]);
    assert_eq!(faults(&markdown("각".repeat(333_334))), ["markdown: must have at most 1000000 bytes"]);
}

#[test]
fn email_addresses_follow_the_definition_of_html() {
    let email = |email: &str| RegisterRequest { email: email.to_owned(), ..register() };
    let long_label = "a".repeat(63);
    for good in ["a@b", "a.b+c@d-e.example", "!#$%&'*+/=?^_`{|}~-@x.y", &format!("a@{long_label}.de")] {
        assert_eq!(faults(&email(good)), [""; 0], "{good}");
    }
    let too_long_label = format!("a@{}.de", "a".repeat(64));
    for bad in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@-b", "a@b-", "a@b..c", "a@b.c\n", "ä@b.c", &too_long_label] {
        assert_eq!(faults(&email(bad)), ["email: must be an e-mail address"], "{bad:?}");
    }
}

#[test]
fn no_string_may_hold_nul_with_rules_or_without_and_wherever_it_stands() {
    assert_eq!(faults(&post("a\0b")), ["title: must not contain the character U+0000"]);
    let update = UpdatePostRequest {
        post_id: ID.to_owned(),
        post: Some(Post { etag: "\0".to_owned(), tags: texts(["a", "b\0"]), ..Default::default() }),
        update_mask: Some(FieldMask { paths: texts(["ti\0tle"]) }),
    };
    assert_eq!(
        faults(&update),
        [
            "post.etag: must not contain the character U+0000",
            "post.tags[1]: must not contain the character U+0000",
            "updateMask: must not contain the character U+0000",
        ]
    );
}

#[test]
fn nested_fields_are_named_by_their_json_path() {
    let update = UpdatePostRequest {
        post_id: ID.to_owned(),
        post: Some(Post { category_id: "x".to_owned(), tags: texts(["a", "b", "c", ""]), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(faults(&update), ["post.categoryId: must be a UUID", "post.tags[3]: must not be empty"]);
}

#[test]
fn a_list_that_is_too_long_is_not_looked_at_any_further() {
    let request = CreatePostRequest { tags: vec![String::new(); 100_000], ..post("T") };
    assert_eq!(faults(&request), ["tags: must have at most 20 items"]);
}

#[test]
fn no_more_violations_are_told_than_headers_can_carry() {
    let replay = DeadLetterServiceReplayRequest { ids: vec!["x".to_owned(); 1000], ..Default::default() };
    let violations = violations(&replay);
    assert_eq!(violations.len(), 20);
    assert_eq!(violations[19].field, "ids[19]");
}

#[test]
fn page_sizes_may_be_large_and_not_negative() {
    let list = |page_size| ListPostsRequest { page_size, ..Default::default() };
    assert_eq!(faults(&list(0)), [""; 0]);
    assert_eq!(faults(&list(i32::MAX)), [""; 0]);
    assert_eq!(faults(&list(-1)), ["pageSize: must be at least 0"]);
    let version = GetPostVersionRequest { post_id: ID.to_owned(), version: 0 };
    assert_eq!(faults(&version), ["version: must be at least 1"]);
}

#[test]
fn a_rule_is_ignored_for_an_empty_field_where_the_contract_says_so() {
    let author = |author: &str| ListPostsRequest { author: author.to_owned(), ..Default::default() };
    assert_eq!(faults(&author("")), [""; 0]);
    assert_eq!(faults(&author(ID)), [""; 0]);
    assert_eq!(faults(&author(&ID.to_uppercase())), [""; 0]);
    for bad in ["me", &ID.replace('-', ""), &format!("{{{ID}}}"), &format!("urn:uuid:{ID}"), &ID[1..]] {
        assert_eq!(faults(&author(bad)), ["author: must be a UUID"], "{bad}");
    }
}

#[test]
fn roles_are_known_and_named_once() {
    let roles = |roles| SetRolesRequest { user_id: ID.to_owned(), roles, ..Default::default() };
    assert_eq!(faults(&roles(texts(["member", "admin"]))), [""; 0]);
    assert_eq!(faults(&roles(vec![])), ["roles: must have at least 1 item"]);
    assert_eq!(faults(&roles(texts(["admin", "member", "admin"]))), ["roles[2]: must not be there twice"]);
    assert_eq!(
        faults(&roles(texts(["member", "owner"]))),
        ["roles[1]: must be one of member, moderator, operator, admin"]
    );
    let role = ListUsersRequest { role: "owner".to_owned(), ..Default::default() };
    assert_eq!(faults(&role), ["role: must be one of member, moderator, operator, admin"]);
}

#[test]
fn links_are_absolute_uris_of_the_web() {
    let links = |link: &str| UpdatePortfolioRequest {
        user_id: ID.to_owned(),
        portfolio: Some(Portfolio { links: texts(["https://example.org/a?b=c#d", link]), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(faults(&links("http://[::1]:8080/%20")), [""; 0]);
    for bad in ["example.org", "/a", "https://a b", "https://a/%zz", "https://a/<script>", ""] {
        assert_eq!(faults(&links(bad)), ["portfolio.links[1]: must be an absolute URI"], "{bad}");
    }
    for bad in ["javascript:alert(1)", "ftp://example.org"] {
        assert_eq!(faults(&links(bad)), ["portfolio.links[1]: must match ^https?://"], "{bad}");
    }
}

#[test]
fn a_required_message_must_be_given() {
    assert_eq!(faults(&UpdateMeRequest::default()), ["user: must be given"]);
    let empty = UpdateMeRequest { user: Some(User::default()), ..Default::default() };
    assert_eq!(faults(&empty), [""; 0]);
}

#[test]
fn a_required_oneof_needs_one_and_checks_the_one_it_has() {
    assert_eq!(faults(&LookUpPostRequest::default()), ["by: needs one of slug, path"]);
    let by = |by| LookUpPostRequest { by: Some(by) };
    assert_eq!(faults(&by(By::Slug("a-post".to_owned()))), [""; 0]);
    assert_eq!(faults(&by(By::Slug(String::new()))), ["slug: must not be empty"]);
    assert_eq!(faults(&by(By::Path("x".repeat(401)))), ["path: must have at most 400 characters"]);
}

#[test]
fn enums_take_defined_values_and_not_those_that_are_ruled_out() {
    let entry = |kind| CreateResumeEntryRequest {
        user_id: ID.to_owned(),
        kind,
        title: "T".to_owned(),
        start_month: "2020-06".to_owned(),
        ..Default::default()
    };
    assert_eq!(faults(&entry(resume_entry::Kind::Award.into())), [""; 0]);
    assert_eq!(faults(&entry(0)), ["kind: must be given"]);
    assert_eq!(faults(&entry(99)), ["kind: must be a value of the enum"]);
}

#[test]
fn a_pattern_matches_the_whole_text() {
    let locale = |language: &str| CreatePostRequest { language: language.to_owned(), ..post("T") };
    assert_eq!(faults(&locale("pt-BR")), [""; 0]);
    for bad in ["x", "en\n", "en_US", "en-"] {
        assert_eq!(faults(&locale(bad)), ["language: must match ^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"], "{bad:?}");
    }
}

#[test]
fn times_lie_within_the_years_that_protobuf_allows() {
    let import = |publish_time| ImportPostsRequest {
        source_id: "s".to_owned(),
        title: "T".to_owned(),
        publish_time,
        ..Default::default()
    };
    let at = |seconds, nanos| import(Some(Timestamp { seconds, nanos }));
    assert_eq!(faults(&import(None)), ["publishTime: must be given"]);
    assert_eq!(faults(&at(-62_135_596_800, 0)), [""; 0]);
    assert_eq!(faults(&at(253_402_300_799, 999_999_999)), [""; 0]);
    for (seconds, nanos) in [(-62_135_596_801, 0), (253_402_300_800, 0), (0, -1), (0, 1_000_000_000)] {
        assert_eq!(
            faults(&at(seconds, nanos)),
            ["publishTime: must be a time within the years 0001 to 9999"],
            "{seconds} {nanos}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_judged_without_panic(markdown in any::<String>()) {
        let broken = !violations(&CreatePostRequest { markdown: markdown.clone(), ..post("title") }).is_empty();
        prop_assert_eq!(broken, markdown.contains('\0'));
    }

    #[test]
    fn a_title_of_letters_is_judged_by_its_length(title in "[a-z가-힣 é]{0,20}|[a-z가-힣]{290,310}") {
        let broken = !violations(&post(&title)).is_empty();
        prop_assert_eq!(broken, title.trim().is_empty() || title.chars().count() > 300);
    }
}

#[test]
fn a_name_is_one_line_with_something_to_see() {
    for title in ["\u{200b}", " ", "a\nb", "a\u{202e}b", "a\u{1}", "\u{3164}", "a\u{feff}"] {
        let fault = "title: must be one line with something to see, without control or invisible characters";
        assert_eq!(faults(&post(title)), [fault], "{title:?}");
    }
    for title in ["👩‍👩‍👧", "می‌خواهم", "한글", "a b", "é"] {
        assert!(faults(&post(title)).is_empty(), "{title:?}");
    }
}
