//! `impl Validate` from the `buf.validate` rules. A rule that is not read here is a fault, never ignored.

use heck::ToLowerCamelCase;
use proc_macro2::{Literal, TokenStream};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor, ReflectMessage, Value,
};
use quote::quote;
use regex::Regex;

use super::options::{self, Read};
use super::rust;

/// Messages of other crates that `src/validate.rs` knows.
const WELL_KNOWN: [&str; 4] =
    ["google.protobuf.Any", "google.protobuf.Duration", "google.protobuf.FieldMask", "google.protobuf.Timestamp"];
const IGNORE_UNSPECIFIED: i32 = 0;
const IGNORE_IF_ZERO_VALUE: i32 = 1;

/// One for each message, or what is wrong with the rules.
pub(crate) fn impls(pool: &DescriptorPool) -> Result<TokenStream, Vec<String>> {
    let mut generator = Generator { faults: Vec::new() };
    let impls: TokenStream = options::messages(pool).map(|message| generator.message(&message)).collect();
    if generator.faults.is_empty() {
        return Ok(quote!(
            use crate::validate::{Choice, Form, Number, Pattern, Repeated, Text, compile, is_zero, report};
            #impls
        ));
    }
    Err(generator.faults)
}

struct Generator {
    faults: Vec<String>,
}

/// One value to check: what a field holds, or an item of a list.
struct Element<'a> {
    /// The field's full name, for faults.
    place: &'a str,
    kind: Kind,
    /// Its `buf.validate.FieldRules`.
    rules: Option<DynamicMessage>,
    /// Its `guildhall.mesh.v1.one_line`.
    one_line: bool,
}

