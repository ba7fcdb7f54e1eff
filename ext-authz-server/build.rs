//! Generates the gRPC side of the `keyward.v1` services; the messages themselves come from the contract crate.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let protos = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../contract/proto");
    let files = ["report", "decisions", "revocations"].map(|name| protos.join(format!("keyward/v1/{name}.proto")));
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, [&protos])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".keyward.v1.ReportRequest", "::keyward_contract::report::ReportRequest")
        .extern_path(".keyward.v1.ReportResponse", "::keyward_contract::report::ReportResponse")
        .extern_path(".keyward.v1.Question", "::keyward_contract::decisions::Question")
        .extern_path(".keyward.v1.Answer", "::keyward_contract::decisions::Answer")
        .extern_path(".keyward.v1.WatchRequest", "::keyward_contract::revocation::WatchRequest")
        .extern_path(".keyward.v1.Update", "::keyward_contract::revocation::Update")
        .compile_fds(descriptors)?;
    Ok(())
}
