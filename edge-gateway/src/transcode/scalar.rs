//! Single values: from the text of a path, a query or a JSON string, and from JSON numbers (proto3's JSON mapping).
use std::{borrow::Cow, str::FromStr};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MapKey, MessageDescriptor, Value};
use serde::de::{IntoDeserializer, value::Error as TextError};

/// What a value had to be, as the end of a sentence: `must be a string`.
pub type Expected = Cow<'static, str>;

/// A number as JSON has it.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    Whole(i128),
    Real(f64),
}

/// The messages of `google.protobuf` that JSON has in a form of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WellKnown {
    Any,
    Timestamp,
    Duration,
    FieldMask,
    /// Struct, Value and ListValue: any JSON.
    Loose,
    /// A wrapper of one scalar, its field 1.
    Wrapper,
}

impl WellKnown {
    pub fn of(message: &MessageDescriptor) -> Option<Self> {
        Some(match message.full_name().strip_prefix("google.protobuf.")? {
            "Any" => Self::Any,
            "Timestamp" => Self::Timestamp,
            "Duration" => Self::Duration,
            "FieldMask" => Self::FieldMask,
            "Struct" | "Value" | "ListValue" => Self::Loose,
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
            | "BoolValue" | "StringValue" | "BytesValue" => Self::Wrapper,
            _ => return None,
        })
    }
}

/// Whether the kind is a message with fields that JSON shows as an object's members.
pub fn plain_message(kind: &Kind) -> Option<&MessageDescriptor> {
    kind.as_message().filter(|message| WellKnown::of(message).is_none())
}

/// Whether a value of the kind has a form that is one text.
pub fn has_text(kind: &Kind) -> bool {
    match kind {
        Kind::Message(message) => matches!(
            WellKnown::of(message),
            Some(WellKnown::Timestamp | WellKnown::Duration | WellKnown::FieldMask | WellKnown::Wrapper)
        ),
        _ => true,
    }
}

/// Whether the kind is the enum whose one value is JSON's null.
pub fn is_null(kind: &Kind) -> bool {
    kind.as_enum().is_some_and(|kind| kind.full_name() == "google.protobuf.NullValue")
}

/// The scalar inside a wrapper.
pub fn wrapped(message: &MessageDescriptor) -> Option<Kind> {
    message.get_field(1).map(|field| field.kind())
}

/// A wrapper around `value`.
pub fn wrap(message: &MessageDescriptor, value: Value) -> Value {
    let mut wrapper = DynamicMessage::new(message.clone());
    wrapper.set_field_by_number(1, value);
    Value::Message(wrapper)
}

/// Reads the text of one value.
pub fn from_text(kind: &Kind, text: &str) -> Result<Value, Expected> {
    let value = match kind {
        Kind::Bool => text.parse().ok().map(Value::Bool),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => whole(text).map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => whole(text).map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => whole(text).map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => whole(text).map(Value::U64),
        Kind::Float => real(text, [f32::NAN, f32::INFINITY, f32::NEG_INFINITY], f32::is_finite).map(Value::F32),
        Kind::Double => real(text, [f64::NAN, f64::INFINITY, f64::NEG_INFINITY], f64::is_finite).map(Value::F64),
        Kind::String => Some(Value::String(text.to_owned())),
        Kind::Bytes => bytes(text).map(Value::Bytes),
        Kind::Enum(kind) => symbol(kind, text).map(Value::EnumNumber),
        Kind::Message(message) => match WellKnown::of(message) {
            Some(WellKnown::FieldMask) => mask(message, text),
            Some(WellKnown::Timestamp | WellKnown::Duration) => {
                let text = IntoDeserializer::<TextError>::into_deserializer(text);
                DynamicMessage::deserialize(message.clone(), text).ok().map(Value::Message)
            }
            Some(WellKnown::Wrapper) => {
                let inner = wrapped(message).ok_or_else(|| expected(kind))?;
                return from_text(&inner, text).map(|value| wrap(message, value));
            }
            _ => None,
        },
    };
    value.ok_or_else(|| expected(kind))
}

/// Reads a JSON number.
pub fn from_number(kind: &Kind, number: Number) -> Result<Value, Expected> {
    let value = match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => number.whole().map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => number.whole().map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => number.whole().map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => number.whole().map(Value::U64),
        Kind::Float => number.single().map(Value::F32),
        Kind::Double => Some(Value::F64(number.real())),
        Kind::Enum(_) => number.whole().map(Value::EnumNumber),
        Kind::Message(message) if WellKnown::of(message) == Some(WellKnown::Wrapper) => {
            let inner = wrapped(message).ok_or_else(|| expected(kind))?;
            return from_number(&inner, number).map(|value| wrap(message, value));
        }
        _ => None,
    };
    value.ok_or_else(|| expected(kind))
}

/// Reads the key of a map.
pub fn key(kind: &Kind, text: &str) -> Result<MapKey, Expected> {
    Ok(match from_text(kind, text)? {
        Value::Bool(key) => MapKey::Bool(key),
        Value::I32(key) => MapKey::I32(key),
        Value::I64(key) => MapKey::I64(key),
        Value::U32(key) => MapKey::U32(key),
        Value::U64(key) => MapKey::U64(key),
        Value::String(key) => MapKey::String(key),
        _ => return Err(expected(kind)),
    })
}

