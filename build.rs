//! Turns the example workloads from WAT into WASI 0.2 components, so that neither the
//! tests nor the self-test need a WebAssembly tool chain.

mod components {
    use std::error::Error;
    use std::path::{Path, PathBuf};

    use wasi_preview1_component_adapter_provider as adapter;

    const SOURCES: [&str; 11] = [
        "examples/wordsum/wordsum.wat",
        "examples/score/score.wat",
        "examples/faults/busy.wat",
        "examples/faults/memory_hog.wat",
        "examples/faults/trap.wat",
        "examples/faults/exit3.wat",
        "examples/faults/chatty.wat",
        "examples/faults/filler.wat",
        "examples/faults/flood.wat",
        "examples/faults/escape.wat",
        "examples/faults/token.wat",
    ];

    pub(super) fn build() -> Result<(), Box<dyn Error>> {
        let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
        let out = PathBuf::from(std::env::var("OUT_DIR")?);
        for source in SOURCES {
            println!("cargo:rerun-if-changed={source}");
            let name = Path::new(source).with_extension("wasm");
            let name = name.file_name().ok_or("a source without a file name")?;
            std::fs::write(out.join(name), encode(&root.join(source))?)?;
        }
        Ok(())
    }

    /// Version and layer of a binary that is a component already.
    const COMPONENT: [u8; 4] = [0x0d, 0x00, 0x01, 0x00];

    /// Wraps a core module for WASI preview 1 with the command adapter.
    fn encode(source: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
        let module = wat::parse_file(source)?;
        if module.get(4..8) == Some(COMPONENT.as_slice()) {
            return Ok(module);
        }
        let component = wit_component::ComponentEncoder::default()
            .module(&module)?
            .adapter(
                adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                adapter::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
            )?
            .validate(true)
            .encode()?;
        Ok(component)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    components::build()?;
    Ok(())
}
