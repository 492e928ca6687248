use std::collections::HashSet;

use bytes::Bytes;
use prost::Message;
use prost_types::FileDescriptorProto;
use tonic_reflection::server::{Builder, Error, v1, v1alpha};

/// A `google.protobuf.FileDescriptorSet` whose files are left as they are: decoding them would lose the options of ours.
#[derive(Message)]
struct Files {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// Reflection, in both versions that tools speak, for the services that this server offers and for no others.
pub(crate) fn servers(
    services: &[&'static str],
) -> Result<
    (
        v1::ServerReflectionServer<impl v1::ServerReflection>,
        v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
    ),
    Error,
> {
    // It is served as long as the process lives.
    let offered: &'static [u8] = files_of(services)?.leak();
    let builder = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(offered)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health")
            .with_service_name("grpc.reflection.v1.ServerReflection");
        services.iter().fold(builder, |builder, name| builder.with_service_name(*name))
    };
    Ok((builder().build_v1()?, builder().build_v1alpha()?))
}

/// The descriptor set cut down to the files of these services and what they import.
fn files_of(services: &[&'static str]) -> Result<Vec<u8>, prost::DecodeError> {
    let all = Files::decode(contracts::DESCRIPTOR_SET)?.file;
    let decoded: Vec<_> = all.iter().map(|raw| FileDescriptorProto::decode(raw.clone())).collect::<Result<_, _>>()?;
    let mut wanted: HashSet<&str> =
        decoded.iter().filter(|file| offers_any(file, services)).map(FileDescriptorProto::name).collect();
    // A file comes after what it imports, so that one pass from the end finds everything.
    for file in decoded.iter().rev() {
        if wanted.contains(file.name()) {
            wanted.extend(file.dependency.iter().map(String::as_str));
        }
    }
    let kept = all.iter().zip(&decoded).filter(|(_, file)| wanted.contains(file.name()));
    Ok(Files { file: kept.map(|(raw, _)| raw.clone()).collect() }.encode_to_vec())
}

fn offers_any(file: &FileDescriptorProto, services: &[&'static str]) -> bool {
    file.service.iter().any(|service| services.contains(&format!("{}.{}", file.package(), service.name()).as_str()))
}
