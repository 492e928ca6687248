//! The gRPC services: proto to domain to store to proto. Requests are validated and their callers authorised before they get here.

mod account;
mod administration;
mod credential;
mod person;
mod profile;
mod session;
mod token;

use std::net::IpAddr;

use mesh::{Caller, User};
use prost_types::FieldMask;
use status::{Problem, Reason};
use tonic::Request;

pub use account::Accounts;
pub use profile::Profiles;
pub use token::Tokens;

/// The person who calls.
fn user<T>(request: &Request<T>) -> Result<User, Problem> {
    Ok(Caller::of(request)?.user()?.clone())
}

/// The client's network address, as the edge tells it. The mesh strips the header from what any other workload sends.
fn client_address<T>(request: &Request<T>) -> Option<IpAddr> {
    request.metadata().get("x-client-address")?.to_str().ok()?.parse().ok()
}

/// An id that validation has seen already.
fn id<T: std::str::FromStr>(text: &str, field: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::new(Reason::InvalidFields).violation(field, "is not an id"))
}

fn not_found() -> Problem {
    Problem::new(Reason::NotFound)
}

/// The rows to ask for so that a page of `size` shows whether another follows.
fn limit(size: usize) -> i64 {
    i64::try_from(size + 1).unwrap_or(i64::MAX)
}

/// The fields that an update changes.
struct Mask(Option<Vec<String>>);

impl Mask {
    /// The mask of a request, each path one of `changeable`. Without a mask, every field that has a value is changed (AIP-134).
    fn read(mask: Option<FieldMask>, changeable: &[&str]) -> Result<Self, Problem> {
        let Some(FieldMask { paths }) = mask else { return Ok(Self(None)) };
        let paths = match paths.as_slice() {
            [all] if all == "*" => changeable.iter().map(|&path| path.to_owned()).collect(),
            _ => paths,
        };
        match paths.iter().find(|path| !changeable.contains(&path.as_str())) {
            Some(path) => {
                Err(Problem::new(Reason::InvalidFields).violation("updateMask", format!("`{path}` cannot be changed")))
            }
            None => Ok(Self((!paths.is_empty()).then_some(paths))),
        }
    }

    /// The value of the field, if it is to be changed.
    fn pick<T: Default + PartialEq>(&self, path: &str, value: T) -> Option<T> {
        let picked = match &self.0 {
            Some(paths) => paths.iter().any(|of| of == path),
            None => value != T::default(),
        };
        picked.then_some(value)
    }
}
