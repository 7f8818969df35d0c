//! Bytes that a holder takes for an image: they are read, and nothing of them is trusted.

/// Reads the bytes as an image, and all content that it says it has.
pub fn run(bytes: &[u8]) {
    let dir = std::env::temp_dir().join(format!("capex-fuzz-image-{}", std::process::id()));
    let Ok(()) = std::fs::create_dir_all(&dir) else { return };
    let path = dir.join("image.tar");
    if std::fs::write(&path, bytes).is_ok()
        && let Ok(given) = capex::executor::open_image(&path, &["sh".to_owned()])
    {
        for blob in given.blobs() {
            let _ = blob.copy_to(&dir.join("copy"));
        }
    }
    let _ = std::fs::remove_dir_all(dir);
}
