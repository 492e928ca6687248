//! JSON to messages, in one pass over the text: proto3's JSON mapping, strict. Unknown fields, duplicate keys, wrong types, trailing
//! text and deep nesting are refused with the field's JSON path; nothing of the parser shows.
use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
    sync::Arc,
};

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapDeserializer,
};
use serde_json::{error::Category, value::RawValue};
use status::{Problem, Reason};

use super::scalar::{self, Expected, Number, WellKnown};

/// The deepest nesting of objects and arrays; protobuf's own limit.
pub const MOST_DEPTH: usize = 100;

const NO_OBJECT: &str = "The body must be a JSON object";

/// The fields, by full name, that a client does not set (AIP-203 OUTPUT_ONLY): ignored where a request has them.
pub type OutputOnly = Arc<HashSet<String>>;

/// One step of a JSON path.
#[derive(Debug, Clone)]
pub enum Step {
    Field(FieldDescriptor),
    Index(usize),
    Key(String),
}

/// A JSON path: `post.tags[3]`, `labels["a"].name`.
pub fn path(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        let dot = if path.is_empty() { "" } else { "." };
        let written = match step {
            Step::Field(field) => write!(path, "{dot}{}", field.json_name()),
            Step::Index(index) => write!(path, "[{index}]"),
            Step::Key(key) => write!(path, "[{}]", serde_json::Value::from(key.as_str())),
        };
        written.expect("writing to a string does not fail");
    }
    path
}

pub fn malformed(text: impl Into<String>) -> Problem {
    Problem::new(Reason::MalformedRequest).message(text)
}

pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Problem {
    Problem::new(Reason::InvalidFields).violation(shorten(field.into()), description)
}

pub fn unknown(field: impl Into<String>) -> Problem {
    Problem::new(Reason::UnknownField).violation(shorten(field.into()), "there is no such field")
}

/// The most bytes of a path in a problem: a client's own keys are no longer than the rest of the answer.
const LONGEST_PATH: usize = 256;

fn shorten(mut path: String) -> String {
    if path.len() > LONGEST_PATH {
        path.truncate(path.floor_char_boundary(LONGEST_PATH));
        path.push('…');
    }
    path
}

/// Sets a field, unless another member of its oneof is set.
pub fn assign(message: &mut DynamicMessage, field: &FieldDescriptor, value: Value) -> Result<(), Expected> {
    if let Some(other) = rival(message, field) {
        return Err(together(&other));
    }
    message.set_field(field, value);
    Ok(())
}

/// What is wrong with a second member of a oneof.
pub fn together(other: &FieldDescriptor) -> Expected {
    format!("cannot be given together with `{}`", other.json_name()).into()
}

/// The other member of the field's oneof that is set.
pub fn rival(message: &DynamicMessage, field: &FieldDescriptor) -> Option<FieldDescriptor> {
    field.containing_oneof()?.fields().find(|other| other.number() != field.number() && message.has_field(other))
}

/// Reads one JSON document.
pub struct Reader<'a> {
    output_only: &'a OutputOnly,
    path: Vec<Step>,
    depth: usize,
    /// The paths, in proto names below the document's root, of what was given: where it is wanted, and outside lists and maps.
    given: Option<Vec<String>>,
    names: Vec<String>,
    refusal: Option<Problem>,
}

impl<'a> Reader<'a> {
    /// `track` keeps the paths of the fields that the document gives.
    pub fn new(output_only: &'a OutputOnly, track: bool) -> Self {
        let given = track.then(Vec::new);
        Self { output_only, path: Vec::new(), depth: 0, given, names: Vec::new(), refusal: None }
    }

    /// Reads a document that is the whole message.
    pub fn message(mut self, json: &[u8], into: &mut DynamicMessage) -> Result<Vec<String>, Problem> {
        let kind = Kind::Message(into.descriptor());
        let slot = Slot { reader: &mut self, kind: kind.clone(), shape: Shape::Single };
        match document(json, slot) {
            Ok(Some(Value::Message(message))) => *into = message,
            Ok(_) => return Err(malformed(NO_OBJECT)),
            Err(error) => return Err(self.refuse(&error)),
        }
        Ok(self.given.unwrap_or_default())
    }

