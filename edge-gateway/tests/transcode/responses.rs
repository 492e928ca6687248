//! Answers: proto3's JSON mapping, response bodies, HttpBody, and what a service may send that has no nice form.
use bytes::Bytes;
use edge_gateway::transcode::{Converted, Format};
use prost_reflect::{DynamicMessage, Value as Field, prost::Message};
use serde_json::{Value, json};
use status::{Problem, Reason};

use crate::{KITCHEN, find, headers, message};

/// A Sink, read by `prost-reflect`'s own reader.
fn sink(json: Value) -> Vec<u8> {
    DynamicMessage::deserialize(message("Sink"), json).unwrap().encode_to_vec()
}

fn answer(request: &str, bytes: &[u8]) -> Result<Converted, Problem> {
    find(request).0.response(bytes)
}

fn text(request: &str, bytes: &[u8]) -> String {
    String::from_utf8(answer(request, bytes).unwrap().body.to_vec()).unwrap()
}

fn shown(bytes: &[u8]) -> Value {
    serde_json::from_str(&text("POST /echo", bytes)).unwrap()
}

/// One field of a Sink's answer as text.
fn member(name: &str, json: Value) -> String {
    let text = text("POST /echo", &sink(json));
    let start = text.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} in {text}")) + name.len() + 3;
    text[start..].to_owned()
}

#[test]
fn fields_without_presence_are_always_written_and_unset_ones_are_left_out() {
    let expected = json!({
        "int32": 0, "int64": "0", "uint32": 0, "uint64": "0", "sint32": 0, "sint64": "0", "fixed32": 0, "fixed64": "0", "sfixed32": 0,
        "sfixed64": "0", "float": 0, "double": 0, "flag": false, "text": "", "data": "", "kind": "KIND_UNSPECIFIED", "texts": [],
        "numbers": [], "kinds": [], "children": [], "labels": {}, "byNumber": {}, "byFlag": {}, "null": null, "new-name": "", "times": [],
        "shown": "", "doubles": {},
    });
    assert_eq!(shown(&[]), expected);
    let set = shown(&sink(json!({"maybe": 0, "slug": "", "child": {}, "empty": {}, "stringValue": ""})));
    for (field, value) in [
        ("maybe", json!(0)),
        ("slug", json!("")),
        ("child", expected),
        ("empty", json!({})),
        ("stringValue", json!("")),
    ] {
        assert_eq!(set[field], value);
    }
}

#[test]
fn numbers_are_written_as_the_mapping_asks() {
    assert!(member("int64", json!({"int64": "-9223372036854775808"})).starts_with("\"-9223372036854775808\""));
    assert!(member("uint64", json!({"uint64": "18446744073709551615"})).starts_with("\"18446744073709551615\""));
    assert!(member("float", json!({"float": 0.1})).starts_with("0.1,"));
    assert!(member("double", json!({"double": 0.1})).starts_with("0.1,"));
    assert!(member("double", json!({"double": 3.0})).starts_with("3,"));
    assert!(member("value", json!({"value": -0.0})).starts_with("-0.0,"));
    assert!(member("double", json!({"double": 1e300})).starts_with("1e+300,"));
    for (value, text) in
        [(json!("NaN"), "\"NaN\","), (json!("Infinity"), "\"Infinity\","), (json!("-Infinity"), "\"-Infinity\",")]
    {
        assert!(member("float", json!({"float": value})).starts_with(text));
        assert!(member("double", json!({"double": value})).starts_with(text));
        assert!(member("doubleValue", json!({"doubleValue": value})).starts_with(text.trim_end_matches(',')));
        assert_eq!(shown(&sink(json!({"doubles": {"a": value}})))["doubles"]["a"], value);
    }
}

