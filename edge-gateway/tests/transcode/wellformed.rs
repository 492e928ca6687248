//! Properties: JSON, protobuf and JSON again agree with `prost-reflect`'s own reader and writer; no bytes make anything panic.
use edge_gateway::transcode::Routed;
use http::Method;
use proptest::{collection::vec, option, prelude::*};
use prost_reflect::{DynamicMessage, prost::Message};
use serde_json::{Map, Value, json};

use crate::{KITCHEN, canonical, find, headers, message};

fn loose() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(|number| json!(f64::from(number))),
        ".{0,5}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec(("[a-z]{1,3}", inner), 0..3).prop_map(|members| members.into_iter().collect())
        ]
    })
}

fn real() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<f64>().prop_filter_map("finite", |number| number.is_finite().then(|| json!(number))),
        Just(json!("NaN")),
        Just(json!("Infinity")),
        Just(json!("-Infinity")),
    ]
}

fn time() -> impl Strategy<Value = Value> {
    (1..=9999, 1..=12, 1..=28, 0..24, 0..60, prop_oneof![Just(String::new()), "\\.[0-9]{3}", "\\.[0-9]{6}"]).prop_map(
        |(year, month, day, hour, minute, fraction)| {
            json!(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:07{fraction}Z"))
        },
    )
}

fn bytes() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!("")),
        "[A-Za-z0-9+/]{4}".prop_map(Value::from),
        "[A-Za-z0-9+/][AQgw]==".prop_map(Value::from)
    ]
}

/// Any Sink as JSON.
fn sink() -> impl Strategy<Value = Value> {
    let numbers = (
        any::<i32>(),
        any::<i64>(),
        any::<u32>(),
        any::<u64>(),
        any::<i32>(),
        any::<i64>(),
        any::<u32>(),
        any::<u64>(),
        any::<f32>(),
        real(),
    );
    let texts = (
        any::<bool>(),
        any::<String>(),
        bytes(),
        prop_oneof![Just(json!("SWEET")), any::<i32>().prop_map(Value::from)],
    );
    let optional =
        (option::of(any::<i32>()), option::of(any::<String>()), vec(any::<String>(), 0..3), vec(any::<i64>(), 0..3));
    let maps = (
        vec((any::<String>(), any::<String>()), 0..3),
        vec((any::<i32>(), Just("SALTY")), 0..3),
        vec((any::<String>(), real()), 0..3),
    );
    let known = (
        option::of(time()),
        option::of(loose()),
        option::of(vec(("[a-z]{1,3}", loose()), 0..3)),
        option::of(any::<String>()),
        option::of(any::<i64>()),
        option::of(bytes()),
    );
    let choice = prop_oneof![
        Just(None),
        any::<String>().prop_map(|text| Some(("slug", json!(text)))),
        any::<i32>().prop_map(|number| Some(("number", json!(number))))
    ];
    let flat = (numbers, texts, optional, maps, known, choice).prop_map(|(numbers, texts, optional, maps, known, choice)| {
        let (int32, int64, uint32, uint64, sint32, sint64, fixed32, fixed64, float, double) = numbers;
        let float = if float.is_finite() { json!(float) } else { json!("NaN") };
        let mut sink = json!({
            "int32": int32, "int64": int64.to_string(), "uint32": uint32, "uint64": uint64.to_string(), "sint32": sint32, "sfixed64": sint64,
            "fixed32": fixed32, "fixed64": fixed64, "float": float, "double": double, "flag": texts.0, "text": texts.1, "data": texts.2,
            "kind": texts.3, "maybe": optional.0, "maybeText": optional.1, "texts": optional.2, "numbers": optional.3,
            "labels": maps.0.into_iter().map(|(key, value)| (key, json!(value))).collect::<Map<_, _>>(),
            "byNumber": maps.1.into_iter().map(|(key, value)| (key.to_string(), json!(value))).collect::<Map<_, _>>(),
            "doubles": maps.2.into_iter().collect::<Map<_, _>>(),
            "time": known.0, "stringValue": known.3, "int64Value": known.4.map(|number| number.to_string()), "bytesValue": known.5,
            "struct": known.2.map(|members| members.into_iter().collect::<Map<_, _>>()),
        });
        if let Some(value) = known.1 {
            sink["value"] = value;
        }
        if let Some((name, value)) = choice {
            sink[name] = value;
        }
        sink
    });
    flat.prop_recursive(3, 6, 2, |inner| {
        (inner.clone(), vec(inner.clone(), 0..2), option::of(inner.clone()), option::of(inner)).prop_map(
            |(mut sink, children, child, by_flag)| {
                sink["children"] = children.into();
                sink["child"] = child.into();
                sink["byFlag"] = by_flag.map(|value| json!({"true": value})).unwrap_or_default();
                sink
            },
        )
    })
}