    /// Reads a document that is the value of one field; none where it is null.
    pub fn field(mut self, json: &[u8], field: &FieldDescriptor) -> Result<(Option<Value>, Vec<String>), Problem> {
        self.path.push(Step::Field(field.clone()));
        if plain(field).is_none() {
            self.given = None;
        }
        let slot = Slot::of(&mut self, field);
        match document(json, slot) {
            Ok(value) => Ok((value, self.given.unwrap_or_default())),
            Err(error) => Err(self.refuse(&error)),
        }
    }

    fn refuse(mut self, error: &Failure) -> Problem {
        match (self.refusal.take(), error) {
            (Some(refusal), _) => refusal,
            (None, Failure::Encoding) => malformed("The text is not UTF-8"),
            (None, Failure::Json(error)) if error.classify() == Category::Data => {
                malformed("The text is not valid JSON")
            }
            (None, Failure::Json(error)) => {
                malformed(format!("The text is not valid JSON: line {}, column {}", error.line(), error.column()))
            }
        }
    }

    /// Keeps why the document is refused, and gives serde an error that says nothing.
    fn stop<E: serde::de::Error>(&mut self, refusal: Problem) -> E {
        self.refusal.get_or_insert(refusal);
        E::custom("refused")
    }

    fn invalid<E: serde::de::Error>(&mut self, expected: Expected) -> E {
        let refusal = if self.path.is_empty() { malformed(NO_OBJECT) } else { invalid(path(&self.path), expected) };
        self.stop(refusal)
    }

    fn duplicate<E: serde::de::Error>(&mut self) -> E {
        let refusal =
            malformed("A key occurs twice in one object").violation(shorten(path(&self.path)), "occurs twice");
        self.stop(refusal)
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(self.stop(malformed(format!("The JSON is nested more than {MOST_DEPTH} deep"))));
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Reads the members of an object into a message.
    fn members<'de, A: MapAccess<'de>>(
        &mut self,
        message: &mut DynamicMessage,
        mut members: A,
    ) -> Result<(), A::Error> {
        let descriptor = message.descriptor();
        let mut seen = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            let Some(field) = lookup(&descriptor, &name) else {
                let at =
                    [path(&self.path), name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
                return Err(self.stop(unknown(at)));
            };
            self.path.push(Step::Field(field.clone()));
            if !seen.insert(field.number()) {
                return Err(self.duplicate());
            }
            if self.output_only.contains(field.full_name()) {
                members.next_value::<IgnoredAny>()?;
            } else if let Some(value) = self.member(&field, &mut members)? {
                assign(message, &field, value).map_err(|expected| self.invalid(expected))?;
            }
            self.path.pop();
        }
        if seen.is_empty() {
            self.give();
        }
        Ok(())
    }

    /// Reads one member, and notes its path: a nested message notes the paths of its own members.
    fn member<'de, A: MapAccess<'de>>(
        &mut self,
        field: &FieldDescriptor,
        members: &mut A,
    ) -> Result<Option<Value>, A::Error> {
        if self.given.is_none() {
            return members.next_value_seed(Slot::of(self, field));
        }
        self.names.push(field.name().to_owned());
        let nested = plain(field).is_some();
        let outer = if nested { None } else { self.given.take() };
        let value = members.next_value_seed(Slot::of(self, field))?;
        if !nested {
            self.given = outer;
        }
        if !nested || value.is_none() {
            self.give();
        }
        self.names.pop();
        Ok(value)
    }

    fn give(&mut self) {
        if let Some(given) = self.given.as_mut().filter(|_| !self.names.is_empty()) {
            given.push(self.names.join("."));
        }
    }

    /// Reads `{"@type": …}`: its members can only be read once the type is known, wherever it stands among them.
    fn any<'de, A: MapAccess<'de>>(
        &mut self,
        kind: &MessageDescriptor,
        mut entries: A,
    ) -> Result<DynamicMessage, A::Error> {
        let mut any = DynamicMessage::new(kind.clone());
        let (mut url, mut members) = (None, Vec::<(String, Box<RawValue>)>::new());
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value::<Box<RawValue>>()?;
            if name != "@type" {
                members.push((name, value));
            } else if url.replace(value).is_some() {
                return Err(self.duplicate());
            }
        }
        let Some(url) = url else {
            return if members.is_empty() { Ok(any) } else { Err(self.invalid("must have an \"@type\"".into())) };
        };
        let url = serde_json::from_str::<String>(url.get()).ok();
        let Some((url, inner)) =
            url.and_then(|url| Some((url.clone(), kind.parent_pool().get_message_by_name(url.rsplit_once('/')?.1)?)))
        else {
            return Err(self.invalid("must have a known \"@type\"".into()));
        };
        let members = MapDeserializer::new(members.iter().map(|(name, value)| (name.as_str(), &**value)));
        let value = self.any_value(&inner, members).map_err(|_: serde_json::Error| A::Error::custom("refused"))?;
        any.set_field_by_number(1, Value::String(url));
        any.set_field_by_number(2, Value::Bytes(prost_reflect::prost::Message::encode_to_vec(&value).into()));
        Ok(any)
    }

