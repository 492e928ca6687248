//! Everything that is generated from the descriptors beside what prost and tonic write.

use proc_macro2::TokenStream;
use prost_reflect::DescriptorPool;

use super::{check, events, methods, payloads, redact, validate};

/// Source text of the two files.
pub(crate) struct Generated {
    /// Trait implementations of the messages.
    pub(crate) impls: String,
    /// `METHODS`, `PASSTHROUGHS` and `TOPICS`.
    pub(crate) tables: String,
}

/// Checks the contracts and generates from them, or says everything that is wrong with them.
pub(crate) fn generate(pool: &DescriptorPool) -> Result<Generated, Vec<String>> {
    let mut faults = check::faults(pool);
    faults.extend(events::faults(pool));
    let validators = validate::impls(pool).unwrap_or_else(|more| {
        faults.extend(more);
        TokenStream::new()
    });
    if !faults.is_empty() {
        return Err(faults);
    }
    let impls = [validators, payloads::impls(pool), events::impls(pool), redact::impls(pool)];
    let tables = [methods::tables(pool), events::table(pool)];
    Ok(Generated { impls: format(impls), tables: format(tables) })
}

fn format<const N: usize>(parts: [TokenStream; N]) -> String {
    let file = syn::parse2(parts.into_iter().collect()).expect("the generators write Rust items");
    prettyplease::unparse(&file)
}
