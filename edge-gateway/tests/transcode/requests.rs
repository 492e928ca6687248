//! Points 7 to 11 and 13 of the gateway's bar: which part of a request says what, queries, bodies, masks and malformed JSON.
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};
use status::Reason;

use crate::{arrives, canonical, find, headers, refused, send};

#[test]
fn the_path_beats_the_body_and_the_body_beats_the_query() {
    arrives("GET /slugs/path?slug=query", "", json!({"slug": "path"}));
    arrives("POST /slugs/path", r#"{"slug": "body", "text": "x"}"#, json!({"slug": "path", "text": "x"}));
    arrives(
        "POST /child?child.text=query&child.flag=true&int32=1",
        r#"{"text": "body"}"#,
        json!({"child": {"text": "body"}, "int32": 1}),
    );
    arrives("POST /child/path", r#"{"text": "body", "int32": 1}"#, json!({"child": {"text": "path", "int32": 1}}));
}

#[test]
fn a_field_sent_at_its_default_still_counts_as_sent() {
    arrives("POST /child?child.int32=5", r#"{"int32": 0}"#, json!({"child": {}}));
    arrives("POST /echo", r#"{"maybe": 0, "slug": ""}"#, json!({"maybe": 0, "slug": ""}));
    let with = |request: &str, body: &str| {
        let problem = send(request, &[("if-match", "\"h\""), ("idempotency-key", "k")], body.as_bytes()).unwrap_err();
        problem.violation_list()[0].field.clone()
    };
    assert_eq!(with("POST /dishes", r#"{"requestId": ""}"#), "requestId");
    assert_eq!(with("PATCH /dishes/1", r#"{"etag": ""}"#), "dish.etag");
    assert_eq!(with("DELETE /dishes/1?etag=", ""), "etag");
}

#[test]
fn a_body_that_is_the_message_leaves_nothing_to_the_query() {
    refused("POST /echo?text=a", "{}", Reason::UnknownField, "text");
    refused("POST /echo?nothing", "", Reason::UnknownField, "nothing");
    arrives("POST /echo?", "{}", json!({}));
    arrives("POST /echo?&", "{}", json!({}));
}

#[test]
fn a_request_without_a_body_rule_takes_no_body() {
    refused("GET /query", "{}", Reason::MalformedRequest, "");
    refused("DELETE /dishes/1", " ", Reason::MalformedRequest, "");
}

#[test]
fn a_query_takes_both_names_repeated_keys_and_every_form_of_a_value() {
    for (query, expected) in [
        ("maybe_text=a", json!({"maybeText": "a"})),
        ("maybeText=a", json!({"maybeText": "a"})),
        ("new-name=a", json!({"new-name": "a"})),
        ("renamed=a", json!({"new-name": "a"})),
        ("texts=a&texts=b,c&texts=", json!({"texts": ["a", "b,c", ""]})),
        ("numbers=1&numbers=-2", json!({"numbers": ["1", "-2"]})),
        ("kind=SWEET&kinds=2&kinds=SWEET&kinds=7", json!({"kind": "SWEET", "kinds": ["SALTY", "SWEET", 7]})),
        ("data=-_8", json!({"data": "+/8="})),
        ("data=%2B%2F8%3D", json!({"data": "+/8="})),
        ("child.child.text=a&child.int32=1", json!({"child": {"child": {"text": "a"}, "int32": 1}})),
        ("child.maybe_text=a&child.new-name=b", json!({"child": {"maybeText": "a", "new-name": "b"}})),
        ("time=2026-01-31T12:00:00.5%2B02:00", json!({"time": "2026-01-31T10:00:00.500Z"})),
        (
            "times=2026-01-31T12:00:00Z&times=1969-12-31T23:59:59Z",
            json!({"times": ["2026-01-31T12:00:00Z", "1969-12-31T23:59:59Z"]}),
        ),
        ("duration=-1.5s", json!({"duration": "-1.500s"})),
        ("mask=child.maybeText,flag", json!({"mask": "child.maybeText,flag"})),
        ("mask=child.maybe_text,flag", json!({"mask": "child.maybeText,flag"})),
        ("mask=", json!({"mask": ""})),
        ("stringValue=&int64_value=7", json!({"stringValue": "", "int64Value": "7"})),
        (
            "boolValue=false&doubleValue=1.5&bytesValue=AA",
            json!({"boolValue": false, "doubleValue": 1.5, "bytesValue": "AA=="}),
        ),
        ("value=%7B%22a%22:[1,null]%7D", json!({"value": {"a": [1.0, null]}})),
        ("value=null", json!({"value": null})),
        ("struct=%7B%22a%22:1%7D&list=[1]", json!({"struct": {"a": 1.0}, "list": [1.0]})),
        (
            "float=1e2&double=-Infinity&uint64=18446744073709551615",
            json!({"float": 100.0, "double": "-Infinity", "uint64": "18446744073709551615"}),
        ),
        ("maybe=0&flag=false&text", json!({"maybe": 0})),
        ("shown=a&child.shown=b", json!({})),
        ("text=%EA%B0%80+%26%3D", json!({"text": "가 &="})),
    ] {
        arrives(&format!("GET /query?{query}"), "", expected);
    }
}

#[test]
fn a_query_that_names_no_field_or_no_value_is_refused_with_the_fields_name() {
    for (query, reason, field) in [
        ("nothing=1", Reason::UnknownField, "nothing"),
        ("child.nothing=1", Reason::UnknownField, "child.nothing"),
        ("text.a=1", Reason::UnknownField, "text.a"),
        ("children.text=1", Reason::UnknownField, "children.text"),
        ("labels.a=1", Reason::UnknownField, "labels.a"),
        ("time.seconds=1", Reason::UnknownField, "time.seconds"),
        ("=1", Reason::UnknownField, ""),
        ("child.=1", Reason::UnknownField, "child."),
        ("child=1", Reason::InvalidFields, "child"),
        ("labels=1", Reason::InvalidFields, "labels"),
        ("children=1", Reason::InvalidFields, "children"),
        ("any=1", Reason::InvalidFields, "any"),
        ("value=a", Reason::InvalidFields, "value"),
        ("struct=[]", Reason::InvalidFields, "struct"),
        ("int32=", Reason::InvalidFields, "int32"),
        ("int32=1.5", Reason::InvalidFields, "int32"),
        ("int32=%2B1", Reason::InvalidFields, "int32"),
        ("int32=2147483648", Reason::InvalidFields, "int32"),
        ("uint32=-1", Reason::InvalidFields, "uint32"),
        ("double=inf", Reason::InvalidFields, "double"),
        ("double=1e999", Reason::InvalidFields, "double"),
        ("float=1e39", Reason::InvalidFields, "float"),
        ("flag=1", Reason::InvalidFields, "flag"),
        ("kind=SOUR", Reason::InvalidFields, "kind"),
        ("time=2026-02-30T00:00:00Z", Reason::InvalidFields, "time"),
        ("time=0000-01-01T00:00:00Z", Reason::InvalidFields, "time"),
        ("duration=1", Reason::InvalidFields, "duration"),
        ("mask=a,,b", Reason::InvalidFields, "mask"),
        ("mask=a.", Reason::InvalidFields, "mask"),
        ("mask=a+b", Reason::InvalidFields, "mask"),
        ("text=a&text=b", Reason::InvalidFields, "text"),
        ("maybe_text=a&maybeText=b", Reason::InvalidFields, "maybeText"),
    ] {
        let request = format!("GET /query?{query}");
        if field.is_empty() {
            assert_eq!(send(&request, &[], b"").unwrap_err().reason(), reason);
        } else {
            refused(&request, "", reason, field);
        }
    }
    for query in ["text=%zz", "%=a", "text=%ff"] {
        refused(&format!("GET /query?{query}"), "", Reason::MalformedRequest, "");
    }
    let deep = vec!["child"; 101].join(".") + ".text=a";
    assert_eq!(send(&format!("GET /query?{deep}"), &[], b"").unwrap_err().reason(), Reason::UnknownField);
}

#[test]
fn two_members_of_a_oneof_are_refused_wherever_they_come_from() {
    refused("GET /query?slug=a&number=1", "", Reason::InvalidFields, "number");
    refused("GET /query?number=0&other.text=a", "", Reason::InvalidFields, "other");
    refused("GET /slugs/a?number=0", "", Reason::InvalidFields, "slug");
    refused("POST /slugs/a", r#"{"number": 1}"#, Reason::InvalidFields, "slug");
    refused("POST /echo", r#"{"slug": "", "number": 0}"#, Reason::InvalidFields, "number");
    refused("POST /echo", r#"{"child": {"number": 1, "other": {}}}"#, Reason::InvalidFields, "child.other");
    arrives("POST /echo", r#"{"slug": null, "number": 0}"#, json!({"number": 0}));
    arrives("GET /query?other.text=a&other.flag=true", "", json!({"other": {"text": "a", "flag": true}}));
}

#[test]
fn a_body_may_be_a_scalar_a_list_a_map_or_any_value() {
    arrives("POST /text", r#""a""#, json!({"text": "a"}));
    arrives("POST /texts", r#"["a", "b"]"#, json!({"texts": ["a", "b"]}));
    arrives("POST /texts?texts=q&flag=true", r#"["a"]"#, json!({"texts": ["a"], "flag": true}));
    arrives("POST /labels", r#"{"a": "b"}"#, json!({"labels": {"a": "b"}}));
    arrives("POST /value", r#"{"a": [true]}"#, json!({"value": {"a": [true]}}));
    refused("POST /text", "1", Reason::InvalidFields, "text");
    refused("POST /texts", r#"["a", 1]"#, Reason::InvalidFields, "texts[1]");
    refused("POST /labels", r#"{"a": 1}"#, Reason::InvalidFields, r#"labels["a"]"#);
    refused("POST /child", "[]", Reason::InvalidFields, "child");
}

#[test]
fn no_body_is_not_an_empty_object_and_that_is_not_null() {
    arrives("POST /child", "", json!({}));
    arrives("POST /child", "{}", json!({"child": {}}));
    arrives("POST /child", "null", json!({}));
    arrives("POST /value", "", json!({}));
    arrives("POST /value", "{}", json!({"value": {}}));
    arrives("POST /value", "null", json!({"value": null}));
    arrives("POST /echo", "", json!({}));
    arrives("POST /echo", "{}", json!({}));
    refused("POST /echo", "null", Reason::MalformedRequest, "");
    refused("POST /echo", " ", Reason::MalformedRequest, "");
    refused("POST /echo", "[]", Reason::MalformedRequest, "");
}

#[test]
fn a_raw_body_goes_into_an_http_body_untouched() {
    let lines = [("content-type", "image/png")];
    let upload = |request: &str, lines: &[(&str, &str)], body: &[u8]| send(request, lines, body).unwrap();
    let expected = json!({"name": "a", "priority": 2, "file": {"contentType": "image/png", "data": "/wAK"}});
    assert_eq!(upload("POST /uploads/a?priority=2", &lines, &[0xff, 0, 10]), expected);
    assert_eq!(upload("POST /raw", &lines, b"\n"), json!({"contentType": "image/png", "data": "Cg=="}));
    assert_eq!(upload("POST /raw", &lines, b""), json!({"contentType": "image/png"}));
    assert_eq!(upload("POST /uploads/a", &[], b""), json!({"name": "a"}));
    assert_eq!(upload("POST /uploads/a", &[], b"x"), json!({"name": "a", "file": {"data": "eA=="}}));
}

#[test]
fn a_body_of_another_media_type_is_refused() {
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "image/json", "json", ""]
    {
        let problem = send("POST /echo", &[("content-type", content_type)], b"{}").unwrap_err();
        assert_eq!(problem.reason(), Reason::UnsupportedMediaType, "{content_type}");
    }
    for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
        assert_eq!(send("POST /echo", &[("content-type", content_type)], b"{}").unwrap(), json!({}));
    }
    assert_eq!(send("POST /echo", &[("content-type", "text/plain")], b"").unwrap(), json!({}));
}

fn mask(body: &str) -> Value {
    send("PATCH /dishes/1", &[], body.as_bytes()).unwrap()["updateMask"].clone()
}

#[test]
fn a_patch_without_a_mask_gets_the_paths_of_its_bodys_keys() {
    assert_eq!(mask(r#"{"name": "a"}"#), "name");
    assert_eq!(mask(r#"{"serveTime": null, "name": "", "portions": 0}"#), "serveTime,name,portions");
    assert_eq!(mask(r#"{"serve_time": "2026-01-31T12:00:00Z"}"#), "serveTime");
    assert_eq!(mask(r#"{"id": "2", "etag": "e", "name": "a"}"#), "name");
    assert_eq!(mask("{}"), "");
}

#[test]
fn a_masks_leaves_are_lists_maps_structs_anys_and_well_known_types() {
    assert_eq!(mask(r#"{"tags": ["a"], "labels": {"a": "b"}, "notes": {"x": {"y": 1}}}"#), "tags,labels,notes");
    assert_eq!(mask(r#"{"extra": {"@type": "x/kitchen.v1.Dish", "name": "a", "cook": {"name": "b"}}}"#), "extra");
    assert_eq!(mask(r#"{"tags": [], "labels": {}, "nickname": "x"}"#), "tags,labels,nickname");
}

#[test]
fn a_masks_path_goes_into_nested_messages() {
    assert_eq!(mask(r#"{"cook": {"name": "a"}}"#), "cook.name");
    assert_eq!(mask(r#"{"cook": {"name": null, "id": "x"}, "name": "b"}"#), "cook.name,cook.id,name");
    assert_eq!(mask(r#"{"cook": {}}"#), "cook");
    assert_eq!(mask(r#"{"cook": null}"#), "cook");
    assert_eq!(mask(r#"{"cook": {"stars": 5}}"#), "");
}

#[test]
fn a_mask_that_the_client_sent_is_untouched() {
    let sent = |query: &str| {
        send(&format!("PATCH /dishes/1?{query}"), &[], br#"{"name": "a"}"#).unwrap()["updateMask"].clone()
    };
    assert_eq!(sent("updateMask=tags,cook.name"), "tags,cook.name");
    assert_eq!(sent("update_mask="), "");
    assert_eq!(sent("allowMissing=true"), "name");
}

#[test]
fn only_a_patch_with_a_resource_in_its_body_gets_a_mask() {
    arrives("PUT /dishes/1", r#"{"name": "a"}"#, json!({"dish": {"id": "1", "name": "a"}}));
    arrives("PATCH /dishes/1", "", json!({"dish": {"id": "1"}}));
    arrives("PATCH /dishes/1", "null", json!({"dish": {"id": "1"}}));
}

#[test]
fn output_only_fields_in_a_request_are_ignored() {
    arrives("POST /echo", r#"{"shown": {"no": ["such", "type"]}, "text": "a"}"#, json!({"text": "a"}));
    arrives(
        "POST /echo",
        r#"{"child": {"shown": "a"}, "children": [{"shown": "b"}]}"#,
        json!({"child": {}, "children": [{}]}),
    );
    refused("POST /echo", r#"{"shown": "a", "shown": "b"}"#, Reason::MalformedRequest, "shown");
}

#[test]
fn if_match_and_idempotency_key_fill_what_the_request_left_open() {
    let etag = |value: &str| {
        send("PATCH /dishes/1", &[("if-match", value)], br#"{"name": "a"}"#)
            .map(|message| message["dish"]["etag"].clone())
    };
    for value in ["\"e\"", "W/\"e\"", "e", " \"e\" "] {
        assert_eq!(etag(value).unwrap(), "e");
    }
    assert_eq!(etag("*").unwrap(), Value::Null);
    for value in ["", "\"a\", \"b\"", "\"a", "a,b", "\"\""] {
        let problem = etag(value).unwrap_err();
        assert_eq!((problem.reason(), &*problem.violation_list()[0].field), (Reason::MalformedRequest, "If-Match"));
    }
    let sent = send("PATCH /dishes/1", &[("if-match", "W/\"h\"")], br#"{"etag": "h"}"#).unwrap();
    assert_eq!(sent["dish"]["etag"], "h");
    let sent = send("PATCH /dishes/1", &[("if-match", "\"h\"")], br#"{"name": "a"}"#).unwrap();
    assert_eq!(sent["updateMask"], "name");
    assert_eq!(send("DELETE /dishes/1", &[("if-match", "\"h\"")], b"").unwrap(), json!({"id": "1", "etag": "h"}));
    let create = |key: &str, body: &str| send("POST /dishes", &[("idempotency-key", key)], body.as_bytes());
    assert_eq!(create("k", "{}").unwrap(), json!({"requestId": "k"}));
    assert_eq!(create("\"k\"", "").unwrap(), json!({"requestId": "k"}));
    assert_eq!(create("k", r#"{"request_id": "k"}"#).unwrap(), json!({"requestId": "k"}));
    let empty = create("", "{}").unwrap_err();
    assert_eq!((empty.reason(), &*empty.violation_list()[0].field), (Reason::MalformedRequest, "Idempotency-Key"));
    assert_eq!(
        send("GET /items/1", &[("if-match", "\"h\""), ("idempotency-key", "k")], b"").unwrap(),
        json!({"id": "1"})
    );
}

#[test]
fn a_header_that_contradicts_the_request_or_itself_is_refused() {
    for (request, header, body, field) in [
        ("PATCH /dishes/1", ("if-match", "\"h\""), r#"{"etag": "b"}"#, "dish.etag"),
        ("PATCH /dishes/1", ("if-match", "\"h\""), r#"{"etag": null}"#, "dish.etag"),
        ("DELETE /dishes/1?etag=q", ("if-match", "\"h\""), "", "etag"),
        ("POST /dishes", ("idempotency-key", "k"), r#"{"requestId": "b"}"#, "requestId"),
    ] {
        let problem = send(request, &[header], body.as_bytes()).unwrap_err();
        let violation = &problem.violation_list()[0];
        assert_eq!((problem.reason(), &*violation.field), (Reason::InvalidFields, field), "{request} {body}");
        assert!(violation.description.to_lowercase().contains(header.0), "{violation:?}");
    }
    for (request, name, value) in [("POST /dishes", "idempotency-key", "k"), ("DELETE /dishes/1", "if-match", "e")] {
        let problem = send(request, &[(name, value), (name, value)], b"").unwrap_err();
        assert_eq!(problem.reason(), Reason::MalformedRequest);
        assert_eq!(problem.violation_list()[0].field.to_lowercase(), name);
    }
}

#[test]
fn unknown_fields_are_refused_with_their_json_path() {
    for (request, body, field) in [
        ("POST /echo", r#"{"nothing": 1}"#, "nothing"),
        ("POST /echo", r#"{"child": {"children": [{}, {"nothing": 1}]}}"#, "child.children[1].nothing"),
        ("POST /echo", r#"{"byFlag": {"true": {"nothing": 1}}}"#, r#"byFlag["true"].nothing"#),
        ("POST /echo", r#"{"empty": {"nothing": 1}}"#, "empty.nothing"),
        ("POST /echo", r#"{"any": {"@type": "x/kitchen.v1.Dish", "nothing": 1}}"#, "any.nothing"),
        (
            "POST /echo",
            r#"{"any": {"value": "1s", "@type": "x/google.protobuf.Duration", "nothing": 1}}"#,
            "any.nothing",
        ),
        ("POST /echo", r#"{"TEXT": 1}"#, "TEXT"),
        ("POST /child", r#"{"nothing": 1}"#, "child.nothing"),
        ("PATCH /dishes/1", r#"{"cook": {"nothing": 1}}"#, "dish.cook.nothing"),
    ] {
        refused(request, body, Reason::UnknownField, field);
    }
}

#[test]
fn duplicate_keys_are_refused_with_their_json_path() {
    for (body, field) in [
        (r#"{"text": "a", "text": "a"}"#, "text"),
        (r#"{"maybeText": "a", "maybe_text": "b"}"#, "maybeText"),
        (r#"{"text": null, "text": "a"}"#, "text"),
        (r#"{"child": {"flag": true, "flag": true}}"#, "child.flag"),
        (r#"{"labels": {"a": "b", "a": "c"}}"#, r#"labels["a"]"#),
        (r#"{"byNumber": {"1": 1, "01": 2}}"#, r#"byNumber["01"]"#),
        (r#"{"struct": {"a": {"b": 1, "b": 2}}}"#, r#"struct["a"]["b"]"#),
        (r#"{"any": {"@type": "x/kitchen.v1.Dish", "@type": "x/kitchen.v1.Dish"}}"#, "any"),
        (r#"{"any": {"@type": "x/kitchen.v1.Dish", "name": "a", "name": "b"}}"#, "any.name"),
    ] {
        refused("POST /echo", body, Reason::MalformedRequest, field);
    }
}

#[test]
fn wrong_types_are_refused_with_their_json_path() {
    for (body, field) in [
        (r#"{"int32": true}"#, "int32"),
        (r#"{"int32": 1.5}"#, "int32"),
        (r#"{"int32": 2147483648}"#, "int32"),
        (r#"{"int32": "a"}"#, "int32"),
        (r#"{"int32": ""}"#, "int32"),
        (r#"{"int32": " 1"}"#, "int32"),
        (r#"{"int32": []}"#, "int32"),
        (r#"{"uint64": -1}"#, "uint64"),
        (r#"{"uint64": 18446744073709551616}"#, "uint64"),
        (r#"{"int64": 9223372036854775808}"#, "int64"),
        (r#"{"int64": 9007199254740993.5}"#, "int64"),
        (r#"{"float": 1e39}"#, "float"),
        (r#"{"double": "inf"}"#, "double"),
        (r#"{"double": {}}"#, "double"),
        (r#"{"flag": "true"}"#, "flag"),
        (r#"{"flag": 1}"#, "flag"),
        (r#"{"boolValue": "true"}"#, "boolValue"),
        (r#"{"text": 1}"#, "text"),
        (r#"{"text": ["a"]}"#, "text"),
        (r#"{"data": "a b"}"#, "data"),
        (r#"{"data": "+-"}"#, "data"),
        (r#"{"kind": "SOUR"}"#, "kind"),
        (r#"{"kind": 1.5}"#, "kind"),
        (r#"{"texts": "a"}"#, "texts"),
        (r#"{"texts": ["a", null]}"#, "texts[1]"),
        (r#"{"children": [{}, 1]}"#, "children[1]"),
        (r#"{"labels": []}"#, "labels"),
        (r#"{"labels": {"a": null}}"#, r#"labels["a"]"#),
        (r#"{"byNumber": {"a": 1}}"#, r#"byNumber["a"]"#),
        (r#"{"byFlag": {"yes": {}}}"#, r#"byFlag["yes"]"#),
        (r#"{"child": "a"}"#, "child"),
        (r#"{"child": []}"#, "child"),
        (r#"{"time": 1}"#, "time"),
        (r#"{"time": "2026-01-31"}"#, "time"),
        (r#"{"time": "2026-01-31t12:00:00z"}"#, "time"),
        (r#"{"time": "10000-01-01T00:00:00Z"}"#, "time"),
        (r#"{"time": "2026-01-31T25:00:00Z"}"#, "time"),
        (r#"{"time": "0001-01-01T00:00:00+01:00"}"#, "time"),
        (r#"{"duration": "1"}"#, "duration"),
        (r#"{"duration": "315576000001s"}"#, "duration"),
        (r#"{"mask": ["a"]}"#, "mask"),
        (r#"{"struct": [1]}"#, "struct"),
        (r#"{"list": {"a": 1}}"#, "list"),
        (r#"{"empty": 1}"#, "empty"),
        (r#"{"stringValue": 1}"#, "stringValue"),
        (r#"{"int64Value": "a"}"#, "int64Value"),
        (r#"{"any": {"a": 1}}"#, "any"),
        (r#"{"any": {"@type": 1}}"#, "any"),
        (r#"{"any": {"@type": "x/no.such.Type"}}"#, "any"),
        (r#"{"any": {"@type": "kitchen.v1.Dish"}}"#, "any"),
        (r#"{"any": {"@type": "x/kitchen.v1.Dish", "name": 1}}"#, "any.name"),
        (r#"{"any": {"@type": "x/google.protobuf.Duration", "value": 1}}"#, "any"),
        (r#"{"any": "a"}"#, "any"),
    ] {
        refused("POST /echo", body, Reason::InvalidFields, field);
    }
}

#[test]
fn what_is_expected_is_said_in_words() {
    let said = |body: &str, field: &str| {
        refused("POST /echo", body, Reason::InvalidFields, field).violation_list()[0].description.clone()
    };
    assert_eq!(said(r#"{"int32": "a"}"#, "int32"), "must be a whole number from -2147483648 to 2147483647");
    assert_eq!(said(r#"{"kind": "SOUR"}"#, "kind"), "must be one of SWEET, SALTY");
    assert_eq!(said(r#"{"time": "now"}"#, "time"), "must be a time such as \"2026-01-31T12:00:00Z\"");
    assert_eq!(said(r#"{"slug": "a", "number": 1}"#, "number"), "cannot be given together with `slug`");
    let syntax = refused("POST /echo", "{\n \"text\": nope}", Reason::MalformedRequest, "");
    assert_eq!(syntax.text(), "The text is not valid JSON: line 2, column 11");
}

#[test]
fn a_problem_does_not_repeat_a_long_key() {
    let long = "가".repeat(100_000);
    for body in [
        format!(r#"{{"{long}": 1}}"#),
        format!(r#"{{"labels": {{"{long}": 1}}}}"#),
        format!(r#"{{"struct": {{"{long}": 1, "{long}": 1}}}}"#),
    ] {
        let problem = send("POST /echo", &[], body.as_bytes()).unwrap_err();
        assert!(problem.violation_list()[0].field.len() < 300 && problem.text().len() < 300);
    }
    assert!(send(&format!("GET /query?{long}=1"), &[], b"").unwrap_err().violation_list()[0].field.len() < 300);
}

#[test]
fn malformed_json_is_a_bad_request() {
    for body in [
        "{",
        "{\"text\"",
        "{\"text\":",
        "{\"text\": \"a\"",
        "{\"text\": \"a\",}",
        "{text: 1}",
        "{'text': 1}",
        "{} {}",
        "{}x",
        "{},",
        "\u{feff}{}",
        "{\"text\": \"\\ud800\"}",
        "{\"text\": \"\\x\"}",
        "{\"text\": \"\n\"}",
        "{\"int32\": 01}",
        "{\"int32\": +1}",
        "{\"double\": NaN}",
        "{\"double\": 1e999}",
        "{\"value\": nope}",
        "{\"any\": {\"@type\": \"x/kitchen.v1.Dish\", \"name\": nope}}",
        "{\"shown\": nope}",
        "// no\n{}",
    ] {
        refused("POST /echo", body, Reason::MalformedRequest, "");
    }
    for body in [
        &b"{\"text\": \"\xff\"}"[..],
        b"{\"text\": \"\xed\xa0\x80\"}",
        b"\xff",
        b"{\"\xc3\x28\": 1}",
        b"{\"shown\": \"\xff\"}",
    ] {
        refused("POST /echo", body, Reason::MalformedRequest, "");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    let depth = |message: &Value| std::iter::successors(Some(message), |message| message.get("child")).count();
    let body = nested("{\"child\":", "{}", "}", 99);
    assert_eq!(depth(&send("POST /echo", &[], body.as_bytes()).unwrap()), 100);
    refused("POST /echo", nested("{\"child\":", "{}", "}", 100), Reason::MalformedRequest, "");
    for body in [
        nested("{\"child\":", "{}", "}", 100_000),
        nested("[", "", "]", 100_000),
        format!("{{\"list\": {}}}", nested("[", "", "]", 100_000)),
        format!("{{\"struct\": {}}}", nested("{\"a\":", "1", "}", 100_000)),
        format!("{{\"any\": {}}}", nested("{\"@type\": \"x/google.protobuf.Any\", \"value\": ", "{}", "}", 20_000)),
    ] {
        let problem = send("POST /echo", &[], body.as_bytes()).unwrap_err();
        assert!([Reason::MalformedRequest, Reason::InvalidFields].contains(&problem.reason()), "{}", problem.text());
    }
    // What no protobuf decoder would take is refused here.
    let message = format!("{{\"list\": {}}}", nested("[", "", "]", 60));
    assert_eq!(send("POST /echo", &[], message.as_bytes()).unwrap_err().reason(), Reason::InvalidFields);
}

#[test]
fn a_raw_request_is_what_prost_decodes() {
    let (found, query) = find("POST /echo");
    let bytes = found.request(query, &headers(&[]), br#"{"int32": 150, "texts": ["a", "b"]}"#).unwrap();
    assert_eq!(&bytes[..], b"\x08\x96\x01\x9a\x01\x01a\x9a\x01\x01b");
    let message = DynamicMessage::decode(found.rpc().input.clone(), bytes).unwrap();
    assert_eq!(canonical(&message), json!({"int32": 150, "texts": ["a", "b"]}));
}