    fn any_value<'de, A: MapAccess<'de>>(
        &mut self,
        kind: &MessageDescriptor,
        mut members: A,
    ) -> Result<DynamicMessage, A::Error> {
        let mut message = DynamicMessage::new(kind.clone());
        if WellKnown::of(kind).is_none() && kind.full_name() != "google.protobuf.Empty" {
            self.members(&mut message, members)?;
            return Ok(message);
        }
        while let Some(name) = members.next_key::<String>()? {
            if name != "value" {
                let at = format!("{}.{name}", path(&self.path));
                return Err(self.stop(unknown(at)));
            }
            match members.next_value_seed(Slot {
                reader: self,
                kind: Kind::Message(kind.clone()),
                shape: Shape::Single,
            })? {
                Some(Value::Message(value)) => message = value,
                _ => return Err(self.invalid(scalar::expected(&Kind::Message(kind.clone())))),
            }
        }
        Ok(message)
    }
}

/// A field by its JSON name or its proto name.
pub fn lookup(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

/// The field's message, where it is a single one with members.
pub fn plain(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    if field.is_list() || field.is_map() {
        return None;
    }
    scalar::plain_message(&field.kind()).cloned()
}

enum Failure {
    Encoding,
    Json(serde_json::Error),
}

fn document<'de, S: DeserializeSeed<'de>>(json: &'de [u8], seed: S) -> Result<S::Value, Failure> {
    let text = std::str::from_utf8(json).map_err(|_| Failure::Encoding)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer).map_err(Failure::Json)?;
    deserializer.end().map_err(Failure::Json)?;
    Ok(value)
}

/// Where a value goes. Reads to none for a null that leaves the field alone.
struct Slot<'r, 'a> {
    reader: &'r mut Reader<'a>,
    kind: Kind,
    shape: Shape,
}

enum Shape {
    Single,
    List,
    /// The kind is the map's entry.
    Map,
}

impl<'r, 'a> Slot<'r, 'a> {
    fn of(reader: &'r mut Reader<'a>, field: &FieldDescriptor) -> Self {
        let shape = match field {
            field if field.is_list() => Shape::List,
            field if field.is_map() => Shape::Map,
            _ => Shape::Single,
        };
        Self { reader, kind: field.kind(), shape }
    }

    fn mismatch<E: serde::de::Error>(self) -> E {
        let expected = match self.shape {
            Shape::Single => scalar::expected(&self.kind),
            Shape::List => "must be an array".into(),
            Shape::Map => "must be an object".into(),
        };
        self.reader.invalid(expected)
    }

    fn single<E: serde::de::Error>(
        self,
        read: impl FnOnce(&Kind) -> Result<Value, Expected>,
    ) -> Result<Option<Value>, E> {
        match self.shape {
            Shape::Single => read(&self.kind).map(Some).map_err(|expected| self.reader.invalid(expected)),
            _ => Err(self.mismatch()),
        }
    }

