//! Reading options from descriptors.

use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage, ServiceDescriptor, Value,
};

/// Packages of this project start so.
const OURS: &str = "guildhall.";

/// The services that the contracts define.
pub(crate) fn services(pool: &DescriptorPool) -> impl Iterator<Item = ServiceDescriptor> + '_ {
    pool.services().filter(|service| !service.full_name().starts_with("google."))
}

/// Their methods.
pub(crate) fn methods(pool: &DescriptorPool) -> impl Iterator<Item = MethodDescriptor> + '_ {
    services(pool).flat_map(|service| service.methods().collect::<Vec<_>>())
}

/// The messages that Rust code is generated for: ours, and `HttpBody`. The entries of maps are not messages in Rust.
pub(crate) fn messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    pool.all_messages().filter(|message| is_generated(message) && !message.is_map_entry())
}

/// Whether Rust code is generated for this message.
pub(crate) fn is_generated(message: &MessageDescriptor) -> bool {
    message.full_name().starts_with(OURS) || message.full_name() == "google.api.HttpBody"
}

/// `content` of `guildhall.content.v1`; empty for what all services share.
pub(crate) fn owner(package: &str) -> &str {
    match package.strip_prefix(OURS).and_then(|rest| rest.split('.').next()) {
        None | Some("common") => "",
        Some(service) => service,
    }
}

/// The value of the custom option `name`, where it is set.
pub(crate) fn extension(options: &DynamicMessage, name: &str) -> Option<Value> {
    options.extensions().find(|(extension, _)| extension.full_name() == name).map(|(_, value)| value.clone())
}

/// The message value of the custom option `name`, where it is set.
pub(crate) fn message_extension(options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    extension(options, name)?.as_message().cloned()
}

/// Fields of an option by name. A field that is not set has its type's zero value.
pub(crate) trait Read {
    fn value(&self, field: &str) -> Value;

    fn text(&self, field: &str) -> String {
        self.value(field).as_str().unwrap_or_default().to_owned()
    }
    fn number(&self, field: &str) -> u32 {
        self.value(field).as_u32().unwrap_or_default()
    }
    fn flag(&self, field: &str) -> bool {
        self.value(field).as_bool().unwrap_or_default()
    }
    /// The number of an enum's value.
    fn choice(&self, field: &str) -> i32 {
        self.value(field).as_enum_number().unwrap_or_default()
    }
    fn list(&self, field: &str) -> Vec<Value> {
        self.value(field).as_list().map(<[Value]>::to_vec).unwrap_or_default()
    }
    fn texts(&self, field: &str) -> Vec<String> {
        self.list(field).iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    }
}

impl Read for DynamicMessage {
    fn value(&self, field: &str) -> Value {
        let value = self.get_field_by_name(field);
        value.unwrap_or_else(|| panic!("{} has no field {field}", self.descriptor().full_name())).into_owned()
    }
}
