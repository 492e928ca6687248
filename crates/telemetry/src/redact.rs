use std::collections::HashSet;
use std::sync::LazyLock;

use prost::Message;

/// What is written in place of a secret.
pub(crate) const REDACTED: &str = "[redacted]";

/// Whether a log field is to be hidden: its name, or the last part of a dotted name, is that of a field that some contract
/// marks `debug_redact`.
pub(crate) fn hides(field: &str) -> bool {
    let last = field.rsplit('.').next().unwrap_or(field);
    NAMES.contains(last)
}

static NAMES: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let set = Files::decode(contracts::DESCRIPTOR_SET).expect("the descriptor set was encoded by our own build");
    let mut names = HashSet::new();
    set.files.into_iter().flat_map(|file| file.messages).for_each(|message| collect(message, &mut names));
    names
});

fn collect(message: Descriptor, names: &mut HashSet<String>) {
    let secret =
        message.fields.into_iter().filter(|field| field.options.as_ref().is_some_and(|options| options.debug_redact));
    names.extend(secret.map(|field| field.name));
    message.nested.into_iter().for_each(|nested| collect(nested, names));
}

// The part of descriptor.proto that matters here: prost-types does not know `debug_redact` yet.

#[derive(Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Message)]
struct File {
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Descriptor>,
}

#[derive(Message)]
struct Descriptor {
    #[prost(message, repeated, tag = "2")]
    fields: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    nested: Vec<Descriptor>,
}

#[derive(Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "8")]
    options: Option<Options>,
}

#[derive(Message)]
struct Options {
    #[prost(bool, tag = "16")]
    debug_redact: bool,
}
