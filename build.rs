//! Compiles `proto/` into Rust and a descriptor set for gRPC reflection. Needs
//! neither protoc nor network.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");

    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join("hookward/v1"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    // The order of a directory is not defined; that of the build's output is.
    files.sort();

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true).open_files(files)?;

    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("hookward.bin");
    fs::write(descriptors, compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .bytes(".")
        // Ordered, so that a message has one encoding: request ids compare them.
        .btree_map(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
