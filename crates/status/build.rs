//! Compiles the enum of reasons, and a table of what each means, from `proto/guildhall/common/v1/reason.proto`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use prost_reflect::{DescriptorPool, DynamicMessage, EnumValueDescriptor};

const REASON_PROTO: &str = "guildhall/common/v1/reason.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let includes = [root.join("proto"), root.join("third_party/proto")];
    println!("cargo::rerun-if-changed={}", includes[0].join(REASON_PROTO).display());
    println!("cargo::rerun-if-changed={}", includes[0].join("guildhall/mesh/v1/options.proto").display());

    let mut compiler = protox::Compiler::new(includes)?;
    compiler.include_imports(true).include_source_info(true).open_file(REASON_PROTO)?;

    let table = meanings(&compiler.descriptor_pool())?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("meanings.rs"), table)?;

    let mut files = compiler.file_descriptor_set();
    files.file.retain(|file| file.name() == REASON_PROTO);
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}

/// Source text of `fn meaning(reason: Reason) -> Meaning`.
fn meanings(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let reasons = pool.get_enum_by_name("guildhall.common.v1.Reason").ok_or("reason.proto has no enum Reason")?;
    let mut arms = String::new();
    for value in reasons.values() {
        let (code, http_status, title) = meaning(pool, &value)?;
        writeln!(
            arms,
            "        {number} => Meaning {{ code: {code}, http_status: {http_status}, title: {title:?} }},",
            number = value.number()
        )?;
    }
    Ok(format!(
        "pub(super) fn meaning(reason: Reason) -> Meaning {{\n    match reason as i32 {{\n{arms}        \
         number => unreachable!(\"reason {{number}} is not in reason.proto\"),\n    }}\n}}\n"
    ))
}

fn meaning(pool: &DescriptorPool, value: &EnumValueDescriptor) -> Result<(u32, u32, String), Box<dyn Error>> {
    // The zero value is never sent on purpose, so it means what INTERNAL means.
    if value.number() == 0 {
        let reasons = value.parent_enum();
        let internal = reasons.get_value_by_name("INTERNAL").ok_or("reason.proto has no INTERNAL")?;
        return meaning(pool, &internal);
    }
    let extension =
        pool.get_extension_by_name("guildhall.mesh.v1.meaning").ok_or("options.proto has no extension `meaning`")?;
    let options = value.options();
    if !options.has_extension(&extension) {
        return Err(format!("{}: the reason has no (guildhall.mesh.v1.meaning)", value.name()).into());
    }
    let options = options.get_extension(&extension);
    let option = options.as_message().ok_or("(guildhall.mesh.v1.meaning) is not a message")?;
    let number = |field| option.get_field_by_name(field).and_then(|value| value.as_u32()).unwrap_or_default();
    let code = number("code");
    let from_code = http_status(code).ok_or_else(|| format!("{}: {code} is no code of an error", value.name()))?;
    let http_status = if number("http_status") == 0 { from_code } else { number("http_status") };
    let title = title(option).ok_or_else(|| format!("{}: the reason has no title", value.name()))?;
    Ok((code, http_status, title))
}

fn title(option: &DynamicMessage) -> Option<String> {
    let title = option.get_field_by_name("title")?.as_str()?.to_owned();
    (!title.is_empty()).then_some(title)
}

/// The HTTP status of a `google.rpc.Code`, by the comments of `google/rpc/code.proto`.
fn http_status(code: u32) -> Option<u32> {
    Some(match code {
        1 => 499,
        2 | 13 | 15 => 500,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => return None,
    })
}