    /// Reads into a Struct, a Value or a ListValue.
    fn loose<'de, D: Deserializer<'de>>(
        self,
        message: &MessageDescriptor,
        deserializer: D,
    ) -> Result<Option<Value>, D::Error> {
        use prost_reflect::prost_types::{Value as Any, value::Kind as Case};
        let value = deserializer.deserialize_any(Loose(self.reader))?;
        let mut into = DynamicMessage::new(message.clone());
        let filled = match (message.name(), value.kind) {
            ("Value", kind) => into.transcode_from(&Any { kind }),
            (_, None | Some(Case::NullValue(_))) => return Ok(None),
            ("Struct", Some(Case::StructValue(value))) => into.transcode_from(&value),
            ("ListValue", Some(Case::ListValue(value))) => into.transcode_from(&value),
            _ => return Err(self.mismatch()),
        };
        match filled {
            Ok(()) => Ok(Some(Value::Message(into))),
            Err(_) => Err(self.reader.invalid("is nested too deeply".into())),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Slot<'_, '_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let message =
            self.kind.as_message().filter(|message| WellKnown::of(message) == Some(WellKnown::Loose)).cloned();
        match (message, &self.shape) {
            (Some(message), Shape::Single) => self.loose(&message, deserializer),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Slot<'_, '_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        let null = matches!(self.shape, Shape::Single) && scalar::is_null(&self.kind);
        Ok(null.then_some(Value::EnumNumber(0)))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.single(|kind| match kind {
            Kind::Bool => Ok(Value::Bool(value)),
            Kind::Message(message) if message.full_name() == "google.protobuf.BoolValue" => {
                Ok(scalar::wrap(message, Value::Bool(value)))
            }
            kind => Err(scalar::expected(kind)),
        })
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.single(|kind| scalar::from_number(kind, Number::Whole(value.into())))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.single(|kind| scalar::from_number(kind, Number::Whole(value.into())))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        self.single(|kind| scalar::from_number(kind, Number::Real(value)))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
        self.single(|kind| match kind {
            Kind::Bool => Err(scalar::expected(kind)),
            Kind::Message(message) if message.full_name() == "google.protobuf.BoolValue" => Err(scalar::expected(kind)),
            kind => scalar::from_text(kind, value),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        if !matches!(self.shape, Shape::List) {
            return Err(self.mismatch());
        }
        let Self { reader, kind, .. } = self;
        reader.enter()?;
        let mut values = Vec::new();
        loop {
            reader.path.push(Step::Index(values.len()));
            match elements.next_element_seed(Slot { reader, kind: kind.clone(), shape: Shape::Single })? {
                None => break,
                Some(Some(value)) => values.push(value),
                Some(None) => return Err(reader.invalid("must not be null".into())),
            }
            reader.path.pop();
        }
        reader.path.pop();
        reader.leave();
        Ok(Some(Value::List(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let Kind::Message(message) = &self.kind else { return Err(self.mismatch()) };
        match (&self.shape, WellKnown::of(message)) {
            (Shape::Single, None) => {
                let mut value = DynamicMessage::new(message.clone());
                self.reader.enter()?;
                self.reader.members(&mut value, entries)?;
                self.reader.leave();
                Ok(Some(Value::Message(value)))
            }
            (Shape::Single, Some(WellKnown::Any)) => {
                self.reader.enter()?;
                let value = self.reader.any(message, entries)?;
                self.reader.leave();
                Ok(Some(Value::Message(value)))
            }
            (Shape::Map, _) => {
                let (key_kind, value_field) = (message.map_entry_key_field().kind(), message.map_entry_value_field());
                let reader = self.reader;
                reader.enter()?;
                let mut values = HashMap::new();
                while let Some(name) = entries.next_key::<String>()? {
                    reader.path.push(Step::Key(name.clone()));
                    let key = scalar::key(&key_kind, &name)
                        .map_err(|expected| reader.invalid(format!("as a key, {expected}").into()))?;
                    if values.contains_key(&key) {
                        return Err(reader.duplicate());
                    }
                    let Some(value) = entries.next_value_seed(Slot::of(reader, &value_field))? else {
                        return Err(reader.invalid("must not be null".into()));
                    };
                    values.insert(key, value);
                    reader.path.pop();
                }
                reader.leave();
                Ok(Some(Value::Map(values)))
            }
            _ => Err(self.mismatch()),
        }
    }
}

/// Any JSON, as `google.protobuf.Value`.
struct Loose<'r, 'a>(&'r mut Reader<'a>);

impl<'de> DeserializeSeed<'de> for Loose<'_, '_> {
    type Value = prost_reflect::prost_types::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Loose<'_, '_> {
    type Value = prost_reflect::prost_types::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(prost_reflect::prost_types::value::Kind::NullValue(0).into())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Number::Whole(value.into()).real().into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Number::Whole(value.into()).real().into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(value.to_owned().into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        self.0.enter()?;
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(Loose(self.0))? {
            values.push(value);
        }
        self.0.leave();
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        self.0.enter()?;
        let mut fields = std::collections::BTreeMap::new();
        while let Some(name) = members.next_key::<String>()? {
            self.0.path.push(Step::Key(name.clone()));
            if fields.contains_key(&name) {
                return Err(self.0.duplicate());
            }
            fields.insert(name, members.next_value_seed(Loose(self.0))?);
            self.0.path.pop();
        }
        self.0.leave();
        Ok(fields.into())
    }
}
