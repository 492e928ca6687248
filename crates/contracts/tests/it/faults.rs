//! What the build says of contracts that are wrong.

use std::fs;
use std::path::Path;

use prost_reflect::DescriptorPool;

#[path = "../../build/check.rs"]
mod check;
#[path = "../../build/events.rs"]
mod events;
#[path = "../../build/generate.rs"]
mod generate;
#[path = "../../build/methods.rs"]
mod methods;
#[path = "../../build/options.rs"]
mod options;
#[path = "../../build/payloads.rs"]
mod payloads;
#[path = "../../build/redact.rs"]
mod redact;
#[path = "../../build/rust.rs"]
mod rust;
#[path = "../../build/validate.rs"]
mod validate;

const ACCESS: &str = r#"option (guildhall.mesh.v1.access) = {workloads: "edge-gateway" user: ANONYMOUS};"#;

fn pool(body: &str) -> DescriptorPool {
    let folder = tempfile::tempdir().unwrap();
    let header = r#"
        syntax = "proto3";
        package guildhall.content.v1;
        import "buf/validate/validate.proto";
        import "google/api/annotations.proto";
        import "google/protobuf/struct.proto";
        import "guildhall/mesh/v1/options.proto";
    "#;
    fs::write(folder.path().join("bad.proto"), header.to_owned() + body).unwrap();
    // Asked when it runs: a target directory may serve several checkouts.
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..");
    let includes = [folder.path().to_owned(), root.join("proto"), root.join("third_party/proto")];
    let mut compiler = protox::Compiler::new(includes).unwrap();
    compiler.include_imports(true).open_file("bad.proto").unwrap();
    compiler.descriptor_pool()
}

/// What the build says of contracts that consist of `body`.
fn faults(body: &str) -> Vec<String> {
    generate::generate(&pool(body)).err().unwrap_or_default()
}

/// What it says of one message with that field.
fn field_faults(field: &str) -> Vec<String> {
    faults(&format!("enum Kind {{ NONE = 0; }} message M {{ {field} }}"))
}

/// What it says of a service with these RPCs.
fn service_faults(rpcs: &str) -> Vec<String> {
    faults(&format!(
        "service S {{ {rpcs} }} message Ask {{ string id = 1; Inner inner = 2; repeated string many = 3; }}
         message Inner {{ string name = 1; }} message Reply {{}}"
    ))
}

fn route(name: &str, http: &str) -> String {
    format!("rpc {name}(Ask) returns (Reply) {{ {ACCESS} option (google.api.http) = {{{http}}}; }}")
}

