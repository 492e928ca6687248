//! JSON Schemas of messages, as the gateway reads and writes them, with the rules of `buf.validate`.
use std::collections::{BTreeMap, HashMap, HashSet};

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value as Field};
use serde_json::{Map, Value, json};

use super::comment::Comments;
use crate::transcode::{
    annotation::{Annotation, behaves},
    scalar::{self, WellKnown},
};

const UUID: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

/// The schemas that the operations refer to, each rendered once.
pub struct Schemas<'p> {
    pool: &'p DescriptorPool,
    comments: &'p Comments,
    /// How many messages and enums have a name below their package.
    names: HashMap<String, usize>,
    rendered: BTreeMap<String, Value>,
}

impl<'p> Schemas<'p> {
    pub fn new(pool: &'p DescriptorPool, comments: &'p Comments) -> Self {
        let mut names = HashMap::from([("Problem".to_owned(), 1)]);
        let messages = pool.all_messages().map(|message| local(message.full_name(), message.package_name()));
        for name in messages.chain(pool.all_enums().map(|kind| local(kind.full_name(), kind.package_name()))) {
            *names.entry(name).or_default() += 1;
        }
        Self { pool, comments, names, rendered: BTreeMap::new() }
    }

    pub fn finish(self) -> BTreeMap<String, Value> {
        self.rendered
    }

    /// The short name, unless two packages have it.
    fn name(&self, full: &str, package: &str) -> String {
        let name = local(full, package);
        if self.names.get(&name) == Some(&1) { name } else { full.to_owned() }
    }

    fn reference(&mut self, name: String, render: impl FnOnce(&mut Self) -> Value) -> Value {
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        if !self.rendered.contains_key(&name) {
            // A message that contains itself finds its name taken.
            self.rendered.insert(name.clone(), Value::Null);
            let schema = render(self);
            self.rendered.insert(name, schema);
        }
        reference
    }

    pub fn message(&mut self, message: &MessageDescriptor) -> Value {
        match WellKnown::of(message) {
            Some(WellKnown::Timestamp) => json!({"type": "string", "format": "date-time"}),
            Some(WellKnown::Duration) => json!({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"}),
            Some(WellKnown::FieldMask) => json!({"type": "string"}),
            Some(WellKnown::Any) => json!({"type": "object", "properties": {"@type": {"type": "string"}}}),
            Some(WellKnown::Loose) => match message.name() {
                "Struct" => json!({"type": "object"}),
                "ListValue" => json!({"type": "array", "items": {}}),
                _ => json!({}),
            },
            Some(WellKnown::Wrapper) => scalar::wrapped(message).map_or(json!({}), |kind| self.kind(&kind)),
            None if message.fields().len() == 0 => json!({"type": "object"}),
            None => {
                let name = self.name(message.full_name(), message.package_name());
                self.reference(name, |schemas| schemas.object(message, &HashSet::new()))
            }
        }
    }

    /// The schema of a message, less the fields that a path sets.
    pub fn object(&mut self, message: &MessageDescriptor, without: &HashSet<String>) -> Value {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in message.fields().filter(|field| !without.contains(field.name())) {
            let name = field.json_name().to_owned();
            if behaves(&field, "REQUIRED") {
                required.push(name.clone());
            }
            let schema = self.property(&field);
            properties.insert(name, schema);
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        describe(&mut schema, self.comments.of_message(message));
        schema
    }

    fn property(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = self.field(field);
        let mut text = self.comments.of_field(field);
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            let others = oneof.fields().filter(|other| other.number() != field.number());
            let others: Vec<_> = others.map(|other| format!("`{}`", other.json_name())).collect();
            if !others.is_empty() {
                let gap = if text.is_empty() { "" } else { "\n\n" };
                text.extend([gap, "Not together with ", &others.join(", "), "."]);
            }
        }
        describe(&mut schema, text);
        if behaves(field, "OUTPUT_ONLY") {
            schema["readOnly"] = true.into();
        }
        if field.field_descriptor_proto().options.as_ref().is_some_and(|options| options.deprecated.unwrap_or_default())
        {
            schema["deprecated"] = true.into();
        }
        schema
    }

    /// The schema of a field's value, with its rules.
    pub fn field(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = if field.is_list() {
            json!({"type": "array", "items": self.kind(&field.kind())})
        } else if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            json!({"type": "object", "additionalProperties": self.kind(&entry.map_entry_value_field().kind())})
        } else {
            self.kind(&field.kind())
        };
        let rules = Annotation::of(&field.options(), "buf.validate.field");
        if let Some(rules) = &rules {
            constrain(&mut schema, rules);
        }
        if Annotation::marks(&field.options(), "guildhall.mesh.v1.one_line") {
            let items = |rules: &Annotation| rules.nested("repeated")?.nested("items");
            let (schema, rules) = if field.is_list() {
                (&mut schema["items"], rules.as_ref().and_then(items))
            } else {
                (&mut schema, rules)
            };
            pattern(schema, contracts::ONE_LINE, rules.as_ref().is_some_and(ignores_zero));
        }
        schema
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::Float => json!({"type": "number", "format": "float"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "format": "uint32", "minimum": 0}),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({"type": "string", "format": "int64"}),
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Enum(_) if scalar::is_null(kind) => json!({"type": "null"}),
            Kind::Enum(kind) => self.symbols(kind),
            Kind::Message(message) => self.message(message),
        }
    }

