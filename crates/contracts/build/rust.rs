//! The names that prost gives to things.

use heck::{ToSnakeCase, ToUpperCamelCase};
use proc_macro2::{Ident, Span, TokenStream};
use prost_reflect::{EnumDescriptor, FieldDescriptor, MessageDescriptor, OneofDescriptor};
use quote::quote;

/// The path of a message's type, from the crate's root.
pub(crate) fn message(message: &MessageDescriptor) -> TokenStream {
    path(message.package_name(), message.full_name())
}

/// The path of an enum's type, from the crate's root.
pub(crate) fn enumeration(enumeration: &EnumDescriptor) -> TokenStream {
    path(enumeration.package_name(), enumeration.full_name())
}

/// The path of a oneof's type, from the crate's root.
pub(crate) fn oneof(oneof: &OneofDescriptor) -> TokenStream {
    let parent = oneof.parent_message();
    path(parent.package_name(), &format!("{}.{}", parent.full_name(), oneof.name()))
}

/// The name of a field or a oneof in its message.
pub(crate) fn member(name: &str) -> Ident {
    let name = name.to_snake_case();
    syn::parse_str(&name).unwrap_or_else(|_| Ident::new_raw(&name, Span::call_site()))
}

/// The name of a field as a variant of its oneof.
pub(crate) fn variant(field: &FieldDescriptor) -> Ident {
    Ident::new(&field.name().to_upper_camel_case(), Span::call_site())
}

/// Packages and enclosing messages are modules; the last name is the type.
fn path(package: &str, full_name: &str) -> TokenStream {
    let inside = full_name.strip_prefix(package).unwrap_or(full_name).trim_start_matches('.');
    let mut names: Vec<_> = inside.split('.').collect();
    let name = Ident::new(&names.pop().unwrap_or_default().to_upper_camel_case(), Span::call_site());
    let modules = package.split('.').chain(names).map(member);
    quote!(crate::generated::#(#modules::)*#name)
}
