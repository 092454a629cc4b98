//! Maps the outcome of a verb to an exit code.

fn main() {}
