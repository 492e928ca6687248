//! `Debug` for messages with fields marked `debug_redact`, so that these never reach a log.

use proc_macro2::TokenStream;
use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};
use quote::quote;

use super::options::{self, Read};
use super::rust;

/// The names of the messages whose derived `Debug` would tell too much, as prost wants them.
pub(crate) fn messages(pool: &DescriptorPool) -> Vec<String> {
    secretive(pool).map(|message| format!(".{}", message.full_name())).collect()
}

/// `impl Debug` for each.
pub(crate) fn impls(pool: &DescriptorPool) -> TokenStream {
    secretive(pool)
        .map(|message| {
            let (path, name) = (rust::message(&message), message.name());
            let fields = message.fields().map(|field| {
                let (member, name) = (rust::member(field.name()), field.name());
                if is_redacted(&field) {
                    quote!(.field(#name, &format_args!("[redacted]")))
                } else {
                    quote!(.field(#name, &self.#member))
                }
            });
            quote! {
                impl ::std::fmt::Debug for #path {
                    fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.debug_struct(#name)#(#fields)*.finish()
                    }
                }
            }
        })
        .collect()
}

fn secretive(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    options::messages(pool).filter(|message| message.fields().any(|field| is_redacted(&field)))
}

fn is_redacted(field: &FieldDescriptor) -> bool {
    field.options().flag("debug_redact")
}
