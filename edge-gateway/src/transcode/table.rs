//! The compiled RPCs and routes of a descriptor pool.
use std::{collections::HashMap, sync::Arc};

use http::Method;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MethodDescriptor};

use super::{
    annotation::{Annotation, behaves},
    binding::{Binding, Match, Payload},
    engine::Engine,
    json::OutputOnly,
    mask, query,
    reflect::{Body, Reflect, is_http_body},
    router::{Outcome, Router},
    rpc::{self, Rpc},
    scalar,
    template::{self, Template},
};

/// Why a descriptor pool cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the template `{template}` of {rpc} cannot be read")]
    Template {
        rpc: String,
        template: String,
        #[source]
        source: template::Error,
    },
    #[error("{rpc} has an HTTP rule without a method and a path")]
    Pattern { rpc: String },
    #[error("`{field}` in the template `{template}` of {rpc} names no field that a path can set")]
    Variable { rpc: String, template: String, field: String },
    #[error("the {role} `{field}` of {rpc} names no field of the message itself")]
    BodyField { rpc: String, role: &'static str, field: String },
    #[error("{first} and {second} have the same route: {route}")]
    Duplicate { first: String, second: String, route: String },
    #[error(transparent)]
    Rpc(#[from] rpc::Error),
}

/// Every RPC of a pool, and the routes of those that have `google.api.http` rules. Immutable: a reload builds a new one.
pub struct Table {
    pool: DescriptorPool,
    rpcs: Vec<Arc<Rpc>>,
    by_path: HashMap<String, usize>,
    routes: Vec<Arc<Binding>>,
    router: Router<Arc<Binding>>,
}

/// Where a request leads.
pub enum Routed {
    Found(Match),
    /// The path exists, with these methods (HEAD where there is GET, and OPTIONS, included; sorted).
    MethodNotAllowed {
        allow: Vec<Method>,
    },
    NotFound,
}

impl Table {
    /// Compiles the pool. Bad templates, duplicate routes, and rules that name no field fail here and not at a request.
    pub fn from_pool(pool: DescriptorPool) -> Result<Self, Error> {
        let output_only = output_only(&pool);
        let methods: Vec<_> = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
        let mut table =
            Self { pool, rpcs: Vec::new(), by_path: HashMap::new(), routes: Vec::new(), router: Router::default() };
        for method in methods {
            let rpc = Arc::new(Rpc::of(&method)?);
            for rule in rules(&method) {
                table.add(Rule::of(&method, &rule)?.bind(&rpc, &output_only)?)?;
            }
            table.by_path.insert(rpc.path.path().to_owned(), table.rpcs.len());
            table.rpcs.push(rpc);
        }
        Ok(table)
    }

    fn add(&mut self, binding: Binding) -> Result<(), Error> {
        let binding = Arc::new(binding);
        self.router.insert(&binding.template, binding.method.clone(), Arc::clone(&binding)).map_err(|twin| {
            Error::Duplicate {
                first: twin.rpc.path.to_string(),
                second: binding.rpc.path.to_string(),
                route: format!("{} {}", binding.method, binding.text),
            }
        })?;
        self.routes.push(binding);
        Ok(())
    }

    /// Finds the route of a request by its raw, still encoded path without the query. HEAD is served by GET.
    pub fn route(&self, method: &Method, path: &str) -> Routed {
        match self.router.find(method, path) {
            Outcome::Route(binding) => Routed::Found(Match::new(Arc::clone(binding), path)),
            Outcome::MethodNotAllowed(allow) => Routed::MethodNotAllowed { allow },
            Outcome::NotFound => Routed::NotFound,
        }
    }

    /// The RPC at a gRPC path, with or without a route.
    pub fn rpc(&self, path: &str) -> Option<&Arc<Rpc>> {
        self.by_path.get(path).map(|index| &self.rpcs[*index])
    }

    /// The pool that it was compiled from.
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// Every RPC, in the pool's order.
    pub fn rpcs(&self) -> &[Arc<Rpc>] {
        &self.rpcs
    }

    /// Every route, in the pool's order.
    pub(crate) fn routes(&self) -> &[Arc<Binding>] {
        &self.routes
    }
}

/// The HTTP rules of a method: its own and the additional ones.
fn rules(method: &MethodDescriptor) -> Vec<Annotation> {
    let Some(rule) = Annotation::of(&method.options(), "google.api.http") else { return Vec::new() };
    let mut rules = rule.messages("additional_bindings");
    rules.insert(0, rule);
    rules
}

fn output_only(pool: &DescriptorPool) -> OutputOnly {
    let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    Arc::new(fields.filter(|field| behaves(field, "OUTPUT_ONLY")).map(|field| field.full_name().to_owned()).collect())
}

/// One `google.api.HttpRule`, read.
struct Rule {
    rpc: String,
    method: Method,
    text: String,
    template: Template,
    body: String,
    response_body: Option<String>,
}

impl Rule {
    fn of(of: &MethodDescriptor, rule: &Annotation) -> Result<Self, Error> {
        let rpc = of.full_name().to_owned();
        let custom =
            rule.nested("custom").and_then(|custom| Some((custom.text("kind")?.parse().ok()?, custom.text("path")?)));
        let named = |(field, method): (&str, Method)| Some((method, rule.text(field)?));
        let fields = [
            ("get", Method::GET),
            ("put", Method::PUT),
            ("post", Method::POST),
            ("delete", Method::DELETE),
            ("patch", Method::PATCH),
        ];
        let Some((method, text)) = fields.into_iter().find_map(named).or(custom) else {
            return Err(Error::Pattern { rpc });
        };
        let template =
            text.parse().map_err(|source| Error::Template { rpc: rpc.clone(), template: text.clone(), source })?;
        Ok(Self {
            rpc,
            method,
            text,
            template,
            body: rule.text("body").unwrap_or_default(),
            response_body: rule.text("response_body"),
        })
    }

    fn bind(self, rpc: &Arc<Rpc>, output_only: &OutputOnly) -> Result<Binding, Error> {
        let variables = self
            .template
            .variables
            .iter()
            .map(|variable| self.variable(rpc, &variable.field))
            .collect::<Result<_, _>>()?;
        let body = match self.body.as_str() {
            "" => Body::Nothing,
            "*" => Body::Whole,
            name => Body::Field(self.field("body", rpc.input.get_field_by_name(name), name)?),
        };
        let response_body = match &self.response_body {
            Some(name) => Some(self.field("response body", rpc.output.get_field_by_name(name), name)?),
            None => None,
        };
        let raw = |field: &FieldDescriptor| !field.is_list() && field.kind().as_message().is_some_and(is_http_body);
        let takes = match &body {
            Body::Nothing => Payload::Nothing,
            Body::Whole if is_http_body(&rpc.input) => Payload::Raw,
            Body::Field(field) if raw(field) => Payload::Raw,
            _ => Payload::Json,
        };
        let gives = match &response_body {
            None if is_http_body(&rpc.output) => Payload::Raw,
            Some(field) if raw(field) => Payload::Raw,
            _ => Payload::Json,
        };
        let mask = mask::field(&rpc.input).filter(|_| self.method == Method::PATCH && matches!(body, Body::Field(_)));
        let etag = etag(rpc, &body);
        let if_match = etag.is_some();
        let engine = Reflect {
            input: rpc.input.clone(),
            output: rpc.output.clone(),
            variables,
            etag,
            idempotency_key: rpc.idempotency_key.clone().map(|field| vec![field]),
            body: body.clone(),
            response_body: response_body.clone(),
            mask,
            output_only: Arc::clone(output_only),
        };
        let engine: Box<dyn Engine> = Box::new(engine);
        let Self { method, text, template, .. } = self;
        Ok(Binding {
            rpc: Arc::clone(rpc),
            method,
            text,
            template,
            body,
            response_body,
            takes,
            gives,
            if_match,
            engine,
        })
    }

    /// A path sets single fields whose value is one text.
    fn variable(&self, rpc: &Rpc, path: &str) -> Result<Vec<FieldDescriptor>, Error> {
        let error = || Error::Variable { rpc: self.rpc.clone(), template: self.text.clone(), field: path.to_owned() };
        let fields =
            query::resolve(&rpc.input, path).filter(|fields| query::proto_path(fields) == path).ok_or_else(error)?;
        let settable =
            fields.last().is_some_and(|field| !field.is_list() && !field.is_map() && scalar::has_text(&field.kind()));
        if settable { Ok(fields) } else { Err(error()) }
    }

    fn field(&self, role: &'static str, field: Option<FieldDescriptor>, name: &str) -> Result<FieldDescriptor, Error> {
        field.ok_or_else(|| Error::BodyField { rpc: self.rpc.clone(), role, field: name.to_owned() })
    }
}

/// The etag of the resource in the body, or else of the request itself.
fn etag(rpc: &Rpc, body: &Body) -> Option<Vec<FieldDescriptor>> {
    let text = |field: &FieldDescriptor| field.kind() == Kind::String && !field.is_list();
    if let Body::Field(resource) = body
        && let Some(etag) =
            super::json::plain(resource).and_then(|message| message.get_field_by_name("etag")).filter(text)
    {
        return Some(vec![resource.clone(), etag]);
    }
    rpc.input.get_field_by_name("etag").filter(text).map(|etag| vec![etag])
}