#[test]
fn good_contracts_have_no_faults() {
    let routes = [
        route("A", r#"get: "/a/{id}""#),
        route("B", r#"get: "/a/{inner.name}/b""#),
        route("C", r#"get: "/a/me""#),
        route("D", r#"post: "/a/{id}:do" body: "*""#),
    ];
    assert_eq!(service_faults(&routes.join("\n")), [""; 0]);
}

#[test]
fn an_rpc_without_access_is_refused() {
    assert_eq!(
        service_faults("rpc A(Ask) returns (Reply);"),
        ["/guildhall.content.v1.S/A: the RPC has no (guildhall.mesh.v1.access)"]
    );
}

#[test]
fn an_access_rule_that_is_not_whole_is_refused() {
    let rpc = r#"rpc A(Ask) returns (Reply) { option (guildhall.mesh.v1.access) = {role: "owner"}; }"#;
    assert_eq!(
        service_faults(rpc),
        [
            "/guildhall.content.v1.S/A: access names no workload; nobody could call the RPC",
            "/guildhall.content.v1.S/A: access must say `user`: WORKLOAD_ONLY, ANONYMOUS or AUTHENTICATED",
            "/guildhall.content.v1.S/A: scopes and a role are a person's: access must say `user: AUTHENTICATED`",
            "/guildhall.content.v1.S/A: access names the role `owner`, which is none of member, moderator, operator, admin",
        ]
    );
}

#[test]
fn a_gate_that_who_has_no_token_would_not_meet_is_refused() {
    for gate in [
        r#"user: ANONYMOUS scopes: "content.write""#,
        r#"user: ANONYMOUS role: "admin""#,
        r#"user: WORKLOAD_ONLY role: "admin""#,
    ] {
        let access = format!("option (guildhall.mesh.v1.access) = {{workloads: \"edge-gateway\" {gate}}};");
        assert_eq!(
            service_faults(&format!("rpc A(Ask) returns (Reply) {{ {access} }}")),
            ["/guildhall.content.v1.S/A: scopes and a role are a person's: access must say `user: AUTHENTICATED`"],
            "{gate}"
        );
    }
}

#[test]
fn two_rpcs_with_one_normalised_route_are_refused() {
    let routes = [route("A", r#"get: "/a/{id}/b""#), route("B", r#"get: "/a/{inner.name=*}/b""#)];
    assert_eq!(
        service_faults(&routes.join("\n")),
        ["/guildhall.content.v1.S/B: the route `GET /a/*/b` is that of /guildhall.content.v1.S/A too"]
    );
}

#[test]
fn the_routes_of_additional_bindings_and_passthroughs_count() {
    let routes = [
        route("A", r#"get: "/a" additional_bindings {get: "/b"}"#),
        route("B", r#"get: "/b""#),
        r#"option (guildhall.mesh.v1.passthrough) = {path: "/a" methods: "GET" methods: "POST"};"#.to_owned(),
    ];
    assert_eq!(
        service_faults(&routes.join("\n")),
        [
            "/guildhall.content.v1.S/B: the route `GET /b` is that of /guildhall.content.v1.S/A too",
            "guildhall.content.v1.S: the route `GET /a` is that of /guildhall.content.v1.S/A too",
        ]
    );
}

#[test]
fn a_path_variable_names_a_plain_field() {
    for variable in ["ide", "inner", "inner.nam", "many", "id.x"] {
        assert_eq!(
            service_faults(&route("A", &format!(r#"get: "/a/{{{variable}}}""#))),
            [format!(
                "/guildhall.content.v1.S/A: the path variable `{variable}` names no plain field of guildhall.content.v1.Ask"
            )]
        );
    }
}

#[test]
fn a_body_names_a_field() {
    assert_eq!(
        service_faults(&route("A", r#"post: "/a" body: "post""#)),
        ["/guildhall.content.v1.S/A: the body `post` names no field of guildhall.content.v1.Ask"]
    );
}

#[test]
fn a_message_that_is_a_request_and_an_answer_is_refused() {
    let rpcs = format!("rpc A(Ask) returns (Reply) {{ {ACCESS} }} rpc B(Reply) returns (Inner) {{ {ACCESS} }}");
    assert_eq!(
        service_faults(&rpcs),
        ["/guildhall.content.v1.S/B: guildhall.content.v1.Reply is a request here and an answer elsewhere"]
    );
}

#[test]
fn a_rule_that_the_generator_does_not_know_is_refused() {
    let unknown = |rule: &str, group: &str| {
        [format!(
            "guildhall.content.v1.M.f: the generator does not know the rule `{rule}` of buf.validate.{group} here"
        )]
    };
    let cases = [
        ("string f = 1 [(buf.validate.field).string.prefix = \"a\"];", unknown("prefix", "StringRules")),
        ("string f = 1 [(buf.validate.field).cel_expression = \"true\"];", unknown("cel_expression", "FieldRules")),
        ("int32 f = 1 [(buf.validate.field).int32.const = 1];", unknown("const", "Int32Rules")),
        ("Kind f = 1 [(buf.validate.field).enum.const = 1];", unknown("const", "EnumRules")),
        ("bytes f = 1 [(buf.validate.field).bytes.max_len = 1];", unknown("bytes", "FieldRules")),
        ("bool f = 1 [(buf.validate.field).bool.const = true];", unknown("bool", "FieldRules")),
        (
            "repeated string f = 1 [(buf.validate.field).repeated.items.string.prefix = \"a\"];",
            unknown("prefix", "StringRules"),
        ),
    ];
    for (field, expected) in cases {
        assert_eq!(field_faults(field), expected, "{field}");
    }
}

#[test]
fn a_rule_of_another_type_is_refused() {
    let faults = field_faults("repeated string f = 1 [(buf.validate.field).string.min_len = 1];");
    assert_eq!(
        faults,
        ["guildhall.content.v1.M.f: the generator does not know the rule `string` of buf.validate.FieldRules here"]
    );
}

#[test]
fn what_the_generator_cannot_check_is_refused() {
    let cases = [
        ("string f = 1 [(buf.validate.field).string.pattern = \"(\"];", "the pattern `(` cannot be read"),
        ("int32 f = 1 [(guildhall.mesh.v1.one_line) = true];", "`one_line` fits texts"),
        ("repeated bytes f = 1 [(guildhall.mesh.v1.one_line) = true];", "`one_line` fits texts"),
        ("map<string, string> f = 1;", "the generator does not know maps"),
        ("google.protobuf.Struct f = 1;", "there is no validator for google.protobuf.Struct"),
        ("string f = 1 [(buf.validate.field).ignore = IGNORE_ALWAYS];", "IGNORE_IF_ZERO_VALUE alone"),
        ("repeated double f = 1 [(buf.validate.field).repeated.unique = true];", "`repeated.unique` fits"),
        ("oneof o { string f = 1 [(buf.validate.field).required = true]; }", "`required` belongs to the oneof"),
    ];
    for (field, expected) in cases {
        let faults = field_faults(field);
        assert!(faults.len() == 1 && faults[0].starts_with("guildhall.content.v1.M.f: "), "{field}: {faults:?}");
        assert!(faults[0].contains(expected), "{field}: {faults:?}");
    }
    let cel = "option (buf.validate.message).cel_expression = \"true\"; string f = 1;";
    assert_eq!(field_faults(cel), ["guildhall.content.v1.M: the generator does not know rules of a whole message"]);
}

#[test]
fn an_event_has_one_key_and_a_topic_of_its_own() {
    let event = |name: &str, topic: &str, fields: &str| {
        format!("message {name} {{ option (guildhall.mesh.v1.topic) = \"{topic}\"; {fields} }}")
    };
    let key = "string id = 1 [(guildhall.mesh.v1.event_key) = true];";
    assert_eq!(faults(&event("E", "content.e.made", key)), [""; 0]);
    assert_eq!(
        faults(&event("E", "content.e.made", "string id = 1;")),
        ["guildhall.content.v1.E: an event needs exactly one field with event_key, not 0"]
    );
    assert_eq!(
        faults(&event("E", "content.e.made", &key.replace("string", "int32"))),
        ["guildhall.content.v1.E.id: an event_key must be one string"]
    );
    assert_eq!(
        faults(&event("E", "auth.e.made", key)),
        ["guildhall.content.v1.E: the topic `auth.e.made` must start with `content.`"]
    );
    assert_eq!(
        faults(&(event("E", "content.e.made", key) + &event("F", "content.e.made", key))),
        ["guildhall.content.v1.F: the topic `content.e.made` is that of guildhall.content.v1.E too"]
    );
}

#[test]
fn an_idempotency_key_is_one_string() {
    let faults = faults(&format!(
        "service S {{ rpc A(Ask) returns (Reply) {{ {ACCESS} }} }} message Reply {{}}
         message Ask {{ int32 id = 1 [(guildhall.mesh.v1.idempotency_key) = true]; }}"
    ));
    assert_eq!(
        faults,
        ["/guildhall.content.v1.S/A: the idempotency_key of guildhall.content.v1.Ask must be one string"]
    );
}

#[test]
fn every_fault_is_told_at_once() {
    let body = "service S { rpc A(Ask) returns (Reply); } message Reply {}
        message Ask { map<string, string> f = 1; }";
    assert_eq!(faults(body).len(), 2);
}

#[test]
fn generated_code_names_fields_and_types_as_prost_does() {
    let generated = generate::generate(&pool(
        "message M { enum Kind { NONE = 0; } Kind type = 1 [(buf.validate.field).enum.defined_only = true];
         message HTTPInfo { string x = 1; } optional HTTPInfo in_fo2 = 2; optional string note = 3; }",
    ));
    let generate::Generated { impls, tables } = generated.map_err(|faults| faults.join("\n")).unwrap();
    for expected in
        ["crate::generated::guildhall::content::v1::m::Kind::is_valid", "&self.r#type", "m::HttpInfo", "&self.in_fo2"]
    {
        assert!(impls.contains(expected), "{expected} in {impls}");
    }
    assert!(tables.contains("static METHODS"));
}

#[test]
fn messages_with_a_redacted_field_get_a_debug_of_their_own() {
    let pool = pool("message Open { string name = 1; } message Closed { string secret = 1 [debug_redact = true]; }");
    assert_eq!(redact::messages(&pool), [".guildhall.content.v1.Closed"]);
}
