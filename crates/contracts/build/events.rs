//! Event messages: those with a topic.

use std::collections::HashMap;

use proc_macro2::TokenStream;
use prost_reflect::{Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use quote::quote;

use super::{options, rust};

struct Event {
    message: MessageDescriptor,
    topic: String,
    keys: Vec<FieldDescriptor>,
}

fn events(pool: &DescriptorPool) -> impl Iterator<Item = Event> + '_ {
    options::messages(pool).filter_map(|message| {
        let topic = options::extension(&message.options(), "guildhall.mesh.v1.topic")?.as_str()?.to_owned();
        let is_key = |field: &FieldDescriptor| {
            options::extension(&field.options(), "guildhall.mesh.v1.event_key")
                .is_some_and(|value| value.as_bool() == Some(true))
        };
        let keys = message.fields().filter(is_key).collect();
        Some(Event { message, topic, keys })
    })
}

/// What is wrong with the events.
pub(crate) fn faults(pool: &DescriptorPool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut seen = HashMap::new();
    for event in events(pool) {
        let name = event.message.full_name().to_owned();
        let key_fits = |key: &FieldDescriptor| key.kind() == Kind::String && key.cardinality() != Cardinality::Repeated;
        match &event.keys[..] {
            [key] if key_fits(key) => {}
            [key] => faults.push(format!("{}: an event_key must be one string", key.full_name())),
            keys => faults.push(format!("{name}: an event needs exactly one field with event_key, not {}", keys.len())),
        }
        let owner = options::owner(event.message.package_name());
        if !event.topic.starts_with(&format!("{owner}.")) {
            faults.push(format!("{name}: the topic `{}` must start with `{owner}.`", event.topic));
        }
        if let Some(other) = seen.insert(event.topic.clone(), name.clone()) {
            faults.push(format!("{name}: the topic `{}` is that of {other} too", event.topic));
        }
    }
    faults
}

/// `impl Event` for each.
pub(crate) fn impls(pool: &DescriptorPool) -> TokenStream {
    events(pool)
        .map(|event| {
            let (message, topic) = (rust::message(&event.message), &event.topic);
            let keys = event.keys.iter().map(|key| rust::member(key.name()));
            quote! {
                impl crate::Event for #message {
                    const TOPIC: &'static str = #topic;

                    fn key(&self) -> &str {
                        #(&self.#keys)*
                    }
                }
            }
        })
        .collect()
}

/// `TOPICS`, sorted by name.
pub(crate) fn table(pool: &DescriptorPool) -> TokenStream {
    let mut events: Vec<_> = events(pool).collect();
    events.sort_by(|a, b| a.topic.cmp(&b.topic));
    let rows = events.iter().map(|Event { message, topic, .. }| {
        let (name, owner) = (message.full_name(), options::owner(message.package_name()));
        quote!(crate::Topic { name: #topic, message: #name, owner: #owner })
    });
    quote! {
        /// Every topic, sorted by name.
        pub static TOPICS: &[crate::Topic] = &[#(#rows),*];
    }
}