fn through(json: &[u8]) -> Vec<u8> {
    find("POST /echo")
        .0
        .request(None, &headers(&[]), json)
        .unwrap_or_else(|problem| panic!("{problem} {:?}", problem.violation_list()))
        .to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn json_goes_to_protobuf_and_back(given in sink()) {
        let expected = DynamicMessage::deserialize(message("Sink"), given.clone()).unwrap();
        let bytes = through(given.to_string().as_bytes());
        let read = DynamicMessage::decode(message("Sink"), bytes.as_slice()).unwrap();
        prop_assert_eq!(canonical(&read), canonical(&expected));
        let answer = find("POST /echo").0.response(&bytes).unwrap();
        let again = DynamicMessage::decode(message("Sink"), through(&answer.body).as_slice()).unwrap();
        prop_assert_eq!(canonical(&again), canonical(&expected));
    }

    #[test]
    fn an_answer_is_the_canonical_json_and_defaults(given in sink()) {
        let sink = DynamicMessage::deserialize(message("Sink"), given).unwrap();
        let answer = find("POST /echo").0.response(&sink.encode_to_vec()).unwrap();
        let read = DynamicMessage::deserialize(message("Sink"), &mut serde_json::Deserializer::from_slice(&answer.body)).unwrap();
        prop_assert_eq!(canonical(&read), canonical(&sink));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_request_panic(body in prop_oneof![vec(any::<u8>(), 0..64), "[\\[\\]{}:,\"a-z0-9.eE+-]{0,64}".prop_map(String::into_bytes)]) {
        for request in ["POST /echo", "POST /value", "POST /texts", "PATCH /dishes/1", "POST /raw"] {
            let _ = find(request).0.request(None, &headers(&[("if-match", "\"e\"")]), &body);
        }
    }

    #[test]
    fn no_bytes_make_an_answer_panic(body in vec(any::<u8>(), 0..64)) {
        for request in ["POST /echo", "POST /value", "POST /raw", "GET /wrapped/a"] {
            let _ = find(request).0.response(&body);
        }
    }

    #[test]
    fn no_text_makes_a_single_value_panic(text in "[0-9a-zTZ:.+-]{0,30}") {
        for name in ["time", "duration", "mask", "double", "int64", "data", "kind", "value", "stringValue"] {
            let _ = find("GET /query").0.request(Some(&format!("{name}={text}")), &headers(&[]), b"");
            let _ = find("POST /echo").0.request(None, &headers(&[]), json!({name: text}).to_string().as_bytes());
        }
    }

    #[test]
    fn no_path_and_no_query_make_a_route_panic(path in "[/a-z%:*+.0-9é]{0,40}", query in "[a-zA-Z0-9=&%.+\\[\\]_-]{0,40}") {
        for method in [Method::GET, Method::POST, Method::PATCH] {
            if let Routed::Found(found) = KITCHEN.route(&method, &format!("/{path}")) {
                let _ = found.request(Some(&query), &headers(&[]), b"");
            }
        }
        let _ = find("GET /query").0.request(Some(&query), &headers(&[]), b"");
    }
}
