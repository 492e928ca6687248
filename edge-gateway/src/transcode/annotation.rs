//! Reads annotations from the options of descriptors, by the definitions that the same pool carries.
use std::borrow::Cow;

use prost_reflect::{DynamicMessage, Kind, ReflectMessage, Value};

/// A message among a descriptor's options. A field that its definition lacks reads as absent.
#[derive(Debug, Clone)]
pub(crate) struct Annotation(DynamicMessage);

impl Annotation {
    pub fn new(message: DynamicMessage) -> Self {
        Self(message)
    }

    /// The value of the extension `name` among `options`; none if it is not set, or the pool does not define it.
    pub fn value(options: &DynamicMessage, name: &str) -> Option<Value> {
        let extension = options.descriptor().parent_pool().get_extension_by_name(name)?;
        options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())
    }

    /// The same, where it is a message.
    pub fn of(options: &DynamicMessage, name: &str) -> Option<Self> {
        match Self::value(options, name)? {
            Value::Message(message) => Some(Self(message)),
            _ => None,
        }
    }

    /// Whether the flag `name` is set among `options`.
    pub fn marks(options: &DynamicMessage, name: &str) -> bool {
        Self::value(options, name).and_then(|value| value.as_bool()).unwrap_or_default()
    }

    /// The fields that are set, by their proto names.
    pub fn fields(&self) -> impl Iterator<Item = (String, Value)> {
        self.0.fields().map(|(field, value)| (field.name().to_owned(), value.clone()))
    }

    pub fn get(&self, field: &str) -> Option<Cow<'_, Value>> {
        self.0.has_field_by_name(field).then(|| self.0.get_field_by_name(field)).flatten()
    }

    pub fn nested(&self, field: &str) -> Option<Self> {
        match self.get(field)?.into_owned() {
            Value::Message(message) => Some(Self(message)),
            _ => None,
        }
    }

    pub fn list(&self, field: &str) -> Vec<Value> {
        match self.get(field).map(Cow::into_owned) {
            Some(Value::List(values)) => values,
            _ => Vec::new(),
        }
    }

    pub fn messages(&self, field: &str) -> Vec<Self> {
        let message = |value| if let Value::Message(message) = value { Some(Self(message)) } else { None };
        self.list(field).into_iter().filter_map(message).collect()
    }

    /// Text that is set and not empty.
    pub fn text(&self, field: &str) -> Option<String> {
        Some(self.get(field)?.as_str()?.to_owned()).filter(|text| !text.is_empty())
    }

    pub fn texts(&self, field: &str) -> Vec<String> {
        self.list(field).iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    }

    pub fn number(&self, field: &str) -> u32 {
        self.get(field).and_then(|value| value.as_u32()).unwrap_or_default()
    }

    pub fn flag(&self, field: &str) -> bool {
        self.get(field).and_then(|value| value.as_bool()).unwrap_or_default()
    }

    /// The name of an enum's value.
    pub fn symbol(&self, field: &str) -> Option<String> {
        let Kind::Enum(kind) = self.0.descriptor().get_field_by_name(field)?.kind() else { return None };
        Some(kind.get_value(self.get(field)?.as_enum_number()?)?.name().to_owned())
    }
}

/// Whether a field is marked `google.api.field_behavior = <behavior>`.
pub(crate) fn behaves(field: &prost_reflect::FieldDescriptor, behavior: &str) -> bool {
    let options = field.options();
    let Some(Value::List(set)) = Annotation::value(&options, "google.api.field_behavior") else { return false };
    let Some(kind) = field.parent_pool().get_enum_by_name("google.api.FieldBehavior") else { return false };
    let named = |value: &Value| {
        value.as_enum_number().and_then(|number| kind.get_value(number)).is_some_and(|value| value.name() == behavior)
    };
    set.iter().any(named)
}