/// What a value of this kind must be.
pub fn expected(kind: &Kind) -> Expected {
    let range = |low: &dyn std::fmt::Display, high: &dyn std::fmt::Display| {
        format!("must be a whole number from {low} to {high}").into()
    };
    match kind {
        Kind::Bool => "must be true or false".into(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => range(&i32::MIN, &i32::MAX),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => range(&i64::MIN, &i64::MAX),
        Kind::Uint32 | Kind::Fixed32 => range(&0, &u32::MAX),
        Kind::Uint64 | Kind::Fixed64 => range(&0, &u64::MAX),
        Kind::Float => "must be a single-precision number, or \"NaN\", \"Infinity\" or \"-Infinity\"".into(),
        Kind::Double => "must be a number, or \"NaN\", \"Infinity\" or \"-Infinity\"".into(),
        Kind::String => "must be a string".into(),
        Kind::Bytes => "must be base64 text".into(),
        Kind::Enum(kind) => one_of(kind),
        Kind::Message(message) => match WellKnown::of(message) {
            Some(WellKnown::Timestamp) => "must be a time such as \"2026-01-31T12:00:00Z\"".into(),
            Some(WellKnown::Duration) => "must be a number of seconds such as \"1.5s\"".into(),
            Some(WellKnown::FieldMask) => "must be field paths joined by commas, such as \"title,cover.width\"".into(),
            Some(WellKnown::Loose) if message.name() == "ListValue" => "must be an array".into(),
            Some(WellKnown::Loose) if message.name() == "Value" => "must be a JSON value".into(),
            Some(WellKnown::Wrapper) => wrapped(message).map_or("must be a value".into(), |kind| expected(&kind)),
            _ => "must be an object".into(),
        },
    }
}

/// More names than this do not help anybody.
const MOST_NAMES: usize = 20;

fn one_of(kind: &EnumDescriptor) -> Expected {
    let zero_is_unspecified = |name: &str| name.ends_with("_UNSPECIFIED");
    let values = kind.values().filter(|value| value.number() != 0 || !zero_is_unspecified(value.name()));
    let names: Vec<_> = values.map(|value| value.name().to_owned()).collect();
    if names.is_empty() || names.len() > MOST_NAMES {
        return "must be a value of its enumeration".into();
    }
    format!("must be one of {}", names.join(", ")).into()
}

fn symbol(kind: &EnumDescriptor, text: &str) -> Option<i32> {
    kind.get_value_by_name(text).map(|value| value.number()).or_else(|| whole(text))
}

/// Paths joined by commas. Their names may be the fields' own too: both are accepted wherever a field is named.
fn mask(kind: &MessageDescriptor, text: &str) -> Option<Value> {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let snake_case = |path: &str| {
        path.chars().fold(String::with_capacity(path.len() + 4), |mut name, letter| {
            if letter.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
            name
        })
    };
    let paths = text.split(',').filter(|_| !text.is_empty());
    let paths = paths
        .map(|path| path.split('.').all(is_name).then(|| Value::String(snake_case(path))))
        .collect::<Option<Vec<_>>>()?;
    let mut mask = DynamicMessage::new(kind.clone());
    mask.set_field_by_number(1, Value::List(paths));
    Some(Value::Message(mask))
}

/// The most that a double counts exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Number {
    fn whole<T: TryFrom<i128>>(self) -> Option<T> {
        let whole = match self {
            Self::Whole(number) => number,
            #[expect(clippy::cast_possible_truncation, reason = "whole, and within what a double counts exactly")]
            Self::Real(number) if number.fract() == 0.0 && number.abs() <= EXACT => number as i128,
            Self::Real(_) => return None,
        };
        T::try_from(whole).ok()
    }

    pub fn real(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "the nearest double is what JSON promises")]
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }

    fn single(self) -> Option<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "the nearest single; beyond its range is refused below")]
        Some(self.real() as f32).filter(|single| single.is_finite())
    }
}

/// Whether the text is a number as JSON writes it, less the rule on leading zeros.
fn numeric(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
}

fn whole<T: TryFrom<i128>>(text: &str) -> Option<T> {
    if !numeric(text) {
        return None;
    }
    text.parse().map(Number::Whole).or_else(|_| text.parse().map(Number::Real)).ok()?.whole()
}

fn real<T: FromStr + Copy>(text: &str, [nan, infinity, negative]: [T; 3], finite: impl Fn(T) -> bool) -> Option<T> {
    match text {
        "NaN" => Some(nan),
        "Infinity" => Some(infinity),
        "-Infinity" => Some(negative),
        text if numeric(text) => text.parse().ok().filter(|number| finite(*number)),
        _ => None,
    }
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Base64 in either alphabet, with or without padding.
fn bytes(text: &str) -> Option<Bytes> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text).ok().map(Bytes::from)
}