#[test]
fn well_known_types_are_written_in_their_own_form() {
    let given = json!({
        "time": "2026-01-31T12:00:00.120Z", "duration": "-1.500s", "mask": "a.bC,d", "struct": {"a": [1, null, {"b": true}]}, "value": "x",
        "list": [[], {}], "stringValue": "s", "int64Value": "5", "boolValue": false, "bytesValue": "AA==", "null": null,
        "any": {"@type": "x/google.protobuf.Duration", "value": "1s"},
    });
    let answer = shown(&sink(given.clone()));
    for (field, value) in given.as_object().unwrap() {
        assert_eq!(&answer[field], value, "{field}");
    }
    assert_eq!(shown(&sink(json!({"value": null})))["value"], Value::Null);
    assert_eq!(
        shown(&sink(json!({"time": "1969-12-31T23:59:59.999999999Z"})))["time"],
        "1969-12-31T23:59:59.999999999Z"
    );
    let nested =
        json!({"@type": "x/kitchen.v1.Dish", "name": "a", "extra": {"@type": "x/google.protobuf.Empty", "value": {}}});
    let answer = shown(&sink(json!({"any": {"@type": "x/kitchen.v1.Dish", "name": "a"}})));
    assert_eq!((&answer["any"]["name"], &answer["any"]["tags"]), (&nested["name"], &json!([])));
}

#[test]
fn an_any_of_an_unknown_type_or_with_foreign_bytes_never_fails() {
    let any = |url: &str, bytes: &[u8]| {
        let mut any = DynamicMessage::new(KITCHEN.pool().get_message_by_name("google.protobuf.Any").unwrap());
        any.set_field_by_name("type_url", Field::String(url.to_owned()));
        any.set_field_by_name("value", Field::Bytes(Bytes::copy_from_slice(bytes)));
        let mut sink = DynamicMessage::new(message("Sink"));
        sink.set_field_by_name("any", Field::Message(any));
        shown(&sink.encode_to_vec())["any"].clone()
    };
    assert_eq!(any("x/no.such.Type", b"\x08\x01"), json!({"@type": "x/no.such.Type", "value": "CAE="}));
    assert_eq!(any("nonsense", b""), json!({"@type": "nonsense", "value": ""}));
    assert_eq!(any("x/kitchen.v1.Dish", b"\xff"), json!({"@type": "x/kitchen.v1.Dish", "value": "/w=="}));
    assert_eq!(any("", b""), json!({}));
    assert_eq!(any("", b"a"), json!({"@type": "", "value": "YQ=="}));
}

#[test]
fn anys_inside_anys_do_not_exhaust_the_stack() {
    let kind = KITCHEN.pool().get_message_by_name("google.protobuf.Any").unwrap();
    let mut bytes = Vec::new();
    for _ in 0..2_000 {
        let mut any = DynamicMessage::new(kind.clone());
        any.set_field_by_name("type_url", Field::String("x/google.protobuf.Any".to_owned()));
        any.set_field_by_name("value", Field::Bytes(bytes.into()));
        bytes = any.encode_to_vec();
    }
    let mut sink = DynamicMessage::new(message("Sink"));
    sink.set_field_by_name("any", Field::Message(DynamicMessage::decode(kind, bytes.as_slice()).unwrap()));
    assert!(shown(&sink.encode_to_vec())["any"]["value"].is_object());
}

#[test]
fn unknown_enum_numbers_and_unknown_fields_pass() {
    let answer = shown(&sink(json!({"kind": 7, "kinds": [1, -1], "byNumber": {"-3": 9}})));
    assert_eq!(
        (&answer["kind"], &answer["kinds"], &answer["byNumber"]),
        (&json!(7), &json!(["SWEET", -1]), &json!({"-3": 9}))
    );
    let mut bytes = sink(json!({"text": "a"}));
    bytes.extend(b"\xf8\x7f\x01");
    assert_eq!(shown(&bytes)["text"], "a");
}

