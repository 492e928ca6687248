//! `impl Payload` for every message that an RPC carries.

use std::collections::BTreeMap;

use proc_macro2::TokenStream;
use prost_reflect::DescriptorPool;
use quote::quote;

use super::{options, rust};

/// One for each message; `check` has seen that none goes both ways.
pub(crate) fn impls(pool: &DescriptorPool) -> TokenStream {
    let mut carried = BTreeMap::new();
    for method in options::methods(pool) {
        let request = if method.is_client_streaming() { quote!(RequestPart) } else { quote!(Request) };
        for (message, direction) in [(method.input(), request), (method.output(), quote!(Answer))] {
            if options::is_generated(&message) {
                carried.insert(message.full_name().to_owned(), (rust::message(&message), direction));
            }
        }
    }
    let impls = carried.values().map(|(message, direction)| {
        quote! {
            impl crate::Payload for #message {
                const DIRECTION: crate::Direction = crate::Direction::#direction;
            }
        }
    });
    impls.collect()
}
