//! The OpenAPI document: its structure holds, and it says what the annotations say.
use std::collections::HashSet;

use edge_gateway::{
    openapi::{Info, document},
    transcode::Table,
};
use proptest::prelude::*;
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};

use crate::KITCHEN;

fn info() -> Info {
    Info { title: "Kitchen".to_owned(), version: "1".to_owned(), description: "Cooks.".to_owned() }
}

fn kitchen() -> Value {
    document(&KITCHEN, &info())
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(elements) => elements.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
        .collect()
}

/// What the OpenAPI 3.1 specification asks of any document, as far as it can be seen in the structure.
fn is_sound(document: &Value) {
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = Vec::new();
    references(document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some_and(Value::is_object), "{reference}");
    }
    let names = document["components"]["schemas"].as_object().unwrap().keys();
    assert!(names.flat_map(|name| name.chars()).all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter)));
    let tags: HashSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = HashSet::new();
    for (path, method, operation) in operations(document) {
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path} {method}");
        assert!(operation["tags"].as_array().unwrap().iter().all(|tag| tags.contains(tag.as_str().unwrap())));
        let parameters = operation["parameters"].as_array().unwrap();
        let mut unique = HashSet::new();
        assert!(
            parameters.iter().all(|parameter| unique.insert((parameter["in"].as_str(), parameter["name"].as_str()))),
            "{path} {method}"
        );
        assert!(
            parameters.iter().all(|parameter| parameter["schema"].is_object()
                && (parameter["in"] != "path" || parameter["required"] == true))
        );
        let declared: HashSet<_> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let used: HashSet<_> = path.split('{').skip(1).map(|part| part.split('}').next().unwrap()).collect();
        assert_eq!(declared, used, "{path} {method}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(!responses.is_empty() && responses.values().all(|response| response["description"].is_string()));
        assert!(responses.keys().all(|status| status == "default" || status.parse::<u16>().is_ok()));
        for requirement in operation["security"].as_array().into_iter().flatten() {
            assert!(
                requirement
                    .as_object()
                    .unwrap()
                    .keys()
                    .all(|name| document["components"]["securitySchemes"][name].is_object())
            );
        }
    }
}