    fn symbols(&mut self, kind: &EnumDescriptor) -> Value {
        let name = self.name(kind.full_name(), kind.package_name());
        self.reference(name, |schemas| {
            let mut schema = json!({"type": "string", "enum": kind.values().map(|value| value.name().to_owned()).collect::<Vec<_>>()});
            describe(&mut schema, schemas.comments.of_enum(kind));
            schema
        })
    }

    /// RFC 9457, with what the platform adds.
    pub fn problem(&mut self) -> Value {
        let reason = match self.pool.get_enum_by_name("guildhall.common.v1.Reason") {
            Some(reason) => self.symbols(&reason),
            None => json!({"type": "string"}),
        };
        let violation = json!({
            "type": "object",
            "required": ["field", "description"],
            "properties": {
                "field": {"type": "string", "description": "The JSON path of the field, such as `post.tags[3]`."},
                "description": {"type": "string"},
            },
        });
        json!({
            "type": "object",
            "description": "Why a request was refused (RFC 9457).",
            "required": ["type", "title", "status", "reason"],
            "properties": {
                "type": {"type": "string", "format": "uri-reference"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "instance": {"type": "string", "description": "The request's id."},
                "reason": reason,
                "violations": {"type": "array", "items": violation},
                "retryAfter": {"type": "integer", "description": "Seconds to wait before the request can succeed."},
            },
        })
    }
}

fn local(full: &str, package: &str) -> String {
    full.strip_prefix(package).map_or(full, |name| name.trim_start_matches('.')).to_owned()
}

fn describe(schema: &mut Value, text: String) {
    if !text.is_empty() {
        schema["description"] = text.into();
    }
}

/// Writes `buf.validate.FieldRules` as JSON Schema. Where a rule lets the zero value pass, what zero would break is left out.
fn constrain(schema: &mut Value, rules: &Annotation) {
    let zero = ignores_zero(rules);
    for (kind, rules) in rules.fields() {
        let Field::Message(rules) = rules else { continue };
        let rules = Annotation::new(rules);
        for (rule, value) in rules.fields() {
            match (kind.as_str(), &value) {
                ("repeated", Field::Message(items)) if rule == "items" => {
                    constrain(&mut schema["items"], &Annotation::new(items.clone()));
                }
                ("map", Field::Message(values)) if rule == "values" => {
                    constrain(&mut schema["additionalProperties"], &Annotation::new(values.clone()));
                }
                _ => write(schema, &kind, &rule, &value, zero),
            }
        }
    }
}

fn ignores_zero(rules: &Annotation) -> bool {
    rules.symbol("ignore").as_deref() == Some("IGNORE_IF_ZERO_VALUE")
}

/// Adds a regular expression that a text must match, besides those that it must match already.
fn pattern(schema: &mut Value, pattern: &str, zero: bool) {
    let pattern = if zero { format!("^$|{pattern}") } else { pattern.to_owned() };
    if schema.get("pattern").is_some() {
        schema["allOf"] = json!([{"pattern": pattern}]);
    } else {
        schema["pattern"] = pattern.into();
    }
}

fn write(schema: &mut Value, kind: &str, rule: &str, value: &Field, zero: bool) {
    // 64-bit numbers are strings in JSON: their bounds are no numbers there. Neither is an enum, which has names.
    if matches!(kind, "int64" | "uint64" | "sint64" | "sfixed64" | "fixed64" | "enum" | "bytes") {
        return;
    }
    let keyword = match (kind, rule) {
        ("string", "min_len") if !zero => "minLength",
        ("string", "max_len" | "max_bytes") => "maxLength",
        ("string", "pattern") => return pattern(schema, value.as_str().unwrap_or_default(), zero),
        ("string", "uuid") if zero => return pattern(schema, UUID, zero),
        ("string", "email" | "uuid" | "uri" | "hostname" | "ipv4" | "ipv6") => {
            if !zero && value.as_bool() == Some(true) {
                schema["format"] = rule.into();
            }
            return;
        }
        ("repeated", "min_items") if !zero => "minItems",
        ("repeated", "max_items") => "maxItems",
        ("repeated", "unique") => "uniqueItems",
        ("map", "min_pairs") if !zero => "minProperties",
        ("map", "max_pairs") => "maxProperties",
        ("repeated" | "map", _) => return,
        (_, "const") if !zero => "const",
        (_, "in") if !zero => "enum",
        (_, "gte") if !zero => "minimum",
        (_, "gt") if !zero => "exclusiveMinimum",
        (_, "lte") if !zero => "maximum",
        (_, "lt") if !zero => "exclusiveMaximum",
        _ => return,
    };
    if let Some(value) = constant(value) {
        // Of `max_len` and `max_bytes` the shorter counts: a character has at least one byte.
        let shorter = |old: &Value| keyword == "maxLength" && old.as_u64() < value.as_u64();
        if !schema.get(keyword).is_some_and(shorter) {
            schema[keyword] = value;
        }
    }
}

fn constant(value: &Field) -> Option<Value> {
    Some(match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::F32(value) => (*value).into(),
        Field::F64(value) => (*value).into(),
        Field::String(value) => value.clone().into(),
        Field::List(values) => values.iter().map(constant).collect::<Option<Vec<_>>>()?.into(),
        _ => return None,
    })
}
