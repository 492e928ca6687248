//! Points 1 to 6 of the gateway's bar: templates, decoding, verbs, methods; and what fails when a table is loaded.
use edge_gateway::transcode::{Routed, Table, table};
use http::Method;
use serde_json::json;
use status::Reason;

use crate::{KITCHEN, arrives, find, pool, refused};

#[test]
fn a_one_segment_variable_decodes_a_slash_and_a_longer_one_keeps_it() {
    arrives("GET /items/a%2Fb%20c", "", json!({"id": "a/b c"}));
    arrives("GET /files/a%2Fb/c%20d%2fe", "", json!({"id": "a%2Fb/c d%2fe"}));
    arrives(
        "GET /books/le%2Fguin/123/x%2Fy",
        "",
        json!({"id": "le%2Fguin/123/x%2Fy", "author": "le/guin", "isbn": "123"}),
    );
}

#[test]
fn a_plus_in_a_path_stays_a_plus() {
    arrives("GET /items/a+b%2Bc", "", json!({"id": "a+b+c"}));
    arrives("GET /query?text=a+b%2Bc", "", json!({"text": "a b+c"}));
}

#[test]
fn an_unregistered_verb_stays_in_the_value_and_a_registered_one_wins() {
    arrives("GET /items/a:b", "", json!({"id": "a:b"}));
    arrives("GET /items/a%3Amove", "", json!({"id": "a:move"}));
    arrives("POST /items/a:move", "", json!({"id": "a"}));
    arrives("POST /items/a:b:move", "", json!({"id": "a:b"}));
    match KITCHEN.route(&Method::GET, "/items/a:move") {
        Routed::MethodNotAllowed { allow } => assert_eq!(allow, [Method::OPTIONS, Method::POST]),
        _ => panic!("a registered verb has its own methods"),
    }
}

#[test]
fn two_stars_match_across_prefixes_or_nothing_and_a_literal_may_follow() {
    arrives("POST /items/a/b:run", "", json!({"id": "items/a/b"}));
    arrives("POST /x:run", "", json!({"id": "x"}));
    arrives("GET /files", "", json!({}));
    arrives("GET /files/", "", json!({}));
    arrives("GET /trees/a/b/leaves/c", "", json!({"id": "a/b", "author": "c"}));
    arrives("GET /trees/leaves/c", "", json!({"author": "c"}));
}

#[test]
fn the_methods_of_every_fitting_template_are_allowed_and_head_is_served_by_get() {
    let allow = |path: &str| match KITCHEN.route(&Method::TRACE, path) {
        Routed::MethodNotAllowed { allow } => allow.iter().map(Method::to_string).collect::<Vec<_>>().join(" "),
        Routed::NotFound => "nothing".to_owned(),
        Routed::Found(_) => "a route".to_owned(),
    };
    assert_eq!(allow("/items/a"), "GET HEAD OPTIONS");
    assert_eq!(allow("/dishes/a"), "DELETE OPTIONS PATCH PUT");
    assert_eq!(allow("/slugs/a"), "GET HEAD OPTIONS POST");
    assert_eq!(allow("/echo"), "LINK OPTIONS POST");
    assert_eq!(allow("/nowhere/at/all"), "nothing");
    assert_eq!(find("HEAD /items/a").0.template(), "/items/{id}");
}

#[test]
fn nested_captures_fill_the_outer_and_the_inner_fields() {
    arrives("GET /books/a/b/c", "", json!({"id": "a/b/c", "author": "a", "isbn": "b"}));
}

#[test]
fn variables_are_read_as_their_fields_types() {
    let expected = json!({
        "int32": -5, "flag": true, "kind": "SALTY", "time": "2026-01-31T12:00:00Z", "data": "+/8=", "stringValue": "x", "child": {"text": "y"},
    });
    arrives("GET /typed/-5/true/SALTY/2026-01-31T12%3A00%3A00Z/-_8/x/y", "", expected.clone());
    arrives("GET /typed/-5/true/2/2026-01-31T12:00:00Z/%2B%2F8=/x/y", "", expected);
    for (path, field) in [
        ("x/true/1/2026-01-31T12:00:00Z/AA/x/y", "int32"),
        ("1/yes/1/2026-01-31T12:00:00Z/AA/x/y", "flag"),
        ("1/true/SOUR/2026-01-31T12:00:00Z/AA/x/y", "kind"),
        ("1/true/1/yesterday/AA/x/y", "time"),
        ("1/true/1/2026-01-31T12:00:00Z/%20/x/y", "data"),
    ] {
        refused(&format!("GET /typed/{path}"), "", Reason::InvalidFields, field);
    }
}

#[test]
fn a_malformed_escape_in_a_path_is_a_bad_request() {
    for path in ["/items/%zz", "/items/%ff", "/items/a%2", "/files/a/%"] {
        refused(&format!("GET {path}"), "", Reason::MalformedRequest, "");
    }
}

#[test]
fn a_bad_table_fails_when_it_is_loaded() {
    let failure = |name: &str| Table::from_pool(pool(&format!("bad_{name}.proto"))).err().expect("a bad table");
    assert!(matches!(failure("template"), table::Error::Template { .. }));
    assert!(matches!(failure("variable"), table::Error::Variable { field, .. } if field == "nothing"));
    assert!(matches!(failure("list"), table::Error::Variable { field, .. } if field == "paths"));
    assert!(matches!(failure("body"), table::Error::BodyField { role: "body", .. }));
    assert!(matches!(failure("response"), table::Error::BodyField { role: "response body", .. }));
    assert!(matches!(failure("pattern"), table::Error::Pattern { .. }));
    assert!(matches!(failure("header"), table::Error::Rpc(_)));
    let error = failure("duplicate");
    assert_eq!(error.to_string(), "/bad.v1.Bad/One and /bad.v1.Bad/Two have the same route: GET /a/{name}/b");
}
