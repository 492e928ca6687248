//! The update mask of a PATCH that came without one: what the body's own keys say (AIP-134).
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

/// The request's `update_mask`, where it has one.
pub fn field(request: &MessageDescriptor) -> Option<FieldDescriptor> {
    let is_mask =
        |kind: &Kind| kind.as_message().is_some_and(|message| message.full_name() == "google.protobuf.FieldMask");
    request.get_field_by_name("update_mask").filter(|field| is_mask(&field.kind()) && !field.is_list())
}

/// The mask of the fields that a body gave, in proto names. The resource's id and its etag say which one is meant, not what changes.
pub fn of(field: &FieldDescriptor, given: &[String]) -> Value {
    let Kind::Message(kind) = field.kind() else { unreachable!("`field` found a message") };
    let paths = given.iter().filter(|path| !matches!(path.as_str(), "id" | "etag")).cloned().map(Value::String);
    let mut mask = DynamicMessage::new(kind);
    mask.set_field_by_number(1, Value::List(paths.collect()));
    Value::Message(mask)
}
