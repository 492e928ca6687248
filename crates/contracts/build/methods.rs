//! The tables of methods and passed-through paths.

use heck::ToUpperCamelCase;
use proc_macro2::{Ident, Span, TokenStream};
use prost_reflect::prost_types::method_options::IdempotencyLevel;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, ReflectMessage, ServiceDescriptor,
};
use quote::quote;

use super::options::{self, Read};

/// `METHODS`, sorted by path, and `PASSTHROUGHS`.
pub(crate) fn tables(pool: &DescriptorPool) -> TokenStream {
    let mut methods: Vec<_> = options::methods(pool).map(|method| (path(&method), row(&method))).collect();
    methods.sort_by(|(a, _), (b, _)| a.cmp(b));
    let rows = methods.iter().map(|(_, row)| row);
    let passthroughs = passthroughs(pool);
    let passthroughs = passthroughs.iter().map(|(service, passthrough)| passthrough_row(service, passthrough));
    quote! {
        /// Every RPC of the contracts, sorted by path.
        pub static METHODS: &[crate::Method] = &[#(#rows),*];

        /// Every path that the edge proxies unread.
        pub static PASSTHROUGHS: &[crate::Passthrough] = &[#(#passthroughs),*];
    }
}

/// `/guildhall.content.v1.PostService/GetPost`.
pub(crate) fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// The paths that each service lets the edge proxy.
pub(crate) fn passthroughs(pool: &DescriptorPool) -> Vec<(ServiceDescriptor, DynamicMessage)> {
    let declared = |service: &ServiceDescriptor| {
        let value = options::extension(&service.options(), "guildhall.mesh.v1.passthrough");
        let list = value.and_then(|value| value.as_list().map(<[_]>::to_vec)).unwrap_or_default();
        list.iter().filter_map(|value| value.as_message().cloned()).collect::<Vec<_>>()
    };
    options::services(pool)
        .flat_map(|service| declared(&service).into_iter().map(move |value| (service.clone(), value)))
        .collect()
}

/// The fields of a request that are marked as its idempotency key.
pub(crate) fn idempotency_keys(method: &MethodDescriptor) -> Vec<FieldDescriptor> {
    let is_key = |field: &FieldDescriptor| {
        options::extension(&field.options(), "guildhall.mesh.v1.idempotency_key")
            .is_some_and(|value| value.as_bool() == Some(true))
    };
    method.input().fields().filter(is_key).collect()
}

fn row(method: &MethodDescriptor) -> TokenStream {
    let path = path(method);
    let service = method.parent_service();
    let (owner, name) = (options::owner(service.package_name()), method.name());
    let access = access(method);
    let limit = options::message_extension(&method.options(), "guildhall.mesh.v1.limit");
    let limit = limit.map_or_else(|| quote!(crate::LimitClass::Read), |limit| class(&limit, "class"));
    let cache = options::message_extension(&method.options(), "guildhall.mesh.v1.cache").map(|cache| {
        let (max_age, public) = (cache.number("max_age"), cache.flag("public"));
        quote!(crate::Cache { max_age: #max_age, public: #public })
    });
    let cache = option(cache);
    let http = http(method);
    let idempotency = match method.method_descriptor_proto().options.clone().unwrap_or_default().idempotency_level() {
        IdempotencyLevel::IdempotencyUnknown => quote!(Unknown),
        IdempotencyLevel::NoSideEffects => quote!(NoSideEffects),
        IdempotencyLevel::Idempotent => quote!(Idempotent),
    };
    let key = option(idempotency_keys(method).first().map(FieldDescriptor::name));
    let (client_streaming, server_streaming) = (method.is_client_streaming(), method.is_server_streaming());
    let (input, output) = (method.input(), method.output());
    let (input, output) = (input.full_name(), output.full_name());
    quote! {
        crate::Method {
            path: #path,
            owner: #owner,
            name: #name,
            access: #access,
            limit: #limit,
            cache: #cache,
            http: #http,
            idempotency: crate::Idempotency::#idempotency,
            idempotency_key: #key,
            client_streaming: #client_streaming,
            server_streaming: #server_streaming,
            input: #input,
            output: #output,
        }
    }
}

fn access(method: &MethodDescriptor) -> TokenStream {
    let access = options::message_extension(&method.options(), "guildhall.mesh.v1.access")
        .expect("checked: every method has an access rule");
    let (workloads, scopes) = (access.texts("workloads"), access.texts("scopes"));
    let user = variant(&access, "user");
    let role = access.text("role");
    let role = option((!role.is_empty()).then(|| {
        let role = Ident::new(&role.to_upper_camel_case(), Span::call_site());
        quote!(crate::Role::#role)
    }));
    let resource_rule = access.text("resource_rule");
    let resource_rule = option((!resource_rule.is_empty()).then_some(resource_rule));
    quote! {
        crate::Access {
            workloads: &[#(#workloads),*],
            user: crate::User::#user,
            scopes: &[#(#scopes),*],
            role: #role,
            resource_rule: #resource_rule,
        }
    }
}

fn http(method: &MethodDescriptor) -> TokenStream {
    let Some(http) = options::message_extension(&method.options(), "guildhall.mesh.v1.http") else {
        return quote!(crate::HttpRules::NONE);
    };
    let (request_headers, response_headers) = (http.texts("request_headers"), http.texts("response_headers"));
    let statuses: Vec<u16> = http
        .list("statuses")
        .iter()
        .map(|status| status.as_u32().and_then(|status| u16::try_from(status).ok()).expect("checked: an HTTP status"))
        .collect();
    let produces = http.texts("produces");
    quote! {
        crate::HttpRules {
            request_headers: &[#(#request_headers),*],
            statuses: &[#(#statuses),*],
            response_headers: &[#(#response_headers),*],
            produces: &[#(#produces),*],
        }
    }
}

fn passthrough_row(service: &ServiceDescriptor, passthrough: &DynamicMessage) -> TokenStream {
    let path = passthrough.text("path");
    let (methods, workloads) = (passthrough.texts("methods"), passthrough.texts("workloads"));
    let limit = class(passthrough, "limit");
    let owner = options::owner(service.package_name());
    quote! {
        crate::Passthrough {
            path: #path,
            methods: &[#(#methods),*],
            workloads: &[#(#workloads),*],
            limit: #limit,
            owner: #owner,
        }
    }
}

fn class(message: &DynamicMessage, field: &str) -> TokenStream {
    if message.choice(field) == 0 {
        return quote!(crate::LimitClass::Read);
    }
    let class = variant(message, field);
    quote!(crate::LimitClass::#class)
}

/// The name of an enum's value, as a Rust variant.
fn variant(message: &DynamicMessage, field: &str) -> Ident {
    let descriptor = message.descriptor().get_field_by_name(field).map(|field| field.kind());
    let Some(Kind::Enum(descriptor)) = descriptor else { panic!("{field} is not an enum") };
    let value = descriptor.get_value(message.choice(field)).expect("checked: a known value");
    Ident::new(&value.name().to_upper_camel_case(), Span::call_site())
}

fn option<T: quote::ToTokens>(value: Option<T>) -> TokenStream {
    value.map_or_else(|| quote!(None), |value| quote!(Some(#value)))
}
