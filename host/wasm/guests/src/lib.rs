//! Operators for the tests and the benchmark of `host/wasm`: see `examples/`.