impl Generator {
    fn message(&mut self, message: &MessageDescriptor) -> TokenStream {
        if options::extension(&message.options(), "buf.validate.message").is_some() {
            self.fault(message.full_name(), "the generator does not know rules of a whole message");
        }
        let path = rust::message(message);
        let fields: TokenStream =
            message.fields().filter(|field| real_oneof(field).is_none()).map(|field| self.field(&field)).collect();
        let oneofs: TokenStream =
            message.oneofs().filter(|oneof| !oneof.is_synthetic()).map(|oneof| self.oneof(&oneof)).collect();
        quote! {
            impl crate::Validate for #path {
                fn validate(&self, at: &mut crate::FieldPath, out: &mut Vec<::status::Violation>) {
                    let _ = (&at, &out);
                    #fields
                    #oneofs
                }
            }
        }
    }

    /// The statement that checks a field which is in no oneof.
    fn field(&mut self, field: &FieldDescriptor) -> TokenStream {
        let rules = field_rules(field);
        let required = rules.as_ref().is_some_and(|rules| rules.flag("required"));
        let member = rust::member(field.name());
        let check = self.presence_checked(field, rules);
        let (present, absent) = if field.supports_presence() && !field.is_list() {
            (quote!(let Some(value) = &self.#member), quote!(self.#member.is_none()))
        } else {
            (quote!(let value = &self.#member), quote!(is_zero(&self.#member)))
        };
        let body = match (required, check.is_empty()) {
            (false, true) => return TokenStream::new(),
            (true, true) => quote!(if #absent { report(at, out, "must be given"); }),
            (true, false) => quote! {
                if #absent { report(at, out, "must be given"); } else if #present { #check }
            },
            (false, false) if field.supports_presence() && !field.is_list() => quote!(if #present { #check }),
            (false, false) => quote!(#present; #check),
        };
        at_field(field.json_name(), &body)
    }

    fn oneof(&mut self, oneof: &OneofDescriptor) -> TokenStream {
        let mut required = false;
        if let Some(rules) = options::message_extension(&oneof.options(), "buf.validate.oneof") {
            self.refuse_unknown(oneof.full_name(), &rules, &["required"]);
            required = rules.flag("required");
        }
        let path = rust::oneof(oneof);
        let member = rust::member(oneof.name());
        let arms: Vec<_> = oneof
            .fields()
            .map(|field| {
                let rules = field_rules(&field);
                if rules.as_ref().is_some_and(|rules| rules.flag("required")) {
                    self.fault(field.full_name(), "`required` belongs to the oneof, not to one of its fields");
                }
                let check = at_field(field.json_name(), &self.presence_checked(&field, rules));
                let variant = rust::variant(&field);
                quote!(Some(#path::#variant(value)) => { let _ = value; #check })
            })
            .collect();
        let absent = if required {
            let names: Vec<_> = oneof.fields().map(|field| field.json_name().to_owned()).collect();
            let description = format!("needs one of {}", names.join(", "));
            at_field(&oneof.name().to_lower_camel_case(), &quote!(report(at, out, #description);))
        } else {
            TokenStream::new()
        };
        quote!(match &self.#member { #(#arms)* None => { #absent } })
    }

    /// Checks `value`, which is a reference to what the field holds.
    fn presence_checked(&mut self, field: &FieldDescriptor, rules: Option<DynamicMessage>) -> TokenStream {
        let ignore = rules.as_ref().map_or(IGNORE_UNSPECIFIED, |rules| rules.choice("ignore"));
        let check = if field.is_map() {
            self.fault(field.full_name(), "the generator does not know maps");
            TokenStream::new()
        } else if field.is_list() {
            self.list(field, rules)
        } else {
            self.single(&Element { place: field.full_name(), kind: field.kind(), rules, one_line: is_one_line(field) })
        };
        self.unless_ignored(field.full_name(), ignore, check)
    }

    fn unless_ignored(&mut self, place: &str, ignore: i32, check: TokenStream) -> TokenStream {
        match ignore {
            _ if check.is_empty() => check,
            IGNORE_UNSPECIFIED => check,
            IGNORE_IF_ZERO_VALUE => quote!(if !is_zero(value) { #check }),
            _ => {
                self.fault(place, "of `ignore` the generator knows IGNORE_IF_ZERO_VALUE alone");
                check
            }
        }
    }

    fn list(&mut self, field: &FieldDescriptor, rules: Option<DynamicMessage>) -> TokenStream {
        let place = field.full_name();
        let repeated = self.group(place, rules, "repeated", &["min_items", "max_items", "unique", "items"]);
        let items =
            repeated.as_ref().filter(|rules| rules.has_field_by_name("items")).map(|rules| rules.value("items"));
        let items = items.and_then(|items| items.as_message().cloned());
        if items.as_ref().is_some_and(|items| items.flag("required")) {
            self.fault(place, "`required` means nothing for the items of a list");
        }
        let ignore = items.as_ref().map_or(IGNORE_UNSPECIFIED, |items| items.choice("ignore"));
        let item = self.single(&Element { place, kind: field.kind(), rules: items, one_line: is_one_line(field) });
        let item = self.unless_ignored(place, ignore, item);
        let each = if item.is_empty() {
            TokenStream::new()
        } else {
            quote!(for (index, value) in value.iter().enumerate() { at.index(index, |at| { #item }); })
        };
        let Some(repeated) = repeated else { return each };

        let bounds = ["min_items", "max_items"].map(|rule| size(&repeated, rule));
        let bounds = bounds.iter().flatten();
        let unique = repeated.flag("unique").then(|| {
            if matches!(field.kind(), Kind::Message(_) | Kind::Float | Kind::Double) {
                self.fault(place, "`repeated.unique` fits lists of strings, bytes, integers and enums");
            }
            quote!(Repeated::check_unique(value, at, out);)
        });
        quote! {
            // A list of the wrong length is not looked at any further, which bounds the work.
            if (Repeated { #(#bounds,)* ..Repeated::ANY }).check(value.len(), at, out) {
                #unique
                #each
            }
        }
    }

    fn single(&mut self, element: &Element) -> TokenStream {
        if element.one_line && element.kind != Kind::String {
            self.fault(element.place, "`one_line` fits texts");
        }
        match &element.kind {
            Kind::String => self.text(element),
            Kind::Enum(_) => self.choice(element),
            Kind::Message(message) => {
                self.no_group(element);
                if !options::is_generated(message) && !WELL_KNOWN.contains(&message.full_name()) {
                    self.fault(element.place, &format!("there is no validator for {}", message.full_name()));
                }
                quote!(value.validate(at, out);)
            }
            Kind::Bool | Kind::Bytes => {
                self.no_group(element);
                TokenStream::new()
            }
            _ => self.number(element),
        }
    }

    /// A string without rules is checked too: no string may hold U+0000.
    fn text(&mut self, element: &Element) -> TokenStream {
        let known = ["min_len", "max_len", "max_bytes", "pattern", "in", "email", "uuid", "uri"];
        let mut fields = Vec::new();
        let Some(group) = self.group(element.place, element.rules.clone(), "string", &known) else {
            let form = element.one_line.then(|| quote!(form: Form::OneLine,));
            return quote!(Text { #form ..Text::ANY }.check(value, at, out););
        };
        fields.extend(["min_len", "max_len", "max_bytes"].iter().filter_map(|rule| size(&group, rule)));
        let forms = [
            (group.flag("email"), quote!(Email)),
            (group.flag("uuid"), quote!(Uuid)),
            (group.flag("uri"), quote!(Uri)),
            (element.one_line, quote!(OneLine)),
        ];
        let forms: Vec<_> =
            forms.into_iter().filter(|(set, _)| *set).map(|(_, form)| quote!(form: Form::#form)).collect();
        if forms.len() > 1 {
            self.fault(element.place, "a text has one of email, uuid, uri and one_line");
        }
        fields.extend(forms);
        let values = group.texts("in");
        if !values.is_empty() {
            fields.push(quote!(one_of: &[#(#values),*]));
        }
        if group.has_field_by_name("pattern") {
            let pattern = group.text("pattern");
            if let Err(error) = Regex::new(&pattern) {
                self.fault(element.place, &format!("the pattern `{pattern}` cannot be read: {error}"));
            }
            fields.push(quote!(pattern: {
                static PATTERN: Pattern = Pattern::new(|| compile(#pattern));
                Some(&PATTERN)
            }));
        }
        quote!(Text { #(#fields,)* ..Text::ANY }.check(value, at, out);)
    }

    fn choice(&mut self, element: &Element) -> TokenStream {
        let known = ["defined_only", "not_in"];
        let Some(group) = self.group(element.place, element.rules.clone(), "enum", &known) else {
            return TokenStream::new();
        };
        let Kind::Enum(descriptor) = &element.kind else { return TokenStream::new() };
        let path = rust::enumeration(descriptor);
        let defined = group.flag("defined_only").then(|| quote!(defined: Some(#path::is_valid),));
        let not_in =
            group.list("not_in").iter().filter_map(Value::as_i32).map(Literal::i32_suffixed).collect::<Vec<_>>();
        quote!(Choice { #defined not_in: &[#(#not_in),*], ..Choice::ANY }.check(*value, at, out);)
    }

    fn number(&mut self, element: &Element) -> TokenStream {
        let name = number_group(&element.kind);
        let bounds = ["gt", "gte", "lt", "lte"];
        let Some(group) = self.group(element.place, element.rules.clone(), name, &bounds) else {
            return TokenStream::new();
        };
        let fields = bounds.iter().filter(|bound| group.has_field_by_name(bound)).map(|bound| {
            let (member, limit) = (rust::member(bound), number(&group.value(bound)));
            quote!(#member: Some(#limit),)
        });
        quote!(Number { #(#fields)* ..Number::ANY }.check(*value, at, out);)
    }

    /// The rules of the one group that fits the field, where it has any.
    fn group(
        &mut self,
        place: &str,
        rules: Option<DynamicMessage>,
        group: &str,
        known: &[&str],
    ) -> Option<DynamicMessage> {
        let rules = rules?;
        self.refuse_unknown(place, &rules, &["required", "ignore", group]);
        if !rules.has_field_by_name(group) {
            return None;
        }
        let group = rules.value(group).as_message()?.clone();
        self.refuse_unknown(place, &group, known);
        Some(group)
    }

    fn no_group(&mut self, element: &Element) {
        if let Some(rules) = &element.rules {
            self.refuse_unknown(element.place, rules, &["required", "ignore"]);
        }
    }

    fn refuse_unknown(&mut self, place: &str, rules: &DynamicMessage, known: &[&str]) {
        let set = rules.fields().map(|(field, _)| field.name().to_owned());
        let set = set.chain(rules.extensions().map(|(extension, _)| extension.full_name().to_owned()));
        let unknown: Vec<_> = set.filter(|name| !known.contains(&name.as_str())).collect();
        for name in unknown {
            let group = rules.descriptor().full_name().to_owned();
            self.fault(place, &format!("the generator does not know the rule `{name}` of {group} here"));
        }
    }

    fn fault(&mut self, place: &str, fault: &str) {
        self.faults.push(format!("{place}: {fault}"));
    }
}

fn field_rules(field: &FieldDescriptor) -> Option<DynamicMessage> {
    options::message_extension(&field.options(), "buf.validate.field")
}

/// Whether the field holds a name.
fn is_one_line(field: &FieldDescriptor) -> bool {
    options::extension(&field.options(), "guildhall.mesh.v1.one_line")
        .is_some_and(|value| value.as_bool() == Some(true))
}

/// The oneof that a field is written in; proto3's `optional` makes one of its own, which does not count.
fn real_oneof(field: &FieldDescriptor) -> Option<OneofDescriptor> {
    field.containing_oneof().filter(|oneof| !oneof.is_synthetic())
}

fn at_field(json_name: &str, body: &TokenStream) -> TokenStream {
    if body.is_empty() {
        return TokenStream::new();
    }
    quote!(at.field(#json_name, |at| { #body });)
}

/// `max_len: 80`, where the rule is set.
fn size(rules: &DynamicMessage, rule: &str) -> Option<TokenStream> {
    let limit = rules.has_field_by_name(rule).then(|| rules.value(rule))?;
    let limit = Literal::u64_unsuffixed(limit.as_u64()?);
    let rule = rust::member(rule);
    Some(quote!(#rule: #limit))
}

fn number_group(kind: &Kind) -> &'static str {
    match kind {
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Enum(_) => {
            unreachable!("{kind:?} is no number")
        }
    }
}

fn number(value: &Value) -> Literal {
    match *value {
        Value::I32(number) => Literal::i32_suffixed(number),
        Value::I64(number) => Literal::i64_suffixed(number),
        Value::U32(number) => Literal::u32_suffixed(number),
        Value::U64(number) => Literal::u64_suffixed(number),
        Value::F32(number) => Literal::f32_suffixed(number),
        Value::F64(number) => Literal::f64_suffixed(number),
        ref other => unreachable!("{other:?} bounds no number"),
    }
}
