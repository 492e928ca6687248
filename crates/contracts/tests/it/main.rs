//! The contracts through their public surface, and the build's own checks.

mod codec;
mod faults;
mod redaction;
mod tables;
mod validators;