#[test]
fn the_documents_are_sound() {
    is_sound(&kitchen());
    let document = contracts_document();
    is_sound(&document);
    let get = &document["paths"]["/api/v1/posts/{post_id}"]["get"];
    assert_eq!(get["operationId"], "PostService_GetPost");
    assert_eq!(get["parameters"][0]["schema"]["format"], "uuid");
    assert_eq!(get["responses"]["200"]["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/Post");
    assert!(document["components"]["schemas"]["Reason"]["enum"].as_array().unwrap().contains(&json!("ETAG_MISMATCH")));
}

#[test]
fn every_route_is_documented_once() {
    let document = kitchen();
    assert_eq!(operations(&document).len(), 30);
    for path in [
        "/books/{author}/{isbn}/{id_4}",
        "/trees/{id}/leaves/{author}",
        "/{id}:run",
        "/dishes/{dish.id}",
        "/dishes:import",
    ] {
        assert!(
            document["paths"][path].is_object(),
            "{path} in {:?}",
            document["paths"].as_object().unwrap().keys().collect::<Vec<_>>()
        );
    }
}

#[test]
fn comments_access_and_deprecation_show() {
    let document = kitchen();
    let echo = &document["paths"]["/echo"]["post"];
    assert_eq!(
        (&echo["summary"], &echo["description"]),
        (&json!("Answers what it is asked"), &json!("Answers what it is asked. Nothing else."))
    );
    assert_eq!(document["tags"], json!([{"name": "Kitchen", "description": "Cooks. Twice a day."}]));
    let create = &document["paths"]["/dishes"]["post"];
    assert_eq!(create["security"], json!([{"bearer": ["dish.write"]}]));
    let description = create["description"].as_str().unwrap();
    assert!(
        ["`dish.write`", "`moderator`", "`dish.cook`"].iter().all(|word| description.contains(word)),
        "{description}"
    );
    assert!(create["responses"]["401"].is_object() && create["responses"]["403"].is_object());
    assert!(create["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == "Idempotency-Key"));
    assert_eq!(document["paths"]["/items/{id}"]["get"]["security"], json!([{}, {"bearer": []}]));
    assert_eq!(document["paths"]["/dishes/{id}"]["delete"]["deprecated"], true);
}

#[test]
fn queries_bodies_and_answers_have_their_shapes() {
    let document = kitchen();
    let names = |path: &str, method: &str, place: &str| {
        let parameters = document["paths"][path][method]["parameters"].as_array().unwrap().iter();
        parameters
            .filter(|parameter| parameter["in"] == place)
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let query = names("/query", "get", "query");
    for name in ["maybeText", "new-name", "texts", "child.int32", "child.child.text", "time", "kind"] {
        assert!(query.contains(&name.to_owned()), "{name} in {query:?}");
    }
    for name in ["children", "labels", "any", "struct", "shown", "child"] {
        assert!(!query.contains(&name.to_owned()), "{name}");
    }
    assert!(names("/echo", "post", "query").is_empty());
    assert_eq!(names("/dishes/{dish.id}", "patch", "query"), ["updateMask", "allowMissing"]);
    assert_eq!(names("/dishes/{dish.id}", "patch", "header"), ["If-Match"]);
    assert_eq!(names("/raw", "post", "header"), ["range"]);

    let content = |path: &str, method: &str| &document["paths"][path][method]["requestBody"]["content"];
    assert_eq!(
        content("/dishes/{dish.id}", "patch")["application/json"]["schema"]["$ref"],
        "#/components/schemas/Dish"
    );
    assert!(content("/items/{id}:move", "post")["application/json"]["schema"]["properties"].get("id").is_none());
    assert!(content("/uploads/{name}", "post")["*/*"].is_object());
    assert_eq!(
        content("/dishes:import", "post")["application/json"]["schema"]["items"]["$ref"],
        "#/components/schemas/Dish"
    );
    assert!(document["paths"]["/query"]["get"].get("requestBody").is_none());

    let answer = |path: &str, method: &str| {
        document["paths"][path][method]["responses"]["200"]["content"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(answer("/dishes:watch", "get"), ["application/json", "application/x-ndjson", "text/event-stream"]);
    assert_eq!(
        (answer("/raw", "post"), answer("/downloads/{id}", "get")),
        (vec!["image/png".to_owned()], vec!["*/*".to_owned()])
    );
    assert!(document["paths"]["/raw"]["post"]["responses"]["206"]["headers"]["content-range"].is_object());
}

fn contracts_document() -> Value {
    document(&Table::from_pool(DescriptorPool::decode(contracts::DESCRIPTOR_SET).unwrap()).unwrap(), &info())
}

const POST: &str = "01980000-0000-7000-8000-000000000002";

/// Whether services take these texts: a title, a byline (which may be left out) and a tag.
fn taken(text: &str) -> [bool; 3] {
    let post = |title: &str, byline: &str, tags: &[&str]| {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let post = contracts::content::v1::Post { byline: byline.to_owned(), ..Default::default() };
        let update =
            contracts::content::v1::UpdatePostRequest { post_id: POST.to_owned(), post: Some(post), update_mask: None };
        let create = contracts::content::v1::CreatePostRequest { title: title.to_owned(), tags, ..Default::default() };
        contracts::violations(&create).is_empty() && contracts::violations(&update).is_empty()
    };
    [post(text, "", &[]), post("a", text, &[]), post("a", "", &[text])]
}

/// Whether the document says that they do.
fn documented(patterns: &[regex::Regex; 3], text: &str) -> [bool; 3] {
    let [title, byline, tag] = patterns.each_ref().map(|pattern| pattern.is_match(text));
    // A title and a tag have a least length too.
    [title && !text.is_empty(), byline, tag && !text.is_empty()]
}

fn name_patterns() -> [regex::Regex; 3] {
    let document = contracts_document();
    let schemas = &document["components"]["schemas"];
    let pattern = |schema: &Value| regex::Regex::new(schema["pattern"].as_str().unwrap()).unwrap();
    let create = &schemas["CreatePostRequest"]["properties"];
    let byline = &schemas["Post"]["properties"]["byline"];
    [pattern(&create["title"]), pattern(byline), pattern(&create["tags"]["items"])]
}

#[test]
fn a_name_has_the_pattern_by_which_services_take_it() {
    let patterns = name_patterns();
    for text in [
        "",
        " ",
        "a",
        "a b",
        "한글",
        "é",
        "e\u{301}",
        "\u{301}",
        "👩‍👩‍👧",
        "می‌خواهم",
        "a\nb",
        "a\n",
        "\u{0}",
        "\u{200b}",
        "a\u{200b}",
        "a\u{202e}b",
        "\u{3164}",
        "\u{ffa0}",
        "a\u{feff}",
        "\u{2800}",
        "\u{a0}",
        "\u{2060}",
        "\u{2070}",
        "\u{61c}",
        "𝒳",
    ] {
        assert_eq!(documented(&patterns, text), taken(text), "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_name_is_taken_as_documented(text in "\\PC{0,8}|[\\x00-\\x{ff}\\x{2000}-\\x{2070}\\x{3164}]{0,4}") {
        thread_local!(static PATTERNS: [regex::Regex; 3] = name_patterns());
        PATTERNS.with(|patterns| {
            prop_assert_eq!(documented(patterns, &text), taken(&text));
            Ok(())
        })?;
    }
}

#[test]
fn patterns_are_those_of_ecmascript() {
    fn patterns(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("pattern").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| patterns(value, found));
            }
            Value::Array(elements) => elements.iter().for_each(|value| patterns(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    patterns(&contracts_document(), &mut found);
    assert!(found.len() > 20);
    for pattern in found {
        // What this engine reads and ECMAScript does not: `(?i)`, `\A`, `\z`, `\x{…}`, `\pL`, `[[:alpha:]]`.
        let escapes = pattern.match_indices('\\').map(|(at, _)| &pattern[at + 1..]);
        for escape in escapes {
            let hex = escape
                .strip_prefix('u')
                .is_some_and(|digits| digits.len() >= 4 && digits[..4].bytes().all(|digit| digit.is_ascii_hexdigit()));
            assert!(hex || escape.starts_with("p{") || escape.starts_with('.'), "{pattern}");
        }
        assert!(!pattern.contains("(?") && !pattern.contains("[["), "{pattern}");
    }
}

#[test]
fn rules_are_json_schema_keywords() {
    let document = kitchen();
    let dish = &document["components"]["schemas"]["Dish"];
    assert_eq!(dish["required"], json!(["name"]));
    assert_eq!(dish["description"], "A dish.");
    let property = |name: &str| dish["properties"][name].clone();
    assert_eq!(
        property("name"),
        json!({"type": "string", "minLength": 1, "maxLength": 300, "description": "What it is called."})
    );
    assert_eq!(
        property("tags"),
        json!({"type": "array", "maxItems": 20, "items": {"type": "string", "minLength": 1, "maxLength": 50}})
    );
    assert_eq!(
        property("portions"),
        json!({"type": "integer", "format": "int32", "minimum": 1, "exclusiveMaximum": 100})
    );
    assert_eq!(property("id"), json!({"type": "string", "readOnly": true}));
    assert_eq!(property("cook")["$ref"], "#/components/schemas/Dish.Cook");
    assert!(property("menu")["pattern"].as_str().unwrap().starts_with("^$|"));
    let sink = &document["components"]["schemas"]["Sink"]["properties"];
    assert_eq!(
        (&sink["int64"]["type"], &sink["data"]["contentEncoding"], &sink["time"]["format"]),
        (&json!("string"), &json!("base64"), &json!("date-time"))
    );
    assert_eq!(sink["byFlag"]["additionalProperties"]["$ref"], "#/components/schemas/Sink");
    assert_eq!(sink["slug"]["description"], "Not together with `number`, `other`.");
}
