//! Operators for the tests of `host/engine`: see `examples/`.
