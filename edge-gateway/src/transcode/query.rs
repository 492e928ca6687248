//! Fields from a query: JSON and proto names, dotted paths, repeated keys.
use std::collections::HashSet;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use status::Problem;

use super::{
    json::{self, OutputOnly, Reader, Step},
    percent::{self, Part},
    scalar::{self, WellKnown},
};

/// The pairs of a raw query, decoded.
pub fn pairs(query: &str) -> impl Iterator<Item = Result<(String, String), Problem>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |raw| percent::decode(raw, Part::Query).map(std::borrow::Cow::into_owned);
        decode(name)
            .zip(decode(value))
            .ok_or_else(|| json::malformed("The query has a malformed escape, or is not UTF-8"))
    })
}

/// Sets the fields that a query names, and gives their paths in proto names.
pub fn apply(query: &str, message: &mut DynamicMessage, output_only: &OutputOnly) -> Result<HashSet<String>, Problem> {
    let mut given = HashSet::new();
    for pair in pairs(query) {
        let (name, text) = pair?;
        let path = resolve(&message.descriptor(), &name).ok_or_else(|| json::unknown(&name))?;
        if path.iter().any(|field| output_only.contains(field.full_name())) {
            continue;
        }
        let field = path.last().expect("a resolved path has a field");
        let value = value(field, &text, output_only, &name)?;
        let first = given.insert(proto_path(&path));
        if !first && !field.is_list() {
            return Err(json::invalid(name, "occurs twice in the query"));
        }
        set(message, &path, value)?;
    }
    Ok(given)
}

/// The fields along a dotted path: single messages with members, and one field of any kind at the end.
pub fn resolve(message: &MessageDescriptor, path: &str) -> Option<Vec<FieldDescriptor>> {
    let mut fields: Vec<FieldDescriptor> = Vec::new();
    let mut message = Some(message.clone());
    for name in path.split('.') {
        if fields.len() == json::MOST_DEPTH {
            return None;
        }
        let field = json::lookup(&message?, name)?;
        message = json::plain(&field);
        fields.push(field);
    }
    Some(fields)
}

/// The path in proto names.
pub fn proto_path(path: &[FieldDescriptor]) -> String {
    path.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
}

/// The path in JSON names.
pub fn json_path(path: &[FieldDescriptor]) -> String {
    json::path(&path.iter().cloned().map(Step::Field).collect::<Vec<_>>())
}

/// Sets the field at the end of `path`, and the messages on the way to it. A list grows.
pub fn set(message: &mut DynamicMessage, path: &[FieldDescriptor], value: Value) -> Result<(), Problem> {
    let refuse = |fields: usize, expected| json::invalid(json_path(&path[..fields]), expected);
    let (field, parents) = path.split_last().expect("a path has a field");
    let mut target = message;
    for (index, parent) in parents.iter().enumerate() {
        if let Some(other) = json::rival(target, parent) {
            return Err(refuse(index + 1, json::together(&other)));
        }
        target = target.get_field_mut(parent).as_message_mut().expect("all but the last field of a path are messages");
    }
    match value {
        Value::List(values) => {
            let list = target.get_field_mut(field).as_list_mut().expect("a list is read for a list");
            list.extend(values);
            Ok(())
        }
        value => json::assign(target, field, value).map_err(|expected| refuse(path.len(), expected)),
    }
}

fn value(field: &FieldDescriptor, text: &str, output_only: &OutputOnly, name: &str) -> Result<Value, Problem> {
    let kind = field.kind();
    let loose = matches!(&kind, Kind::Message(message) if WellKnown::of(message) == Some(WellKnown::Loose));
    if field.is_map() || scalar::plain_message(&kind).is_some() {
        return Err(json::invalid(name, "cannot be given in a query"));
    }
    if loose && !field.is_list() {
        let read = Reader::new(output_only, false).field(text.as_bytes(), field);
        return read.ok().and_then(|(value, _)| value).ok_or_else(|| json::invalid(name, scalar::expected(&kind)));
    }
    let value = scalar::from_text(&kind, text).map_err(|expected| json::invalid(name, expected))?;
    Ok(if field.is_list() { Value::List(vec![value]) } else { value })
}
