//! The edge through its real port, in front of small services that answer what a test needs, over real mTLS.

mod caching;
mod errors;
mod grpc;
mod harness;
mod headers;
mod lifecycle;
mod limits;
mod pages;
mod rest;
mod streams;
mod tokens;
mod upstream;
