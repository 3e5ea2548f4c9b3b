use gpu::ptx::compile;

/// An image that a program loads: a text, or a fat binary with texts that may be packed. What text there is goes to the compiler.
pub fn fatbin(data: &[u8]) {
    if let Ok(text) = cuda::ptx_of(data) {
        let _ = compile(&text);
    }
}