#[test]
fn the_same_message_is_the_same_text() {
    let labels: serde_json::Map<_, _> = (0..50).map(|number| (format!("k{number:02}"), json!("v"))).collect();
    let bytes =
        sink(json!({"labels": labels, "byFlag": {"true": {}, "false": {}}, "byNumber": {"10": 1, "9": 1, "-1": 1}}));
    let first = text("POST /echo", &bytes);
    assert!((0..10).all(|_| text("POST /echo", &bytes) == first));
    assert!(first.contains(r#""byNumber":{"-1":"SWEET","9":"SWEET","10":"SWEET"}"#));
}

#[test]
fn a_response_body_is_one_field_of_the_answer() {
    let bytes = sink(json!({"text": "a", "texts": ["b"], "labels": {"c": "d"}, "value": [1]}));
    assert_eq!(text("POST /text", &bytes), r#""a""#);
    assert_eq!(text("POST /texts", &bytes), r#"["b"]"#);
    assert_eq!(text("POST /labels", &bytes), r#"{"c":"d"}"#);
    assert_eq!(text("POST /value", &bytes), "[1]");
    assert_eq!(text("POST /child", &bytes), "null");
    assert_eq!(
        (text("POST /text", &[]), text("POST /texts", &[]), text("POST /labels", &[])),
        ("\"\"".into(), "[]".into(), "{}".into())
    );
}

#[test]
fn an_http_body_is_its_bytes_and_its_media_type() {
    let body = |json: Value| {
        let kind = KITCHEN.pool().get_message_by_name("google.api.HttpBody").unwrap();
        DynamicMessage::deserialize(kind, json).unwrap()
    };
    let png = body(json!({"contentType": "image/png", "data": "/wAK"}));
    let given = answer("POST /raw", &png.encode_to_vec()).unwrap();
    assert_eq!((given.content_type.to_str().unwrap(), &given.body[..]), ("image/png", &[0xff, 0, 10][..]));
    for content_type in ["", "a\nb"] {
        let given = answer("POST /raw", &body(json!({"contentType": content_type})).encode_to_vec()).unwrap();
        assert_eq!(given.content_type, "application/octet-stream");
    }
    let mut wrapped = DynamicMessage::new(message("UploadRequest"));
    wrapped.set_field_by_name("file", Field::Message(png));
    assert_eq!(&answer("GET /wrapped/a", &wrapped.encode_to_vec()).unwrap().body[..], &[0xff, 0, 10]);
    assert_eq!(find("POST /raw").0.negotiate(&headers(&[("accept", "text/html")])).unwrap(), Format::Raw);
}

#[test]
fn an_answer_carries_the_resources_entity_tag() {
    let dish = |json: Value| DynamicMessage::deserialize(message("Dish"), json).unwrap().encode_to_vec();
    assert_eq!(answer("PATCH /dishes/1", &dish(json!({"etag": "e1"}))).unwrap().etag.as_deref(), Some("e1"));
    assert_eq!(answer("PATCH /dishes/1", &dish(json!({}))).unwrap().etag, None);
    assert_eq!(answer("POST /echo", &[]).unwrap().etag, None);
}

#[test]
fn an_answer_that_is_no_message_is_an_internal_error_that_says_nothing() {
    for bytes in [&b"\xff"[..], b"\x72\x01\xff", b"\xf2\x01\x0b\x08\xff\x91\xb8\xc3\x98\xfe\xff\xff\xff\x01"] {
        let problem = answer("POST /echo", bytes).unwrap_err();
        assert_eq!((problem.reason(), problem.text()), (Reason::Internal, Reason::Internal.title()));
        assert!(problem.cause().is_some());
    }
}

#[test]
fn an_answer_that_is_not_accepted_is_refused_before_the_call() {
    let (echo, _) = find("POST /echo");
    for accept in ["*/*", "application/json", "application/*;q=0.1", "text/html, */*;q=0.1"] {
        assert_eq!(echo.negotiate(&headers(&[("accept", accept)])).unwrap(), Format::Json);
    }
    assert_eq!(echo.negotiate(&headers(&[])).unwrap(), Format::Json);
    assert_eq!(echo.negotiate(&headers(&[("accept", "text/html")])).unwrap_err().reason(), Reason::NotAcceptable);
}
