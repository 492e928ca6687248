//! What the annotations say about an RPC.
use http::{HeaderName, StatusCode, uri::PathAndQuery};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use super::annotation::Annotation;

/// One RPC with what its annotations say.
#[derive(Debug, Clone)]
pub struct Rpc {
    /// `/package.Service/Method`.
    pub path: PathAndQuery,
    pub descriptor: MethodDescriptor,
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    pub client_streaming: bool,
    pub server_streaming: bool,
    /// None where the method has no `(guildhall.mesh.v1.access)`: nobody may call it, unless the operator says otherwise.
    pub access: Option<Access>,
    pub limit: Limit,
    pub cache: Option<Cache>,
    pub http: Http,
    pub idempotency: Idempotency,
    /// The field of the request that is its idempotency key.
    pub idempotency_key: Option<FieldDescriptor>,
    pub deprecated: bool,
}

/// The gate of an RPC (`guildhall.mesh.v1.Access`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Service accounts that may call; `*` is every workload.
    pub workloads: Vec<String>,
    pub user: User,
    /// Scopes that the token must carry, all of them.
    pub scopes: Vec<String>,
    /// The lowest role that suffices.
    pub role: Option<String>,
    /// The name of the rule by which the service decides about the one resource.
    pub resource_rule: Option<String>,
}

/// Whether a person takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Only the workload is looked at.
    WorkloadOnly,
    /// A token is not needed; one that is sent must be valid.
    Anonymous,
    Authenticated,
}

/// The rate class (`guildhall.mesh.v1.Limit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    Read,
    Write,
    Search,
    Credential,
    Bulk,
}

/// How a successful answer may be cached (`guildhall.mesh.v1.Cache`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// Seconds.
    pub max_age: u32,
    pub public: bool,
}

/// What crosses the edge beyond JSON (`guildhall.mesh.v1.Http`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http {
    pub request_headers: Vec<HeaderName>,
    pub response_headers: Vec<HeaderName>,
    pub statuses: Vec<StatusCode>,
    /// The media types of an HttpBody answer.
    pub produces: Vec<String>,
}

/// The method's `idempotency_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    Unknown,
    NoSideEffects,
    Idempotent,
}

/// An annotation that says nothing sensible.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{rpc} has no usable gRPC path")]
    Path { rpc: String },
    #[error("{rpc} declares the header `{name}`, which is none")]
    Header { rpc: String, name: String },
    #[error("{rpc} declares the status {status}, which is none")]
    Status { rpc: String, status: u32 },
}

impl Rpc {
    pub(super) fn of(method: &MethodDescriptor) -> Result<Self, Error> {
        let rpc = method.full_name().to_owned();
        let options = method.options();
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let limit = Annotation::of(&options, "guildhall.mesh.v1.limit").and_then(|limit| limit.symbol("class"));
        let cache = Annotation::of(&options, "guildhall.mesh.v1.cache");
        let own = method.method_descriptor_proto().options.as_ref();
        Ok(Self {
            path: path.try_into().map_err(|_| Error::Path { rpc: rpc.clone() })?,
            descriptor: method.clone(),
            input: method.input(),
            output: method.output(),
            client_streaming: method.is_client_streaming(),
            server_streaming: method.is_server_streaming(),
            access: Annotation::of(&options, "guildhall.mesh.v1.access").map(|access| Access::of(&access)),
            limit: Limit::named(limit.as_deref()),
            cache: cache.map(|cache| Cache { max_age: cache.number("max_age"), public: cache.flag("public") }),
            http: match Annotation::of(&options, "guildhall.mesh.v1.http") {
                Some(http) => Http::of(&rpc, &http)?,
                None => Http::default(),
            },
            idempotency: Idempotency::of(own.map_or(0, |options| options.idempotency_level.unwrap_or_default())),
            idempotency_key: method.input().fields().find(is_idempotency_key),
            deprecated: own.is_some_and(|options| options.deprecated.unwrap_or_default()),
        })
    }
}

fn is_idempotency_key(field: &FieldDescriptor) -> bool {
    Annotation::marks(&field.options(), "guildhall.mesh.v1.idempotency_key")
        && field.kind() == Kind::String
        && !field.is_list()
}

impl Access {
    fn of(access: &Annotation) -> Self {
        Self {
            workloads: access.texts("workloads"),
            user: match access.symbol("user").as_deref() {
                Some("WORKLOAD_ONLY") => User::WorkloadOnly,
                Some("ANONYMOUS") => User::Anonymous,
                // A rule that does not say asks for the most.
                _ => User::Authenticated,
            },
            scopes: access.texts("scopes"),
            role: access.text("role"),
            resource_rule: access.text("resource_rule"),
        }
    }
}

impl Limit {
    fn named(class: Option<&str>) -> Self {
        match class {
            Some("WRITE") => Self::Write,
            Some("SEARCH") => Self::Search,
            Some("CREDENTIAL") => Self::Credential,
            Some("BULK") => Self::Bulk,
            _ => Self::Read,
        }
    }
}

impl Http {
    fn of(rpc: &str, http: &Annotation) -> Result<Self, Error> {
        let headers = |field: &str| {
            let header = |name: String| name.parse().map_err(|_| Error::Header { rpc: rpc.to_owned(), name });
            http.texts(field).into_iter().map(header).collect::<Result<Vec<HeaderName>, _>>()
        };
        let status = |status: u32| {
            let code = u16::try_from(status).ok().and_then(|code| StatusCode::from_u16(code).ok());
            code.ok_or_else(|| Error::Status { rpc: rpc.to_owned(), status })
        };
        Ok(Self {
            request_headers: headers("request_headers")?,
            response_headers: headers("response_headers")?,
            statuses: http
                .list("statuses")
                .iter()
                .filter_map(prost_reflect::Value::as_u32)
                .map(status)
                .collect::<Result<_, _>>()?,
            produces: http.texts("produces"),
        })
    }
}

impl Idempotency {
    /// By the number of `google.protobuf.MethodOptions.IdempotencyLevel`.
    fn of(level: i32) -> Self {
        match level {
            1 => Self::NoSideEffects,
            2 => Self::Idempotent,
            _ => Self::Unknown,
        }
    }
}
