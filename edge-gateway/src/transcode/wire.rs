//! Messages to JSON: proto3's mapping, where fields without presence are always written, so that a client finds its lists and
//! numbers whatever they are, and fields that are not set are left out. Maps are written in the order of their keys: the same message
//! is the same text.
use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, SerializeOptions, Value};
use serde::Serialize;

use super::{json::MOST_DEPTH, scalar, scalar::WellKnown};

/// A message that has no JSON: a time out of its range. An error of the service.
#[derive(Debug, thiserror::Error)]
#[error("the answer has no JSON form: {0}")]
pub struct Error(#[from] serde_json::Error);

/// Writes a message.
pub fn message(message: &DynamicMessage) -> Result<Vec<u8>, Error> {
    let mut writer = Writer { out: Vec::with_capacity(512), depth: 0 };
    writer.message(message)?;
    Ok(writer.out)
}

/// Writes the value of one field; null where a message is not set.
pub fn field(message: &DynamicMessage, field: &FieldDescriptor) -> Result<Vec<u8>, Error> {
    let mut writer = Writer { out: Vec::with_capacity(512), depth: 0 };
    if field.supports_presence() && !message.has_field(field) {
        writer.raw("null");
    } else {
        writer.value(&message.get_field(field), &field.kind())?;
    }
    Ok(writer.out)
}

struct Writer {
    out: Vec<u8>,
    depth: usize,
}

impl Writer {
    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn serde(&mut self, value: impl Serialize) -> Result<(), Error> {
        Ok(serde_json::to_writer(&mut self.out, &value)?)
    }

    /// Starts a member of the object that began at `start`.
    fn key(&mut self, start: usize, name: &str) -> Result<(), Error> {
        if self.out.len() > start {
            self.raw(",");
        }
        self.serde(name)?;
        self.raw(":");
        Ok(())
    }

    fn message(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        let descriptor = message.descriptor();
        match WellKnown::of(&descriptor) {
            None => {
                self.raw("{");
                let start = self.out.len();
                self.members(message, start)?;
                self.raw("}");
                Ok(())
            }
            Some(WellKnown::Timestamp | WellKnown::Duration) => {
                message.serialize_with_options(
                    &mut serde_json::Serializer::new(&mut self.out),
                    &SerializeOptions::new(),
                )?;
                Ok(())
            }
            Some(WellKnown::FieldMask) => self.mask(message),
            Some(WellKnown::Wrapper) => match descriptor.get_field(1) {
                Some(field) => self.value(&message.get_field(&field), &field.kind()),
                None => self.serde(()),
            },
            Some(WellKnown::Loose) => self.loose(message),
            Some(WellKnown::Any) => self.any(message),
        }
    }

    fn members(&mut self, message: &DynamicMessage, start: usize) -> Result<(), Error> {
        self.depth += 1;
        for field in message.descriptor().fields() {
            if field.supports_presence() && !message.has_field(&field) {
                continue;
            }
            self.key(start, field.json_name())?;
            self.value(&message.get_field(&field), &field.kind())?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn value(&mut self, value: &Value, kind: &Kind) -> Result<(), Error> {
        match value {
            Value::Bool(value) => self.serde(value),
            Value::I32(value) => self.serde(value),
            Value::U32(value) => self.serde(value),
            Value::I64(value) => self.serde(value.to_string()),
            Value::U64(value) => self.serde(value.to_string()),
            Value::F32(value) if value.is_finite() && value.fract() != 0.0 => self.serde(value),
            Value::F32(value) => self.real(f64::from(*value)),
            Value::F64(value) => self.real(*value),
            Value::String(value) => self.serde(value),
            Value::Bytes(value) => self.serde(BASE64_STANDARD.encode(value)),
            Value::EnumNumber(_) if scalar::is_null(kind) => self.serde(()),
            Value::EnumNumber(number) => match kind.as_enum().and_then(|kind| kind.get_value(*number)) {
                Some(value) => self.serde(value.name()),
                None => self.serde(number),
            },
            Value::Message(message) => self.message(message),
            Value::List(values) => self.list(values, kind),
            Value::Map(values) => {
                let kind = kind.as_message().map_or(Kind::Bool, |entry| entry.map_entry_value_field().kind());
                let mut entries: Vec<_> = values.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                self.raw("{");
                let start = self.out.len();
                for (key, value) in entries {
                    self.key(start, &key_text(key))?;
                    self.value(value, &kind)?;
                }
                self.raw("}");
                Ok(())
            }
        }
    }

    fn list(&mut self, values: &[Value], kind: &Kind) -> Result<(), Error> {
        self.raw("[");
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            self.value(value, kind)?;
        }
        self.raw("]");
        Ok(())
    }

    /// A number as JavaScript writes it: `3`, not `3.0`.
    fn real(&mut self, value: f64) -> Result<(), Error> {
        /// The most below which every whole number is a double.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if value.is_nan() {
            self.serde("NaN")
        } else if value.is_infinite() {
            self.serde(if value > 0.0 { "Infinity" } else { "-Infinity" })
        } else if value.fract() == 0.0 && value.abs() < EXACT && (value != 0.0 || value.is_sign_positive()) {
            #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            self.serde(value as i64)
        } else {
            self.serde(value)
        }
    }

    /// Paths in lowerCamelCase. One that would not come back as it was is written anyway: it is the service's, and true.
    fn mask(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        let paths = message.get_field_by_number(1).unwrap_or(Cow::Owned(Value::List(Vec::new())));
        let paths = paths.as_list().unwrap_or_default().iter().filter_map(Value::as_str).map(camel_case);
        self.serde(paths.collect::<Vec<_>>().join(","))
    }

    /// A Struct, a Value or a ListValue.
    fn loose(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        let descriptor = message.descriptor();
        let set = match descriptor.name() {
            "Value" => message.fields().next(),
            _ => None,
        };
        match (set, descriptor.get_field(1)) {
            (Some((field, value)), _) => self.value(value, &field.kind()),
            (None, Some(field)) if descriptor.name() != "Value" => {
                self.value(&message.get_field(&field), &field.kind())
            }
            _ => self.serde(()),
        }
    }

    /// A type that the pool does not know, or bytes that are not of the type, are shown as they are, in base64.
    fn any(&mut self, any: &DynamicMessage) -> Result<(), Error> {
        let (url, bytes) = (any.get_field_by_number(1), any.get_field_by_number(2));
        let url = url.as_ref().and_then(|url| url.as_str()).unwrap_or_default();
        let bytes = bytes.as_ref().and_then(|bytes| bytes.as_bytes()).cloned().unwrap_or_default();
        self.raw("{");
        let start = self.out.len();
        if !url.is_empty() || !bytes.is_empty() {
            self.key(start, "@type")?;
            self.serde(url)?;
            let descriptor = any.descriptor();
            let inner = url.rsplit_once('/').and_then(|(_, name)| descriptor.parent_pool().get_message_by_name(name));
            let inner = inner
                .filter(|_| self.depth < MOST_DEPTH)
                .and_then(|inner| DynamicMessage::decode(inner, bytes.clone()).ok());
            self.depth += 1;
            match inner {
                Some(inner)
                    if WellKnown::of(&inner.descriptor()).is_none()
                        && inner.descriptor().full_name() != "google.protobuf.Empty" =>
                {
                    self.members(&inner, start)?;
                }
                Some(inner) => {
                    self.key(start, "value")?;
                    self.message(&inner)?;
                }
                None => {
                    self.key(start, "value")?;
                    self.serde(BASE64_STANDARD.encode(&bytes))?;
                }
            }
            self.depth -= 1;
        }
        self.raw("}");
        Ok(())
    }
}

fn key_text(key: &MapKey) -> Cow<'_, str> {
    match key {
        MapKey::Bool(key) => key.to_string().into(),
        MapKey::I32(key) => key.to_string().into(),
        MapKey::I64(key) => key.to_string().into(),
        MapKey::U32(key) => key.to_string().into(),
        MapKey::U64(key) => key.to_string().into(),
        MapKey::String(key) => key.into(),
    }
}

fn camel_case(path: &str) -> String {
    let mut camel = String::with_capacity(path.len());
    let mut upper = false;
    for letter in path.chars() {
        match letter {
            '_' => upper = true,
            letter if upper => {
                camel.push(letter.to_ascii_uppercase());
                upper = false;
            }
            letter => camel.push(letter),
        }
    }
    camel
}
